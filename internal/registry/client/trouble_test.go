package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// nth returns a rule that breaks the requests of a method to paths with that text,
// those with these numbers from 1 on.
func nth(method, text string, f registrytest.Fault, numbers ...int) func(*http.Request) registrytest.Fault {
	var mu sync.Mutex
	seen := 0
	return func(req *http.Request) registrytest.Fault {
		if req.Method != method || !strings.Contains(req.URL.Path, text) {
			return registrytest.Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		for _, n := range numbers {
			if n == seen {
				return f
			}
		}
		return registrytest.Fault{}
	}
}

// TestTrouble: what may pass is passed over, in every request that a push and a pull
// make.
func TestTrouble(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, s)
	busy := registrytest.Fault{Status: http.StatusServiceUnavailable}
	slow := registrytest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3"}}}
	lost, cut := registrytest.Fault{Lost: true}, registrytest.Fault{CutResponse: 100_000}
	number := 0
	for name, test := range map[string]struct {
		push, pull func(*http.Request) registrytest.Fault
	}{
		"begin busy":           {push: nth(http.MethodPost, "/uploads/", busy, 1, 2)},
		"begin, answer lost":   {push: nth(http.MethodPost, "/uploads/", lost, 1)},
		"chunk busy":           {push: nth(http.MethodPatch, "/uploads/", busy, 1, 2, 5)},
		"chunk, too many":      {push: nth(http.MethodPatch, "/uploads/", slow, 2)},
		"chunk, answer lost":   {push: nth(http.MethodPatch, "/uploads/", lost, 1, 3)},
		"chunk cut":            {push: nth(http.MethodPatch, "/uploads/", registrytest.Fault{CutRequest: 300_000}, 1, 3)},
		"commit busy":          {push: nth(http.MethodPut, "/uploads/", busy, 1, 2)},
		"commit, answer lost":  {push: nth(http.MethodPut, "/uploads/", lost, 1, 2, 3)},
		"tag busy":             {push: nth(http.MethodPut, "/manifests/", busy, 1)},
		"tag, answer lost":     {push: nth(http.MethodPut, "/manifests/", lost, 1)},
		"looks busy":           {push: nth(http.MethodHead, "/", slow, 1, 2, 4, 7), pull: nth(http.MethodHead, "/", slow, 1, 2)},
		"blobs cut":            {pull: nth(http.MethodGet, "/blobs/", cut, 2, 3, 4, 5)},
		"blobs cut, no ranges": {pull: cutWithoutRanges()},
		"blobs busy":           {pull: nth(http.MethodGet, "/blobs/", busy, 1, 2, 4)},
		"documents cut":        {pull: nth(http.MethodGet, "/manifests/", registrytest.Fault{CutResponse: 100}, 1, 2)},
	} {
		number++
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var waited []time.Duration
			change := func(o *client.Options) {
				o.Chunk, o.Compression = 1<<20, client.None
				o.Wait = func(ctx context.Context, d time.Duration) error {
					mu.Lock()
					defer mu.Unlock()
					waited = append(waited, d)
					return ctx.Err()
				}
			}
			img := image2(t, name)
			ref := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "") + ":1"
			proxy.Rule(test.push)
			push(t, open(t, proxy.Host, change), ref, img)
			proxy.Rule(test.pull)
			holds(t, open(t, proxy.Host, change), ref, img)
			mu.Lock()
			defer mu.Unlock()
			if len(waited) == 0 {
				t.Error("nothing was broken")
			}
			if strings.Contains(name, "too many") && waited[0] != 3*time.Second {
				t.Errorf("Retry-After says 3 s, and it waits %s", waited)
			}
		})
	}
	if n := s.Uploads(t); n > 2 { // of those whose begin was lost nobody knows
		t.Errorf("%d uploads were left open", n)
	}
}

// cutWithoutRanges is a registry that breaks off, and sends all of a blob whatever
// part was asked for.
func cutWithoutRanges() func(*http.Request) registrytest.Fault {
	inner := nth(http.MethodGet, "/blobs/", registrytest.Fault{CutResponse: 100_000}, 2, 3)
	return func(req *http.Request) registrytest.Fault {
		req.Header.Del("Range")
		return inner(req)
	}
}

// TestLasting: what does not pass is told, at once or after some tries, as what it is.
func TestLasting(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	img := image2(t, "app")
	push(t, open(t, s.Host, nil), "app:1", img)
	proxy := registrytest.NewProxy(t, s)
	always := func(method, text string, f registrytest.Fault) func(*http.Request) registrytest.Fault {
		return func(req *http.Request) registrytest.Fault {
			if req.Method == method && strings.Contains(req.URL.Path, text) {
				return f
			}
			return registrytest.Fault{}
		}
	}
	pull := func(r *client.Registry) error {
		_, err := remotetest.Pull(t.Context(), r.In("app"), remotetest.Ref(t, "app:1"))
		return err
	}
	pushed := func(r *client.Registry) error {
		_, err := remotetest.Push(t.Context(), r.In("app"), remotetest.Ref(t, "app:2"), image2(t, "other"))
		return err
	}
	for name, test := range map[string]struct {
		rule   func(*http.Request) registrytest.Fault
		run    func(*client.Registry) error
		kind   fault.Kind
		says   string
		at     string // of the requests; how many
		number int
	}{
		"forbidden":  {always(http.MethodHead, "/manifests/", registrytest.Fault{Status: 403}), pull, fault.Refused, "docker login", "HEAD", 1},
		"down":       {always(http.MethodHead, "/manifests/", registrytest.Fault{Status: 503}), pull, fault.Other, "503", "HEAD", 6},
		"too many":   {always(http.MethodHead, "/manifests/", registrytest.Fault{Status: 429}), pull, fault.Other, "too many requests", "HEAD", 6},
		"for hours":  {always(http.MethodHead, "/manifests/", registrytest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}}), pull, fault.Other, "too many requests", "HEAD", 1},
		"no blob":    {always(http.MethodGet, "/blobs/", registrytest.Fault{Status: 404}), pull, fault.Damaged, "missing", "", 0},
		"no push":    {always(http.MethodPost, "/uploads/", registrytest.Fault{Status: 403, Body: `{"errors":[{"code":"DENIED","message":"not yours"}]}`}), pushed, fault.Refused, "not yours", "POST", 1},
		"no name":    {always(http.MethodPost, "/uploads/", registrytest.Fault{Status: 404, Body: `{"errors":[{"code":"NAME_UNKNOWN"}]}`}), pushed, fault.NotFound, "made before the first push", "POST", 1},
		"cut always": {always(http.MethodGet, "/blobs/", registrytest.Fault{CutResponse: 1}), pull, fault.Other, "cannot read", "", 0},
		"upload lost": {func(req *http.Request) registrytest.Fault {
			if strings.Contains(req.URL.Path, "/uploads/") && req.Method != http.MethodPost && req.Method != http.MethodDelete {
				return registrytest.Fault{Status: http.StatusNotFound}
			}
			return registrytest.Fault{}
		}, pushed, fault.NotFound, "cannot store", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, proxy.Host, func(o *client.Options) { o.Chunk = 1 << 20 })
			proxy.Rule(test.rule)
			err := test.run(r)
			if text := errorText(err) + fault.AdviceOf(err); !fault.Is(err, test.kind) || !strings.Contains(text, test.says) {
				t.Errorf("%v, advice %q, want a %s fault that says %q", err, fault.AdviceOf(err), test.kind, test.says)
			}
			if test.at != "" {
				if n := len(proxy.Requests(test.at)); n != test.number {
					t.Errorf("%d requests %s, want %d", n, test.at, test.number)
				}
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestStall: a download on which nothing comes is broken off, and goes on.
func TestStall(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	img := image2(t, "app")
	push(t, open(t, s.Host, func(o *client.Options) { o.Compression = client.None }), "app:1", img)
	proxy := registrytest.NewProxy(t, s)
	r := open(t, proxy.Host, func(o *client.Options) { o.Stall = time.Second })
	layers, err := remote.Layers(t.Context(), r.In("app"), img.DiffIDs())
	if err != nil {
		t.Fatal(err)
	}
	proxy.Rule(nth(http.MethodGet, "/blobs/", registrytest.Fault{StallResponse: 100_000}, 1))
	got, err := remotetest.Read(t.Context(), r.In("app"), layers[1])
	if err != nil || len(got) != len(img.Layers[1]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Rule(func(*http.Request) registrytest.Fault { cancel(); return registrytest.Fault{} })
	if _, err := remotetest.Read(ctx, r.In("app"), layers[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestWhole: a registry that takes no chunks gets each blob in one request.
func TestWhole(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, s)
	proxy.Rule(func(req *http.Request) registrytest.Fault {
		if req.Method == http.MethodPatch && req.Header.Get("Content-Range") != "" {
			return registrytest.Fault{Status: http.StatusRequestedRangeNotSatisfiable}
		}
		return registrytest.Fault{}
	})
	img := image2(t, "app")
	small := func(o *client.Options) { o.Chunk = 1 << 20 }
	if _, err := remotetest.Push(t.Context(), open(t, proxy.Host, small).In("app"), remotetest.Ref(t, "app:1"), img); err == nil {
		t.Fatal("the registry takes chunks")
	}
	r := open(t, proxy.Host+"?chunks=false", small)
	push(t, r, "app:1", img)
	holds(t, open(t, s.Host, nil), "app:1", img)
	if n := len(proxy.Requests(http.MethodPatch)); n < 1 {
		t.Errorf("%d requests with a stream", n)
	}
	// A body that fails, and a connection that does, publish nothing.
	other := image2(t, "other")
	broken := errors.New("broken")
	layer := image.Descriptor{Digest: other.DiffIDs()[1], Size: int64(len(other.Layers[1]))}
	body := io.MultiReader(bytes.NewReader(other.Layers[1][:2<<20]), iotest.ErrReader(broken))
	if _, err := r.In("app").PutLayer(t.Context(), layer, body); !errors.Is(err, broken) {
		t.Errorf("%v, want the body's error", err)
	}
	proxy.Rule(nth(http.MethodPatch, "/uploads/", registrytest.Fault{CutRequest: 1_500_000}, 1))
	if _, err := r.In("app").PutLayer(t.Context(), layer, bytes.NewReader(other.Layers[1])); err == nil {
		t.Error("a connection that breaks is no error")
	}
	if missing, _, err := r.In("app").Missing(t.Context(), other.Closure()); err != nil || len(missing.Layers) != 2 {
		t.Errorf("missing %v, %v", missing, err)
	}
	push(t, r, "app:2", other)
	holds(t, r, "app:2", other)
}

// TestVanishes: a blob that goes away before the tag is written is told, and sent again.
func TestVanishes(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	img := image2(t, "app")
	proxy := registrytest.NewProxy(t, s)
	r := open(t, proxy.Host, func(o *client.Options) { o.Compression = client.None })
	var once sync.Once
	proxy.Rule(func(req *http.Request) registrytest.Fault {
		if req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/manifests/1") {
			once.Do(func() { s.Forget(t, "app", img.DiffIDs()[0]) }) // after the looks
		}
		return registrytest.Fault{}
	})
	if err := remotetest.Put(t.Context(), r.In("app"), img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	err := r.In("app").Tag(t.Context(), remotetest.Ref(t, "app:1"), img.ID)
	var lost *remote.IncompleteError
	if !errors.As(err, &lost) || len(lost.Missing.Layers) != 1 || lost.Missing.Layers[0] != img.DiffIDs()[0] {
		t.Fatalf("%v, want an IncompleteError of the first layer", err)
	}
	push(t, r, "app:1", img)
	holds(t, r, "app:1", img)
}
