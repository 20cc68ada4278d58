package fleet

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/transfer"
)

var twelve = flag.Bool("twelve", false, "test with twelve engines and a real image: minutes, and some 8 GB of disk")

// asked is a remote that counts the bytes of layers that are read.
type asked struct {
	*repo.Repo
	bytes atomic.Int64
}

func (a *asked) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	r, err := a.Repo.Open(ctx, layer)
	return counted{r, a}, err
}

type counted struct {
	io.ReadCloser
	a *asked
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.a.bytes.Add(int64(n))
	return n, err
}

// startEngines starts so many engines, of the kinds that the machine has in turn. They
// end with the test.
func startEngines(t *testing.T, options ...enginetest.Options) []*enginetest.Engine {
	t.Helper()
	var kinds []enginetest.Options
	for _, k := range enginetest.Kinds() {
		if !k.Podman {
			kinds = append(kinds, k.Options)
		}
	}
	engines := make([]*enginetest.Engine, len(options))
	var g errgroup.Group
	g.SetLimit(3)
	for i, o := range options {
		kind := kinds[len(kinds)-1-i%len(kinds)] // the newest first
		o.Bin, o.ContainerdStore = kind.Bin, kind.ContainerdStore
		g.Go(func() (err error) {
			engines[i], err = enginetest.Start(context.Background(), o)
			return err
		})
	}
	err := g.Wait()
	t.Cleanup(func() {
		var stopping sync.WaitGroup
		for _, e := range engines {
			if e != nil {
				stopping.Go(func() {
					if err := e.Stop(); err != nil {
						t.Error(err)
					}
				})
			}
		}
		stopping.Wait()
	})
	if err != nil {
		t.Fatal(err)
	}
	return engines
}

func connect(t *testing.T, url string) func(context.Context) (Engine, error) {
	return func(ctx context.Context) (Engine, error) {
		c, err := engine.Connect(ctx, engine.Options{URL: url, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// gate is the way to an engine that lets some bytes pass, and the rest when it is opened.
type gate struct {
	url    string
	passed atomic.Int64
	most   int64
	open   chan struct{}
	shut   chan struct{} // closed at the end of the test
}

func newGate(t *testing.T, to string, most int64) *gate {
	t.Helper()
	dir, err := os.MkdirTemp("", "g")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{url: "unix://" + dir + "/s", most: most, open: make(chan struct{}), shut: make(chan struct{})}
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		close(g.shut)
		_ = l.Close()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	serving.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { g.serve(in, strings.TrimPrefix(to, "unix://")) })
		}
	})
	return g
}

func (g *gate) serve(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("unix", to)
	if err != nil {
		return
	}
	defer out.Close()
	stop := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		select {
		case <-g.shut:
			_ = in.Close()
			_ = out.Close()
		case <-stop:
		}
	})
	defer both.Wait()
	defer close(stop)
	both.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})
	b := make([]byte, 256<<10)
	for {
		n, err := in.Read(b)
		if g.passed.Add(int64(n)) > g.most {
			select {
			case <-g.open:
			case <-g.shut:
				return
			}
		}
		if _, failed := out.Write(b[:n]); failed != nil || err != nil {
			_ = out.Close()
			return
		}
	}
}

// watched is a Progress that calls do once so much has moved, and done at the end.
type watched struct {
	transfer.NoProgress
	at    int64
	do    func()
	done  func()
	moved atomic.Int64
	once  sync.Once
}

func (w *watched) Expect(int64) {}

func (w *watched) End(error) {
	if w.done != nil {
		w.done()
	}
}

func (w *watched) Layer(string, int64) transfer.Bar { return w }

func (w *watched) Add(n int) {
	if w.moved.Add(int64(n)) >= w.at && w.do != nil {
		w.once.Do(w.do)
	}
}

func (*watched) Present() {}
func (*watched) Done()    {}
func (*watched) Fail()    {}

// push brings an image out of an engine into a remote, and takes it away there.
func push(t *testing.T, e *enginetest.Engine, name string) *asked {
	t.Helper()
	s, err := file.Create(filepath.Join(t.TempDir(), "remote"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	to, err := repo.Open(t.Context(), s, repo.Options{Name: "remote", Codec: codec.LZ4})
	if err != nil {
		t.Fatal(err)
	}
	from, err := connect(t, e.Host)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ref, err := image.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Push(t.Context(), from.(*engine.Client), to, []transfer.PushImage{{Source: name, Target: ref}}, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if out, err := e.Docker(t.Context(), nil, "rmi", name); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &asked{Repo: to}
}

// trouble is a pull onto many engines of which one is slow, one dies and one may be full.
type trouble struct {
	engines           []*enginetest.Engine
	slow, dying, full int // which; -1 is none
	from              *asked
	name              string
	size              int64 // of the image, about
	patience          time.Duration
}

func (x *trouble) run(t *testing.T) []Outcome {
	t.Helper()
	ref, err := image.ParseReference(x.name)
	if err != nil {
		t.Fatal(err)
	}
	way := newGate(t, x.engines[x.slow].Host, x.size/10)
	var hosts []Host
	quick := map[string]bool{}
	for i, e := range x.engines {
		name, url := fmt.Sprintf("engine-%d", i), e.Host
		if i == x.slow {
			url = way.url
		} else {
			quick[name] = true
		}
		hosts = append(hosts, NewEngine(name, connect(t, url)))
	}
	defer func() {
		for _, h := range hosts {
			_ = h.Close()
		}
	}()
	var left atomic.Int32
	left.Store(int32(len(quick)))
	var killing sync.WaitGroup
	defer killing.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	outcomes, err := Pull(ctx, hosts, Job{Images: []transfer.PullImage{{Source: ref, Target: ref}}, Source: x.from}, Options{
		patience: x.patience, CheckTime: 5 * time.Minute,
		Progress: func(host string) Progress {
			w := &watched{}
			if quick[host] {
				w.done = func() { // the slow one goes on when all others are done: they do not wait for it
					if left.Add(-1) == 0 {
						close(way.open)
					}
				}
			}
			if host == fmt.Sprintf("engine-%d", x.dying) {
				w.at, w.do = x.size/3, func() { killing.Go(x.engines[x.dying].Kill) }
			}
			return w
		},
	})
	if fault.KindOf(err) != fault.Partial {
		t.Errorf("error %v", err)
	}
	for i, out := range outcomes {
		t.Logf("%s: %s in %s, %d bytes for itself, %v", out.Host, out.Status, out.Took.Round(time.Millisecond), out.Alone, out.Err)
		switch {
		case i == x.dying:
			if out.Status != Failed || out.Err == nil || strings.Count(out.Err.Error(), x.engines[i].Host) != 1 {
				t.Errorf("the one that died: %+v: %v", out, out.Err)
			}
			continue
		case i == x.full:
			if out.Status != Failed || !strings.Contains(out.Err.Error(), "no space left") {
				t.Errorf("the full one: %+v", out)
			}
			continue
		case out.Status != Done || len(out.Images) != 1:
			t.Errorf("%+v", out)
			continue
		}
		id, ok, err := x.engines[i].ImageID(t.Context(), x.name)
		if !ok || err != nil || !strings.Contains(id, out.Images[0].ID.Hex()) {
			t.Errorf("%s has %s, %v, want %s", out.Host, id, err, out.Images[0].ID)
		}
		if i == x.slow && out.Alone == 0 {
			t.Errorf("%s was not let go", out.Host)
		}
	}
	return outcomes
}

// TestRealEngines: one is slow, one dies in mid-load, and the third has all.
func TestRealEngines(t *testing.T) {
	if os.Getuid() != 0 || testing.Short() {
		t.Skip("private engines need root and seconds")
	}
	engines := startEngines(t, make([]enginetest.Options, 3)...)
	m := enginetest.NewImage().Tag("fleet/real:1")
	for range 3 {
		b := make([]byte, 36<<20)
		_, _ = rand.Read(b)
		m.Layer(enginetest.File("f", 0o644, string(b)))
	}
	if err := engines[0].LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	from := push(t, engines[0], "fleet/real:1")
	x := &trouble{engines: engines, slow: 1, dying: 2, full: -1, from: from, name: "fleet/real:1", size: 108 << 20, patience: 5 * time.Second}
	x.run(t)
	t.Logf("%d bytes were read", from.bytes.Load())
}

// TestTwelveEngines: a real image, twelve engines at once, one slow, one full, one that dies.
func TestTwelveEngines(t *testing.T) {
	if !*twelve {
		t.Skip("minutes: make fleet")
	}
	small, err := os.MkdirTemp("", "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(small) })
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	options := make([]enginetest.Options, 12)
	options[7].Parent = small
	engines := startEngines(t, options...)
	name, err := engines[0].Load(t.Context(), enginetest.Apt)
	if err != nil {
		t.Fatal(err)
	}
	x := &trouble{engines: engines, slow: 3, dying: 5, full: 7, from: push(t, engines[0], name), name: name, size: 450 << 20}
	x.run(t)
	t.Logf("%d bytes were read, of the image's %d", x.from.bytes.Load(), x.size)
}
