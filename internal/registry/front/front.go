// Package front is what stands before a registry that is served, or an agent: it listens and
// encrypts, asks who it is, bounds what one request and all together may take,
// counts and logs. It knows nothing of images but how large a document may be.
package front

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// Defaults of Options.
const (
	DefaultRequests = 256
	DefaultUploads  = 32
	DefaultMaxBlob  = 64e9 // bytes
	DefaultStall    = time.Minute
	DefaultGrace    = 30 * time.Second
)

const (
	maxHeader   = 32 << 10 // bytes; net/http adds 4 KiB
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	defaultWait = 10 * time.Second // for a turn
)

// Options say how a registry is served. The zero value of a number is its default.
type Options struct {
	// Listen has at least one address, host:port. Port 0 is any that is free.
	Listen []string
	// Ready is told the URLs when all of Listen is bound, before anything is
	// answered; it may be nil.
	Ready func(urls []string)
	// InsecureListen allows to listen beyond loopback without TLS or login.
	InsecureListen bool

	CertFile, KeyFile string // PEM; both or none. Read again when they change

	Htpasswd   string   // a file of users, bcrypt alone; empty for none. Read again when it changes
	Tokens     string   // a file of tokens; empty for none. Read again when it changes
	WriteUsers []string // the users of Htpasswd that may write; "*" stands for all
	Writable   bool     // the registry takes writes: somebody has to be allowed to

	MaxRequests int           // that are answered at once
	MaxUploads  int           // of these, bodies of blobs
	MaxBlob     int64         // bytes of a blob
	Wait        time.Duration // for a turn, before a request is told to come again
	Stall       time.Duration // in which a connection has to take or give something
	Grace       time.Duration // for what is on its way when ctx ends

	// API answers what begins with /v1/, to GET and HEAD for whoever may read, else for who
	// may write; nil where there is none, as before a registry.
	API http.Handler

	// Page answers what is not the registry's, with GET and HEAD alone; nil where there is no page.
	Page http.Handler

	// Metrics is what /metrics shows; nil for one of its own.
	Metrics *Metrics
	headers time.Duration // in which they have to come; headerTime

	// Access gets a line for each request, Log what else happens. Both may be nil.
	Access, Log *slog.Logger
}

func (o Options) withDefaults() Options {
	o.MaxRequests = orDefault(o.MaxRequests, DefaultRequests)
	o.MaxUploads = orDefault(o.MaxUploads, DefaultUploads)
	o.MaxBlob = orDefault(o.MaxBlob, DefaultMaxBlob)
	o.Wait = orDefault(o.Wait, defaultWait)
	o.Stall = orDefault(o.Stall, DefaultStall)
	o.Grace = orDefault(o.Grace, DefaultGrace)
	o.headers = orDefault(o.headers, headerTime)
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Access == nil {
		o.Access = slog.New(slog.DiscardHandler)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Serve answers until ctx ends: what begins with /v2/ is registry's. Then it takes no
// more requests, and those on their way have o.Grace to end; what is left is cut off.
// It returns when every handler has returned: nil where ctx ended, else why it could
// not listen or go on. Its faults name what stands in Options.
func Serve(ctx context.Context, registry http.Handler, o Options) error {
	o = o.withDefaults()
	logins, err := newLogins(o)
	if err != nil {
		return err
	}
	cert, err := newCertificate(o)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, o)
	if err != nil {
		return err
	}
	f := &front{
		registry: registry,
		o:        o,
		logins:   logins,
		requests: newTurns(o.MaxRequests),
		uploads:  newTurns(o.MaxUploads),
	}
	return f.serve(ctx, listeners, cert)
}

// front answers requests. It is safe for concurrent use.
type front struct {
	registry http.Handler
	o        Options
	logins   *logins // nil where nobody is asked

	requests, uploads turns
	running           running
	silent            silent
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.running.begin() {
		panic(http.ErrAbortHandler)
	}
	defer f.running.end()
	x := f.exchange(w, r)
	defer x.finish()
	f.answer(x, x.request)
}

// answer goes from one check to the next. Each that fails has answered.
func (f *front) answer(x *exchange, r *http.Request) {
	if x.route == healthRoute {
		health(x, r)
		return
	}
	if !f.sameOrigin(x, r) || !f.allowed(x, r) {
		return
	}
	if x.route == metricsRoute {
		f.o.Metrics.ServeHTTP(x, r)
		return
	}
	release, ok := f.turn(x, r)
	if !ok {
		return
	}
	defer release()
	if !f.bound(x, r) {
		return
	}
	switch {
	case x.route == apiRoute:
		f.o.API.ServeHTTP(x, r)
	case x.route != pageRoute:
		f.registry.ServeHTTP(x, r)
	case f.o.Page == nil:
		http.NotFound(x, r)
	default:
		f.o.Page.ServeHTTP(x, r)
	}
}

// health tells that this process answers. It asks nothing of the remote: whoever is
// here need not have logged in.
func health(w http.ResponseWriter, r *http.Request) {
	if !onlyReads(w, r) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n"))
}

// onlyReads answers a request of any other method, and reports false.
func onlyReads(w http.ResponseWriter, r *http.Request) bool {
	if reads(r.Method) {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	return false
}

// reads reports whether a method changes nothing.
func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }
