package lease

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(name string) image.Digest { return image.DigestOf([]byte(name)) }

func keys(t *testing.T, s storage.Store, prefix string) (found []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, info.Key)
	}
	return found
}

func rely(t *testing.T, l *Lease, fresh bool, names ...string) {
	t.Helper()
	var ids []image.Digest
	for _, n := range names {
		ids = append(ids, id(n))
	}
	if got, err := l.Rely(t.Context(), ids...); err != nil || got != fresh {
		t.Fatalf("Rely(%q): fresh %v, error %v", names, got, err)
	}
}

// begin starts a sweep that lists what names say.
func begin(t *testing.T, s storage.Store, times Times, names ...string) *Sweep {
	t.Helper()
	w, err := Begin(t.Context(), s, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(context.Background()) })
	publish(t, w, names...)
	return w
}

func publish(t *testing.T, w *Sweep, names ...string) {
	t.Helper()
	var ids []image.Digest
	for _, n := range names {
		ids = append(ids, id(n))
	}
	if len(ids) > 0 {
		if err := w.Publish(t.Context(), ids); err != nil {
			t.Fatal(err)
		}
	}
}

func spared(t *testing.T, w *Sweep, names ...string) (all bool) {
	t.Helper()
	spare, err := w.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !spare[id(n)] {
			return false
		}
	}
	return true
}

// TestOrder: the lease first, then the register; and the same for ids that are learned later.
func TestOrder(t *testing.T) {
	s := storagetest.NewFaulty(mem.New())
	l := New(s, Options{})
	defer l.Release(t.Context())
	rely(t, l, true, "a", "b")
	rely(t, l, false, "b")
	rely(t, l, true, "c")
	var verbs []string
	for _, line := range s.Log() {
		_, op, _ := strings.Cut(line, " ")
		if i := strings.Index(op, leases); i >= 0 {
			op = op[:i+len(leases)]
		}
		verbs = append(verbs, strings.ToLower(op))
	}
	once := []string{"put run/leases/", "stat run/leases/", "get run/sweep"}
	again := []string{"put run/leases/", "stat run/leases/", "delete run/leases/", "get run/sweep"}
	if want := append(once, again...); !slices.Equal(verbs, want) {
		t.Errorf("operations\n%q, want\n%q", verbs, want)
	}
	w := begin(t, s, Times{}, "a")
	if !spared(t, w, "a", "b", "c") {
		t.Error("an id of the lease is not spared")
	}
}

// TestRelease: nothing is left, also after the context has ended.
func TestRelease(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "file": directory(t)} {
		ctx, cancel := context.WithCancel(t.Context())
		l := New(s, Options{})
		if _, err := l.Rely(ctx, id("a")); err != nil {
			t.Fatal(err)
		}
		if n := len(keys(t, s, "run/")); n != 1 {
			t.Errorf("%s: %d objects", name, n)
		}
		cancel()
		l.Release(ctx)
		l.Release(ctx)
		if left := keys(t, s, "run/"); len(left) > 0 {
			t.Errorf("%s: left %q", name, left)
		}
	}
}

func directory(t *testing.T) *file.Store {
	t.Helper()
	s, err := file.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestWait: a push waits for a sweep that lists what it relies on, and for no other; and
// until the sweep has ended or is over.
func TestWait(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, w *Sweep){
		"ended": func(t *testing.T, w *Sweep) {
			if err := w.End(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"over": func(*testing.T, *Sweep) { time.Sleep(3 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mem.New()
				w := begin(t, s, Times{}, "a", "b")
				var mu sync.Mutex
				var told []string
				l := New(s, Options{Waiting: func(what string) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, what)
				}})
				defer l.Release(t.Context())
				rely(t, l, true, "c")
				if len(told) > 0 {
					t.Errorf("it waits for another's ids: %q", told)
				}
				done := make(chan error, 1)
				go func() {
					_, err := l.Rely(t.Context(), id("b"))
					done <- err
				}()
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					t.Fatalf("it does not wait: %v", err)
				default:
				}
				if !spared(t, w, "b") {
					t.Error("a push that waits has no lease")
				}
				end(t, w)
				time.Sleep(10 * time.Second)
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Fatal("it still waits")
				}
				mu.Lock()
				defer mu.Unlock()
				if len(told) < 2 || !strings.Contains(told[0], "1 of the objects") || told[len(told)-1] != "" {
					t.Errorf("it was told %q", told)
				}
			})
		})
	}
}

// TestWaitEnds with the context.
func TestWaitEnds(t *testing.T) {
	s := mem.New()
	begin(t, s, Times{}, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	l := New(s, Options{Times: Times{Poll: time.Millisecond}})
	defer l.Release(ctx)
	if _, err := l.Rely(ctx, id("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestRenewal: a lease stays alive as long as its process does.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		l := New(s, Options{})
		defer l.Release(t.Context())
		rely(t, l, true, "a")
		time.Sleep(10 * time.Hour)
		if err := l.Check(t.Context()); err != nil {
			t.Errorf("after ten hours: %v", err)
		}
		if w := begin(t, s, Times{}, "x"); !spared(t, w, "a") {
			t.Error("after ten hours it is not spared")
		}
	})
}

// TestLost: a lease that was not renewed in time, by the store's clock, or that others
// have removed, is lost for good; the next Rely begins a new one.
func TestLost(t *testing.T) {
	for name, lose := range map[string]func(s *mem.Store, off *time.Duration){
		"late":                             func(_ *mem.Store, off *time.Duration) { *off += 6 * time.Minute },
		"removed and written by a renewal": func(_ *mem.Store, off *time.Duration) { *off += 31 * time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			s, off := mem.New(), time.Duration(0)
			s.Now = func() time.Time { return time.Now().Add(off) }
			l := New(s, Options{})
			defer l.Release(t.Context())
			rely(t, l, true, "a")
			if err := l.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			lose(s, &off)
			if err := l.Alive(t.Context()); err != nil {
				t.Errorf("what was found out a moment ago is asked again: %v", err)
			}
			l.sent = moment{}
			if err := l.Alive(t.Context()); !errors.Is(err, ErrLost) {
				t.Errorf("Alive: %v", err)
			}
			for range 2 {
				if err := l.Check(t.Context()); !errors.Is(err, ErrLost) {
					t.Errorf("error %v", err)
				}
			}
			rely(t, l, true)
			if err := l.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if w := begin(t, s, Times{}, "x"); !spared(t, w, "a") {
				t.Error("it is not spared")
			}
			if n := len(keys(t, s, leases)); n != 1 {
				t.Errorf("%d leases", n)
			}
		})
	}
}

// TestDead: leases that are not renewed count for nothing after half an hour, unless a process holds them.
func TestDead(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	l := New(s, Options{})
	defer l.Release(t.Context())
	rely(t, l, true, "a")
	off = 29 * time.Minute
	w := begin(t, s, Times{}, "x")
	if !spared(t, w, "a") {
		t.Error("a lease of 29 minutes is not spared")
	}
	if err := w.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	off = 31 * time.Minute
	if w = begin(t, s, Times{}, "x"); spared(t, w, "a") {
		t.Error("a lease of 31 minutes is spared")
	}
	if left := keys(t, s, leases); len(left) > 0 {
		t.Errorf("dead leases are left: %q", left)
	}
}

// TestHeld: in a directory a process that pauses is not dead, and one that has ended is.
func TestHeld(t *testing.T) {
	s := directory(t)
	l := New(s, Options{})
	defer l.Release(t.Context())
	rely(t, l, true, "a")
	if err := s.Put(t.Context(), leases+"of-a-dead-process", strings.NewReader(`{"ids":["`+id("b").String()+`"]}`)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	w := begin(t, s, Times{Dead: time.Millisecond}, "x")
	if !spared(t, w, "a") {
		t.Error("a lease that is held is not spared")
	}
	if spared(t, w, "b") {
		t.Error("a lease that nobody holds is spared")
	}
	// The same for sweeps.
	if _, err := Begin(t.Context(), s, Times{Over: time.Millisecond}); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a sweep that is held: %v", err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := Begin(t.Context(), s, Times{Over: time.Millisecond})
	if err != nil {
		t.Fatalf("after one whose process has ended: %v", err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestUnreadable: a lease or a register that cannot be read is no lease that spares nothing.
func TestUnreadable(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "no JSON": "x", "no id": `{"ids":["sha256:12"]}`, "huge": `{"ids":[` + strings.Repeat(" ", maxLease) + `]}`} {
		s := mem.New()
		if err := s.Put(t.Context(), leases+"x", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		w := begin(t, s, Times{}, "a")
		if _, err := w.Leases(t.Context()); err == nil {
			t.Errorf("a lease that is %s: no error", name)
		}
	}
	for _, content := range []string{"", "x", `{}`, `{"generation":"../../x","state":"list"}`, `{"generation":"` + strings.Repeat("0", 32) + `","state":"x"}`, `{"generation":"` + strings.Repeat("0", 32) + `","state":"list"}`} {
		s := mem.New()
		if err := s.Put(t.Context(), register, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		l := New(s, Options{})
		if _, err := l.Rely(t.Context(), id("a")); err == nil {
			t.Errorf("with the register %q a push goes on", content)
		}
		l.Release(t.Context())
	}
}

// TestLeasesAreReadTwice: a lease that is written behind the place that the reading has come to counts, together with
// one that ends meanwhile.
func TestLeasesAreReadTwice(t *testing.T) {
	s := &between{Store: mem.New()}
	w := begin(t, s, Times{}, "x")
	ends := New(s.Store, Options{})
	rely(t, ends, true, "a")
	s.before = func() { // the listing has begun, and does not see the second
		second := New(s.Store, Options{})
		rely(t, second, true, "b")
		t.Cleanup(func() { second.Release(context.Background()) })
	}
	s.after = func() { ends.Release(t.Context()) }
	if !spared(t, w, "a", "b") {
		t.Error("one of them is not spared")
	}
}

// between lets something happen when leases are listed: behind the listing, before what it has found is read, and when it has been.
type between struct {
	*mem.Store
	before, after func()
}

func (b *between) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	var found []storage.Info
	for info := range b.Store.List(ctx, prefix) {
		found = append(found, info)
	}
	return func(yield func(storage.Info, error) bool) {
		if b.before != nil {
			b.before()
			b.before = nil
		}
		for _, info := range found {
			if !yield(info, nil) {
				return
			}
		}
		if b.after != nil {
			b.after()
			b.after = nil
		}
	}
}

// TestTakeOver: one sweep at a time; after two hours another takes over, and the first deletes nothing more.
func TestTakeOver(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	first := begin(t, s, Times{}, "a")
	if _, err := Begin(t.Context(), s, Times{}); !errors.Is(err, ErrBusy) {
		t.Fatalf("a second sweep: %v", err)
	}
	if err := first.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	off = 121 * time.Minute
	second := begin(t, s, Times{}, "b")
	first.asked = moment{} // what it has found out is good for some seconds
	if err := first.Check(t.Context()); !errors.Is(err, ErrTakenOver) {
		t.Errorf("the first goes on: %v", err)
	}
	if err := first.End(t.Context()); err == nil {
		t.Error("the first ends the second")
	}
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.End(t.Context()); err != nil {
		t.Error(err)
	}
	third, err := Begin(t.Context(), s, Times{})
	if err != nil {
		t.Fatalf("after the end: %v", err)
	}
	off += 121 * time.Minute
	fourth := begin(t, s, Times{}, "c")
	if err := third.Publish(t.Context(), []image.Digest{id("x")}); !errors.Is(err, ErrBusy) {
		t.Errorf("one that was taken over while it marked publishes: %v", err)
	}
	if err := errors.Join(third.Close(t.Context()), fourth.End(t.Context()), fourth.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestTimeIsUp: a sweep deletes for an hour.
func TestTimeIsUp(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	w := begin(t, s, Times{}, "a")
	off = 59 * time.Minute
	if err := w.Check(t.Context()); err != nil {
		t.Error(err)
	}
	off, w.asked = 61*time.Minute, moment{}
	if err := w.Check(t.Context()); !errors.Is(err, ErrTimeUp) {
		t.Errorf("after an hour: %v", err)
	}
}

// TestBeginAtOnce: of many that begin at once, one does.
func TestBeginAtOnce(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "file": directory(t)} {
		for round := range 3 {
			var wg sync.WaitGroup
			begun := make(chan *Sweep, 16)
			for range 16 {
				wg.Go(func() {
					w, err := Begin(t.Context(), s, Times{})
					if err == nil {
						begun <- w
					} else if !errors.Is(err, ErrBusy) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			wg.Wait()
			if n := len(begun); n != 1 {
				t.Fatalf("%s, round %d: %d sweeps have begun", name, round, n)
			}
			w := <-begun
			if err := errors.Join(w.End(t.Context()), w.Close(t.Context())); err != nil {
				t.Error(err)
			}
		}
		if left := keys(t, s, "run/"); !slices.Equal(left, []string{register}) {
			t.Errorf("%s: left %q", name, left)
		}
	}
}

// without hides what else a store can do.
type without struct{ storage.Store }

func TestNoSwap(t *testing.T) {
	if _, err := Begin(t.Context(), without{mem.New()}, Times{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}

// TestLargeList: a list of the most ids there may be is read whole, and one of more is not published.
func TestLargeList(t *testing.T) {
	s := mem.New()
	w, err := Begin(t.Context(), s, Times{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(t.Context())
	ids := make([]image.Digest, MaxList+1)
	for i := range ids {
		ids[i] = image.Digest{byte(i), byte(i >> 8), byte(i >> 16)}
	}
	if err := w.Publish(t.Context(), ids); err == nil {
		t.Error("more than there may be is published")
	}
	if err := w.Publish(t.Context(), ids[1:]); err != nil {
		t.Fatal(err)
	}
	read, err := readList(t.Context(), s, w.generation)
	if err != nil || !slices.EqualFunc(read, ids[1:], func(a, b image.Digest) bool { return bytes.Equal(a[:], b[:]) }) {
		t.Errorf("%d of %d ids, error %v", len(read), MaxList, err)
	}
}

// TestForgets: what sweeps have left that were killed before they had the register, or after they had lost it, goes once it
// is as old as one that is over; what a process holds stays.
func TestForgets(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	write := func(names ...string) {
		for _, name := range names {
			if err := put(t.Context(), s, name, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(clocks+"killed", lists+"killed")
	off = 121 * time.Minute
	write(clocks+"young", lists+"young")
	w := begin(t, s, Times{}, "a")
	if got, want := append(keys(t, s, clocks), keys(t, s, lists)...), 4; len(got) != want || slices.Contains(got, clocks+"killed") || slices.Contains(got, lists+"killed") {
		t.Errorf("left are %q", got)
	}
	if err := w.End(t.Context()); err != nil {
		t.Error(err)
	}

	d := directory(t)
	held, err := d.Hold(t.Context(), clocks+"paused", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release(t.Context())
	if err := put(t.Context(), d, clocks+"killed", nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	begin(t, d, Times{Over: time.Millisecond}, "a")
	if got := keys(t, d, clocks); !slices.Contains(got, clocks+"paused") || slices.Contains(got, clocks+"killed") {
		t.Errorf("in a directory are left %q", got)
	}
}

// noDelete is a store in which nothing can be deleted below a prefix while it is set.
type noDelete struct {
	*mem.Store
	prefix string
}

func (n *noDelete) Delete(ctx context.Context, key string) error {
	if n.prefix != "" && strings.HasPrefix(key, n.prefix) {
		return storage.ErrPermission
	}
	return n.Store.Delete(ctx, key)
}

// TestForgetFails: what a killed sweep has left keeps nobody from sweeping; the next one removes it.
func TestForgetFails(t *testing.T) {
	s, off := &noDelete{Store: mem.New(), prefix: lists + "killed"}, time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	if err := put(t.Context(), s, lists+"killed", nil); err != nil {
		t.Fatal(err)
	}
	off = 121 * time.Minute
	for i, prefix := range []string{"", "none"} {
		if err := begin(t, s, Times{}, "a").End(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := slices.Contains(keys(t, s, lists), lists+"killed"); left != (i == 0) {
			t.Errorf("sweep %d: left over is %t", i+1, left)
		}
		s.prefix = prefix
	}
}

// TestNoWait: a lease that is not to wait fails while a sweep lists an id of it, as
// often as it is asked, and on the way out of that forgets nothing else.
func TestNoWait(t *testing.T) {
	s := mem.New()
	w := begin(t, s, Times{}, "doomed")
	l := New(s, Options{NoWait: true})
	defer l.Release(t.Context())
	rely(t, l, true, "other")
	for range 2 {
		if _, err := l.Rely(t.Context(), id("other"), id("doomed")); !errors.Is(err, ErrSwept) {
			t.Fatalf("%v, want ErrSwept", err)
		}
	}
	rely(t, l, false, "other")
	if err := w.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	rely(t, l, true, "doomed")
	rely(t, l, false, "doomed", "other")
}

// noPut is a store in which nothing can be written while it is set.
type noPut struct {
	*mem.Store
	err error
}

func (n *noPut) Put(ctx context.Context, key string, body io.Reader) error {
	if n.err != nil {
		return n.err
	}
	return n.Store.Put(ctx, key, body)
}

// TestRelyFails: what could not be written into a lease is not relied on.
func TestRelyFails(t *testing.T) {
	s := &noPut{Store: mem.New()}
	l := New(s, Options{})
	defer l.Release(t.Context())
	rely(t, l, true, "a")
	s.err = errors.New("broken")
	for range 2 {
		if _, err := l.Rely(t.Context(), id("b")); !errors.Is(err, s.err) {
			t.Fatalf("%v, want %v", err, s.err)
		}
	}
	s.err = nil
	rely(t, l, true, "b")
}
