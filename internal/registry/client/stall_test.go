package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// pipes is a network of one server, in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{} // the test is over
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// half answers with the first half of a body, and then nothing any more.
func (p *pipes) half(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	<-p.done
}

// stalling runs test, in time that passes as fast as everybody waits, with a registry
// of which answer gives the answers.
func stalling(t *testing.T, answer func(p *pipes, w http.ResponseWriter, req *http.Request), test func(t *testing.T, r *client.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { answer(p, w, req) })}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(p) })
		r := open(t, "registry.test:5000?plain-http=true", func(o *client.Options) { o.Dial, o.Wait, o.Chunk = p.dial, nil, 1<<20 })
		test(t, r)
		r.Close()
		close(p.done)
		server.Close()
		serving.Wait()
		time.Sleep(time.Minute) // the server's connections linger
	})
}

// TestStalls: a registry that stops in the middle of anything is waited for no longer
// than it says, and asked again where that may help.
func TestStalls(t *testing.T) {
	doc := image2(t, "app").Config
	id := image.DigestOf(doc)
	blob := bytes.Repeat([]byte("layer "), 700_000)
	soon := func(t *testing.T, begin time.Time) {
		t.Helper()
		if took := time.Since(begin); took > 10*time.Minute {
			t.Errorf("it took %s", took)
		}
	}

	t.Run("document", func(t *testing.T) {
		var asked atomic.Int32
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			if asked.Add(1) < 3 {
				p.half(w, http.StatusOK, doc)
				return
			}
			_, _ = w.Write(doc)
		}, func(t *testing.T, r *client.Registry) {
			begin := time.Now()
			if got, err := r.In("app").Document(t.Context(), id); err != nil || !bytes.Equal(got, doc) {
				t.Errorf("%q, %v", got, err)
			}
			soon(t, begin)
		})
	})
	t.Run("error", func(t *testing.T) {
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			p.half(w, http.StatusForbidden, []byte(`{"errors":[{"code":"DENIED","message":"no"}]}`))
		}, func(t *testing.T, r *client.Registry) {
			begin := time.Now()
			if _, err := r.In("app").Document(t.Context(), id); !fault.Is(err, fault.Refused) {
				t.Errorf("%v", err)
			}
			soon(t, begin)
		})
	})
	t.Run("tags", func(t *testing.T) {
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			p.half(w, http.StatusOK, []byte(`{"name":"app","tags":["1"]}`))
		}, func(t *testing.T, r *client.Registry) {
			begin := time.Now()
			for tag, err := range r.References(t.Context(), "app") {
				if err == nil || !strings.Contains(err.Error(), "nothing has moved") {
					t.Errorf("%v, %v", tag, err)
				}
			}
			soon(t, begin)
		})
	})
	t.Run("token", func(t *testing.T) {
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				p.half(w, http.StatusOK, []byte(`{"token":"some"}`))
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.test:5000/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, func(t *testing.T, r *client.Registry) {
			begin := time.Now()
			if _, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:1")); err == nil || !strings.Contains(err.Error(), "nothing has moved") {
				t.Errorf("%v", err)
			}
			soon(t, begin)
		})
	})
	t.Run("upload", func(t *testing.T) {
		var mu sync.Mutex
		var got bytes.Buffer
		var patches atomic.Int32
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Location", "/v2/app/blobs/uploads/1")
			mu.Lock()
			have := got.Len()
			mu.Unlock()
			switch req.Method {
			case http.MethodPost:
				p.begin(w) // the answer is complete, and its body is not
			case http.MethodPatch:
				if patches.Add(1) == 2 {
					<-p.done // it reads nothing
					return
				}
				b, _ := io.ReadAll(req.Body)
				mu.Lock()
				got.Write(b)
				mu.Unlock()
				w.WriteHeader(http.StatusAccepted)
			case http.MethodGet:
				w.Header().Set("Range", fmt.Sprintf("0-%d", have-1))
				w.WriteHeader(http.StatusNoContent)
			default:
				w.WriteHeader(http.StatusCreated)
			}
		}, func(t *testing.T, r *client.Registry) {
			begin := time.Now()
			layer := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: image.DigestOf(blob), Size: int64(len(blob))}
			if _, err := r.In("app").PutLayer(t.Context(), layer, bytes.NewReader(blob)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !bytes.Equal(got.Bytes(), blob) {
				t.Errorf("%d bytes came, want %d", got.Len(), len(blob))
			}
			soon(t, begin)
		})
	})
	// None of these is a stall.
	t.Run("slow to answer", func(t *testing.T) {
		var asked atomic.Int32
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			asked.Add(1)
			time.Sleep(4 * time.Minute)
			_, _ = w.Write(doc)
		}, func(t *testing.T, r *client.Registry) {
			if _, err := r.In("app").Document(t.Context(), id); err != nil || asked.Load() != 1 {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
		})
	})
	t.Run("slow reader", func(t *testing.T) {
		var asked atomic.Int32
		stalling(t, func(p *pipes, w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet {
				asked.Add(1)
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
			_, _ = w.Write(blob)
		}, func(t *testing.T, r *client.Registry) {
			b, err := r.In("app").Open(t.Context(), remote.Layer{Digest: image.DigestOf(blob), Size: int64(len(blob))})
			if err != nil {
				t.Fatal(err)
			}
			some := make([]byte, 1<<20)
			for err == nil {
				_, err = io.ReadFull(b, some)
				time.Sleep(time.Hour)
			}
			if err != io.ErrUnexpectedEOF && err != io.EOF || asked.Load() != 1 {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
			b.Close()
		})
	})
}

// begin accepts an upload with a body that does not end.
func (p *pipes) begin(w http.ResponseWriter) { p.half(w, http.StatusAccepted, []byte("some text")) }
