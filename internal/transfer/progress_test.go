package transfer

import (
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// recorder is a Progress that remembers.
type recorder struct {
	mu     sync.Mutex
	status string
	notes  []string
	bars   []*recorded
}

type recorded struct {
	r              *recorder
	name           string
	size           int64
	added          int64
	present, done  int
	failed, behind int // behind: calls of Add after the end
}

func (r *recorder) Status(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = text
}

func (r *recorder) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, text)
}

func (r *recorder) Layer(name string, size int64) Bar {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &recorded{r: r, name: name, size: size}
	r.bars = append(r.bars, b)
	return b
}

func (b *recorded) count(n *int) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	*n++
}

func (b *recorded) Present() { b.count(&b.present) }
func (b *recorded) Done()    { b.count(&b.done) }
func (b *recorded) Fail()    { b.count(&b.failed) }

func (b *recorded) Add(n int) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.added += int64(n)
	if b.present+b.done+b.failed > 0 {
		b.behind++
	}
}

// check fails the test unless every bar ended once, each that is done had all its bytes, and no status was left standing.
func (r *recorder) check(t testing.TB, present, done int) {
	t.Helper()
	if r.status != "" {
		t.Errorf("still says %q", r.status)
	}
	for _, b := range r.bars {
		present -= b.present
		done -= b.done
		if b.present+b.done+b.failed != 1 || b.behind > 0 || b.done == 1 && b.added != b.size {
			t.Errorf("bar %+v", *b)
		}
	}
	if present != 0 || done != 0 {
		t.Errorf("%d bars more should be present, %d more done", present, done)
	}
}

// checkRepeated is check for a pull that sent all layers in a second try.
func (r *recorder) checkRepeated(t testing.TB) {
	t.Helper()
	if r.status != "" {
		t.Errorf("still says %q", r.status)
	}
	for _, b := range r.bars {
		if b.present+b.done+b.failed != 1 {
			t.Errorf("bar %+v", *b)
		}
	}
}

func TestProgress(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "b", "c", "d")
	client := newClassic(one, two).connect(t)
	r := remoteIn(t, t.TempDir())
	mustPush(t, client, r, "much:1")
	var pushing, pulling, again recorder
	if _, err := Push(t.Context(), client, r, pushes(t, "much:2"), Options{Progress: &pushing}); err != nil {
		t.Fatal(err)
	}
	pushing.check(t, 2, 2)
	e := newClassic(one)
	for _, p := range []struct {
		r             *recorder
		present, done int
	}{{&pulling, 2, 2}, {&again, 4, 0}} {
		if _, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:2"), Options{Progress: p.r}); err != nil {
			t.Fatal(err)
		}
		p.r.check(t, p.present, p.done)
	}
}

func TestProgressOfFailures(t *testing.T) {
	m := layered("1", "a", "b", "c")
	e := newClassic(m)
	client := e.connect(t)
	e.spoil = func(name string, content []byte) []byte {
		if name == "blobs/sha256/"+image.DigestOf(m.Layers()[1].Bytes()).Hex() {
			return make([]byte, len(content))
		}
		return content
	}
	var said recorder
	if _, err := Push(t.Context(), client, remoteIn(t, t.TempDir()), pushes(t, "much:1"), Options{Progress: &said}); !fault.Is(err, fault.Damaged) {
		t.Errorf("error %v", err)
	}
	if said.status != "" {
		t.Errorf("still says %q", said.status)
	}
	for _, b := range said.bars {
		if b.present+b.done+b.failed != 1 {
			t.Errorf("bar %+v", *b)
		}
	}
}
