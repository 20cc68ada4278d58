package agent

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what is to happen at once.
const patience = time.Minute

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

// fakePuller pulls nothing, and says that it did when it is let go.
type fakePuller struct {
	mu    sync.Mutex
	calls []string // url and images
	at    int      // running
	most  int      // that ran at once
	ended int      // by their contexts

	names   map[string]image.ID // what sources name; the digest of the name where it is not here
	err     error
	release chan struct{} // nil lets all go; fixed
}

func (p *fakePuller) pull(ctx context.Context, url string, images []transfer.PullImage, o transfer.Options) ([]transfer.Result, error) {
	call := url
	for _, i := range images {
		call += " " + i.Source.String()
		if i.Target != i.Source {
			call += "=" + i.Target.String()
		}
	}
	p.mu.Lock()
	p.calls = append(p.calls, call)
	p.at++
	p.most = max(p.most, p.at)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.at--
		p.mu.Unlock()
	}()
	o.Progress.Status("reading " + url)
	o.Progress.Note("a note")
	bar := o.Progress.Layer("0123456789ab", 100)
	bar.Add(40)
	o.Progress.Layer("present", 7).Present()
	if p.release != nil {
		select {
		case <-p.release:
		case <-ctx.Done():
			bar.Fail()
			p.mu.Lock()
			p.ended++
			p.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	var results []transfer.Result
	for _, i := range images {
		id := p.named(i.Source)
		if _, err := o.Verify(ctx, i.Source, id); err != nil {
			return results, err
		}
		results = append(results, transfer.Result{Image: i.Target.String(), ID: id, Layers: []transfer.LayerResult{{Digest: id, Size: 100, Stored: 50, Moved: true}}})
	}
	if err := p.failing(); err != nil {
		return nil, err
	}
	bar.Add(60)
	bar.Done()
	return results, nil
}

func (p *fakePuller) named(ref image.Reference) image.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.names[ref.String()]; ok {
		return id
	}
	return image.DigestOf([]byte(ref.String()))
}

func (p *fakePuller) failing() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *fakePuller) called() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

func (p *fakePuller) cancelled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// newAgent returns one that allows /srv/images as prod, and all images below team and of myapp.
func newAgent(t *testing.T, p *fakePuller, change func(*Options)) *Agent {
	t.Helper()
	o := Options{
		Version: "1.2.3", Pull: p.pull, MaxPulls: 2, MaxWaiting: 10, Linger: patience, Log: slog.New(slog.DiscardHandler),
		Allowed: Allowed{Canonical: canonical, Remotes: []Remote{{"prod", "/srv/images"}}, Images: []Pattern{{repository: "team/*"}, {repository: "myapp"}}},
	}
	if change != nil {
		change(&o)
	}
	a := New(o)
	t.Cleanup(a.Close)
	return a
}

// progress keeps what it is told.
type progress struct {
	mu     sync.Mutex
	notes  []string
	layers []*progressBar
}

type progressBar struct {
	p     *progress
	name  string
	size  int64
	bytes int
	ended string
}

func (p *progress) Status(string) {}

func (p *progress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes = append(p.notes, text)
}

func (p *progress) Layer(name string, size int64) transfer.Bar {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &progressBar{p: p, name: name, size: size}
	p.layers = append(p.layers, b)
	return b
}

func (p *progress) bars() []progressBar {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []progressBar
	for _, b := range p.layers {
		all = append(all, progressBar{name: b.name, size: b.size, bytes: b.bytes, ended: b.ended})
	}
	return all
}

func (b *progressBar) Add(n int) { b.set(func() { b.bytes += n }) }
func (b *progressBar) Present()  { b.end("present") }
func (b *progressBar) Done()     { b.end("done") }
func (b *progressBar) Fail()     { b.end("failed") }

func (b *progressBar) end(how string) {
	b.set(func() {
		if b.ended == "" {
			b.ended = how
		}
	})
}

func (b *progressBar) set(f func()) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	f()
}
