package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func post(a *Agent, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, pullPath, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

// TestRefused: what is not allowed, or makes no sense, begins no pull.
func TestRefused(t *testing.T) {
	p := &fakePuller{}
	a := newAgent(t, p, nil)
	const mine = `{"remote":"prod","images":[{"source":"myapp:1","target":"myapp:1"}]`
	many := strings.TrimSuffix(strings.Repeat(`{"source":"myapp:1"},`, maxImages+1), ",")
	for name, c := range map[string]struct {
		body string
		code int
		says string
	}{
		"another remote":           {`{"remote":"s3://mine/images","images":[{"source":"myapp:1"}]}`, 403, "may not pull from the remote"},
		"a remote above":           {`{"remote":"/srv/images/../secret","images":[{"source":"myapp:1"}]}`, 403, "may not pull from the remote"},
		"no remote":                {`{"images":[{"source":"myapp:1"}]}`, 403, "may not pull from the remote"},
		"another image":            {`{"remote":"prod","images":[{"source":"other:1"}]}`, 403, "may not pull the image other:1"},
		"one of several":           {`{"remote":"prod","images":[{"source":"myapp:1"},{"source":"other:1"}]}`, 403, "other:1"},
		"another name here":        {`{"remote":"prod","images":[{"source":"myapp:1","target":"nginx:latest"}]}`, 403, "may not pull the image nginx:latest"},
		"a name here by digest":    {`{"remote":"prod","images":[{"source":"myapp:1","target":"myapp@sha256:` + strings.Repeat("a", 64) + `"}]}`, 400, "no digest"},
		"no image":                 {`{"remote":"prod","images":[]}`, 400, "1 to 100 images"},
		"many images":              {`{"remote":"prod","images":[` + many + `]}`, 400, "1 to 100 images"},
		"no name of an image":      {`{"remote":"prod","images":[{"source":"../../etc"}]}`, 400, "is not an image name"},
		"no ID":                    {`{"remote":"prod","images":[{"source":"myapp:1","id":"x"}]}`, 400, ""},
		"something newer":          {mine + `,"credentials":{"key":"s3cret"}}`, 400, "credentials"},
		"two documents":            {mine + `}{}`, 400, "comes behind it"},
		"no JSON":                  {`remote=prod`, 400, "does not understand"},
		"a large body":             {`{"remote":"` + strings.Repeat("x", maxRequest) + `"}`, 400, "does not understand"},
		"deep":                     {strings.Repeat("[", 20_000), 400, "does not understand"},
		"platform and all of them": {mine + `,"platform":"linux/amd64","allPlatforms":true}`, 400, "and not both"},
		"no platform":              {mine + `,"platform":"a/b/c/d/e"}`, 400, "platform"},
	} {
		t.Run(name, func(t *testing.T) {
			w := post(a, "application/json", c.body)
			var said refusal
			if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Error == nil || w.Code != c.code || !strings.Contains(said.Error.Message, c.says) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		if w := post(a, contentType, mine+"}"); w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %d", contentType, w.Code)
		}
	}
	for path, methods := range map[string][]string{pullPath: {"GET", "PUT", "DELETE"}, statusPath: {"POST"}, "/v1/": {"GET"}, "/v1/pull/": {"POST"}, "/v1/../v1/pull": {"POST"}, "/v1//pull": {"POST"}} {
		for _, method := range methods {
			r := httptest.NewRequest(method, path, strings.NewReader(mine+"}"))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if p.called() != 0 {
		t.Errorf("it pulled %v", p.calls)
	}
	if w := post(a, "application/json; charset=utf-8", mine+"}"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"result"`) {
		t.Errorf("what is allowed: %d %s", w.Code, w.Body)
	}
}

// serve serves an agent, without what stands before it.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	c := NewClient(ClientOptions{Address: s.Listener.Addr().String(), Plain: true})
	t.Cleanup(func() {
		_ = c.Close()
		s.Close()
	})
	return c
}

func request(images ...string) Request {
	q := Request{Remote: "prod"}
	for _, i := range images {
		q.Images = append(q.Images, Image{Source: i, Target: i})
	}
	return q
}

// TestPull: a client is told how it goes and what came of it, and faults keep their kinds.
func TestPull(t *testing.T) {
	p := &fakePuller{}
	c := serve(t, newAgent(t, p, nil))
	var seen progress
	results, err := c.Pull(t.Context(), request("myapp:1", "team/b:2"), &seen)
	if err != nil || len(results) != 2 || results[0].Image != "myapp:1" || results[0].ID != image.DigestOf([]byte("myapp:1")) || results[1].Layers[0].Stored != 50 {
		t.Fatalf("%+v, %v", results, err)
	}
	if got := fmt.Sprint(p.calls); got != "[/srv/images myapp:1 team/b:2]" {
		t.Errorf("it pulled %s", got)
	}
	bars := seen.bars()
	if len(seen.notes) != 1 || len(bars) != 2 || bars[0].name != "0123456789ab" || bars[0].size != 100 || bars[0].bytes != 100 || bars[0].ended != "done" || bars[1].ended != "present" {
		t.Errorf("it was told %v and %+v", seen.notes, bars)
	}

	for _, kind := range []fault.Kind{fault.Other, fault.NotFound, fault.Refused, fault.Damaged, fault.Locked} {
		p.err = fault.New(kind, "no such luck").Advise("try again")
		_, err = c.Pull(t.Context(), request("myapp:1"), &seen)
		if fault.KindOf(err) != kind || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), c.Address()) || fault.AdviceOf(err) != "try again" {
			t.Errorf("%v: %v", kind, err)
		}
	}
	_, err = c.Pull(t.Context(), request("other:1"), &seen)
	if !fault.Is(err, fault.Refused) || !isAbsent(err) {
		t.Errorf("an image that is not allowed: %v", err)
	}
}

func isAbsent(err error) bool { return strings.Contains(fmt.Sprintf("%T", err), "absent") }

// TestPinned: a tag that names another image than the caller has seen is not pulled.
func TestPinned(t *testing.T) {
	p := &fakePuller{names: map[string]image.ID{}}
	c := serve(t, newAgent(t, p, nil))
	q := request("myapp:1")
	q.Images[0].ID = image.DigestOf([]byte("seen")).String()
	if _, err := c.Pull(t.Context(), q, &progress{}); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "by now") {
		t.Errorf("another image: %v", err)
	}
	p.names["myapp:1"] = image.DigestOf([]byte("seen"))
	if _, err := c.Pull(t.Context(), q, &progress{}); err != nil {
		t.Error(err)
	}
}

// TestManyCallers: those that ask for the same wait for one pull; those of one image run
// one after the other, and all together so many at once.
func TestManyCallers(t *testing.T) {
	p := &fakePuller{release: make(chan struct{})}
	a := newAgent(t, p, func(o *Options) { o.MaxWaiting = 100 })
	c := serve(t, a)
	const callers = 20
	errs := make(chan error, 3*callers)
	ask := func(q Request) {
		results, err := c.Pull(t.Context(), q, &progress{})
		if err == nil && len(results) != len(q.Images) {
			err = fmt.Errorf("%d results", len(results))
		}
		errs <- err
	}
	for range callers {
		go ask(request("myapp:1"))
	}
	until(t, "all wait for one", func() bool { s := a.status(); return len(s.Pulls) == 1 && s.Pulls[0].Callers == callers })
	// The same image under another name, and others.
	other := request("myapp:1")
	other.Images[0].Target = "team/mine:1"
	go ask(other)
	go ask(request("team/mine:1"))
	for n := range callers {
		go ask(request(fmt.Sprintf("team/x%d:1", n)))
	}
	until(t, "all are known", func() bool { return len(a.status().Pulls) == callers+3 })
	until(t, "two run", func() bool { return p.called() == 2 })
	running, waiting := a.jobs.numbers()
	if running != 2 || waiting != callers+1 {
		t.Errorf("%d run, %d wait", running, waiting)
	}
	close(p.release)
	for range 2*callers + 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if p.called() != callers+3 || p.most > 2 {
		t.Errorf("%d pulls, %d at once", p.called(), p.most)
	}
	if s := a.status(); len(s.Pulls) != 0 {
		t.Errorf("there are still %+v", s.Pulls)
	}
}

// TestOneImageAtATime: pulls that share an image do not run at once, whatever room there is.
func TestOneImageAtATime(t *testing.T) {
	p := &fakePuller{release: make(chan struct{})}
	a := newAgent(t, p, func(o *Options) { o.MaxPulls = 10 })
	c := serve(t, a)
	done := make(chan error, 3)
	for _, images := range [][]string{{"myapp:1", "team/a:1"}, {"team/a:1", "myapp:1"}, {"team/a:1"}} {
		go func() {
			_, err := c.Pull(t.Context(), request(images...), &progress{})
			done <- err
		}()
	}
	until(t, "all are known", func() bool { return len(a.status().Pulls) == 3 })
	until(t, "one runs", func() bool { return p.called() == 1 })
	go func() {
		for range 3 {
			p.release <- struct{}{}
		}
	}()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if p.most != 1 || p.called() != 3 {
		t.Errorf("%d pulls, %d at once", p.called(), p.most)
	}
}

// TestBusy: who comes when too many wait is told to come again, and comes.
func TestBusy(t *testing.T) {
	p := &fakePuller{release: make(chan struct{})}
	a := newAgent(t, p, func(o *Options) { o.MaxWaiting = 1 })
	c := serve(t, a)
	c.waits = []time.Duration{time.Millisecond, time.Millisecond}
	done := make(chan error, 1)
	go func() {
		_, err := c.Pull(t.Context(), request("myapp:1"), &progress{})
		done <- err
	}()
	until(t, "one runs", func() bool { return p.called() == 1 })
	if _, err := c.Pull(t.Context(), request("myapp:2"), &progress{}); !fault.Is(err, fault.Locked) || !isAbsent(err) {
		t.Errorf("the second: %v", err)
	}
	close(p.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.Pull(t.Context(), request("myapp:2"), &progress{}); err != nil {
		t.Error(err)
	}
}

// TestLeft: a pull that nobody waits for any more ends after a while, and is joined by who comes before.
func TestLeft(t *testing.T) {
	t.Run("ends", func(t *testing.T) {
		p := &fakePuller{release: make(chan struct{})}
		a := newAgent(t, p, func(o *Options) { o.Linger = 10 * time.Millisecond })
		c := serve(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := c.Pull(ctx, request("myapp:1"), &progress{})
			done <- err
		}()
		until(t, "it runs", func() bool { return p.called() == 1 })
		cancel()
		if err := <-done; !fault.Interrupted(err) {
			t.Errorf("the caller got %v", err)
		}
		until(t, "it ends", func() bool { return p.cancelled() == 1 && len(a.status().Pulls) == 0 })
		go close(p.release)
		if _, err := c.Pull(t.Context(), request("myapp:1"), &progress{}); err != nil || p.called() != 2 {
			t.Errorf("the next pull, one of %d: %v", p.called(), err)
		}
	})
	t.Run("is joined", func(t *testing.T) {
		p := &fakePuller{release: make(chan struct{})}
		a := newAgent(t, p, nil)
		c := serve(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() {
			_, err := c.Pull(ctx, request("myapp:1"), &progress{})
			done <- err
		}()
		until(t, "it runs", func() bool { return p.called() == 1 })
		cancel()
		<-done
		until(t, "nobody waits", func() bool { s := a.status(); return len(s.Pulls) == 1 && s.Pulls[0].Callers == 0 })
		go func() {
			_, err := c.Pull(t.Context(), request("myapp:1"), &progress{})
			done <- err
		}()
		until(t, "somebody waits", func() bool { return a.status().Pulls[0].Callers == 1 })
		close(p.release)
		if err := <-done; err != nil || p.called() != 1 || p.cancelled() != 0 {
			t.Errorf("%d pulls, %d ended: %v", p.called(), p.cancelled(), err)
		}
	})
}

// TestBrokenConnection: a client comes back to a pull, also when the agent was started
// anew, and what it has shown it does not show again.
func TestBrokenConnection(t *testing.T) {
	p := &fakePuller{release: make(chan struct{})}
	first := newAgent(t, p, nil)
	first.alive = time.Millisecond
	second := newAgent(t, p, nil)
	var now http.Handler = first
	cut := 0
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cut++; cut <= 3 { // twice the network, then the agent itself
			ctx, cancel := context.WithCancel(r.Context())
			defer panic(http.ErrAbortHandler)
			now.ServeHTTP(&cutting{w, func() {
				if p.called() > 0 {
					cancel()
				}
			}}, r.WithContext(ctx))
			if cut == 3 {
				first.Close()
				now = second
				close(p.release)
			}
			return
		}
		now.ServeHTTP(w, r)
	}))
	c.waits = []time.Duration{time.Millisecond, time.Millisecond}
	var seen progress
	results, err := c.Pull(t.Context(), request("myapp:1"), &seen)
	if err != nil || len(results) != 1 || p.called() != 2 {
		t.Fatalf("%v, %v after %d pulls", results, err, p.called())
	}
	bars := seen.bars()
	if len(bars) != 2 || bars[0].bytes != 100 || bars[0].ended != "done" || len(seen.notes) != 1 {
		t.Errorf("it was told %v and %+v", seen.notes, bars)
	}
}

// cutting calls cut whenever something is on its way to the client.
type cutting struct {
	http.ResponseWriter
	cut func()
}

// FlushError is for http.ResponseController.
func (c *cutting) FlushError() error {
	defer c.cut()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// TestStrangers: whatever answers, a client ends, and takes no memory.
func TestStrangers(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"no JSON":     func(w http.ResponseWriter) { fmt.Fprintln(w, "<html>") },
		"nothing":     func(http.ResponseWriter) {},
		"no end":      func(w http.ResponseWriter) { fmt.Fprintln(w, `{"status":"x"}`) },
		"a long line": func(w http.ResponseWriter) { _, _ = io.Copy(w, io.LimitReader(endless{}, maxLine+1)) },
		"moved": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/v1/pull")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"wrong numbers": func(w http.ResponseWriter) {
			fmt.Fprintln(w, `{"layer":{"n":-1}}`)
			fmt.Fprintln(w, `{"layer":{"n":1000000000,"bytes":-5}}`)
			fmt.Fprintln(w, `{"result":{"images":null,"error":{"kind":"nonsense","message":"m"}}}`)
		},
		"many layers": func(w http.ResponseWriter) {
			for n := range 3 * maxLayers {
				fmt.Fprintf(w, `{"layer":{"n":%d,"name":"a","bytes":1}}`+"\n", n)
			}
			fmt.Fprintln(w, `{"result":{"error":{"kind":"other","message":"m"}}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked++; asked > 3 {
					w.WriteHeader(http.StatusTeapot) // what heard something comes again
					return
				}
				answer(w)
			}))
			c.waits = []time.Duration{time.Millisecond}
			var seen progress
			if _, err := c.Pull(t.Context(), request("myapp:1"), &seen); err == nil || fault.Interrupted(err) {
				t.Errorf("it took that: %v", err)
			}
			if n := len(seen.bars()); n > maxLayers {
				t.Errorf("%d layers", n)
			}
			if _, err := c.Status(t.Context()); err == nil {
				t.Error("it took that as a status")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestSilence: a connection on which nothing comes is given up.
func TestSilence(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, `{"status":"x"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	c.waits, c.silence = nil, 100*time.Millisecond
	if _, err := c.Pull(t.Context(), request("myapp:1"), &progress{}); err == nil || fault.Interrupted(err) || !strings.Contains(err.Error(), errSilent.Error()) {
		t.Errorf("%v", err)
	}
}

// TestAlive: where nothing happens, something is told all the same.
func TestAlive(t *testing.T) {
	p := &fakePuller{release: make(chan struct{})}
	a := newAgent(t, p, nil)
	a.alive = time.Millisecond
	r := httptest.NewRequest(http.MethodPost, pullPath, strings.NewReader(`{"remote":"prod","images":[{"source":"myapp:1"}]}`))
	r.Header.Set("Content-Type", "application/json")
	w := &lockedRecorder{ResponseRecorder: httptest.NewRecorder()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ServeHTTP(w, r)
	}()
	until(t, "it says that it is alive", func() bool { return strings.Contains(w.said(), `{"alive":true}`) })
	close(p.release)
	<-done
}

// lockedRecorder may be looked at while it is written.
type lockedRecorder struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (w *lockedRecorder) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ResponseRecorder.Write(p)
}

func (w *lockedRecorder) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Body.String()
}
