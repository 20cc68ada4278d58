package front

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// exchange is one request and its answer on their way: it counts both, and breaks off
// where the other side stalls. A write to a client that takes nothing, or a read from one that
// gives nothing, fails after the stall; how long a whole transfer takes is not bounded.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	front   *front
	control *http.ResponseController

	route route
	who   login
	began time.Time

	code    int // 0 until it is known
	sent    int64
	got     int64
	stalled bool
}

func (f *front) exchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{
		ResponseWriter: w,
		front:          f,
		control:        http.NewResponseController(w),
		route:          f.route(r.URL.Path),
		began:          time.Now(),
	}
	f.o.Metrics.begin()
	r = r.WithContext(r.Context()) // a copy of our own
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &incoming{ReadCloser: r.Body, x: x, pace: pace{stall: f.o.Stall}}
	}
	x.request = r
	return x
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(code int) {
	if x.code == 0 && code >= http.StatusOK {
		x.code = code
	}
	x.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(b []byte) (n int, err error) {
	if x.code == 0 {
		x.code = http.StatusOK
	}
	_ = x.control.SetWriteDeadline(time.Now().Add(x.front.o.Stall))
	n, err = x.ResponseWriter.Write(b)
	if x.request.Method != http.MethodHead {
		x.sent += int64(n)
	}
	x.stalledBy(err)
	return n, err
}

// FlushError is for http.ResponseController.
func (x *exchange) FlushError() error {
	_ = x.control.SetWriteDeadline(time.Now().Add(x.front.o.Stall))
	err := x.control.Flush()
	x.stalledBy(err)
	return err
}

func (x *exchange) stalledBy(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.stalled = true
	}
}

// finish counts and logs what has ended, also by a panic, which goes on.
func (x *exchange) finish() {
	aborted := recover()
	// The rest is written after this, and the last write may be long ago.
	soon := time.Now().Add(x.front.o.Stall)
	_ = x.control.SetWriteDeadline(soon)
	if x.request.Body != nil && x.request.Body != http.NoBody {
		_ = x.control.SetReadDeadline(soon) // net/http reads what the handler has left
	}
	if x.code == 0 && aborted == nil {
		x.code = http.StatusOK
	}
	if x.stalled {
		x.front.o.Metrics.refused("stalled")
	}
	x.front.o.Metrics.end(x, aborted != nil)
	x.log(aborted != nil)
	if aborted != nil {
		panic(aborted)
	}
}

// fail answers with an error, as the OCI distribution specification 1.1 ("Error Codes")
// has it where a registry is asked.
func (x *exchange) fail(status int, code, message string) {
	h := x.Header()
	h.Set("Cache-Control", "no-store")
	if x.route == pageRoute || x.route == metricsRoute || x.route == apiRoute {
		http.Error(x, message, status)
		return
	}
	type failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]failure{"errors": {{code, message}}})
	if err != nil {
		panic(err) // strings alone
	}
	h.Set("Content-Type", "application/json")
	x.WriteHeader(status)
	if x.request.Method != http.MethodHead {
		_, _ = x.Write(body)
	}
}

// incoming is the body of a request.
type incoming struct {
	io.ReadCloser
	x    *exchange
	pace pace
}

// errSlow is of a body that comes too slowly to be meant well.
var errSlow = errors.New("the body comes too slowly")

// Read takes a new deadline each time: net/http takes it away at the end of the body.
func (b *incoming) Read(p []byte) (n int, err error) {
	before := time.Now()
	_ = b.x.control.SetReadDeadline(before.Add(b.x.front.o.Stall))
	n, err = b.ReadCloser.Read(p)
	b.x.got += int64(n)
	b.x.stalledBy(err)
	if b.pace.tooSlow(n, time.Since(before)) && err == nil {
		b.x.stalled = true
		return n, errSlow
	}
	return n, err
}

// maxLogged bounds, in bytes, what a client says of itself.
const maxLogged = 256

// logged are the parameters that the log shows: those of the OCI distribution
// specification. Any other may be a secret.
func logged(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	q := r.URL.Query()
	var kept []string
	for _, name := range []string{"digest", "mount", "from", "n", "last", "ns", "artifactType"} {
		if v := q.Get(name); v != "" {
			kept = append(kept, name+"="+v)
		}
	}
	return clip(strings.Join(kept, "&"))
}

// clip keeps a line of the log readable. The handler of the log escapes what is not to be printed.
func clip(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged] + "…"
	}
	return s
}
