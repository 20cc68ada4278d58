package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// This file runs pushes, removers and collections of the real code over one store,
// of which one process works at a time, and changes between them before chosen
// operations: every choice of one, a sixth of those of two, with -every all of them,
// and a sample of those of three. The machine in lease/model explores the protocol;
// this explores the code.

// scheduler lets one process at a time use the store.
type scheduler struct {
	mu       sync.Mutex
	changed  *sync.Cond
	turn     int
	left     map[int]bool // processes that have not ended
	all      int
	ops      int
	switches []switching
}

// switching is a change before an operation, counted from 1.
type switching struct{ op, to int }

func newScheduler(processes, first int, switches []switching) *scheduler {
	s := &scheduler{turn: first, left: map[int]bool{}, all: processes, switches: switches}
	s.changed = sync.NewCond(&s.mu)
	for p := range processes {
		s.left[p] = true
	}
	return s
}

// enter waits for the turn of p, and may give it away once. The caller does one
// operation and calls leave.
func (s *scheduler) enter(p int) {
	s.mu.Lock()
	s.wait(p)
	s.ops++
	for _, w := range s.switches {
		if w.op == s.ops && w.to != p && s.left[w.to] {
			s.turn = w.to
			s.changed.Broadcast()
			s.wait(p)
			break
		}
	}
}

func (s *scheduler) leave() { s.mu.Unlock() }

func (s *scheduler) wait(p int) {
	for s.turn != p {
		s.changed.Wait()
	}
}

// yield gives the turn to the next process, if there is one.
func (s *scheduler) yield(p int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != p {
		return
	}
	for n := 1; n <= s.all; n++ {
		if next := (p + n) % s.all; s.left[next] {
			s.turn = next
			break
		}
	}
	s.changed.Broadcast()
}

func (s *scheduler) end(p int) {
	s.mu.Lock()
	delete(s.left, p)
	s.mu.Unlock()
	s.yield(p)
}

// scheduled is the store as one process has it.
type scheduled struct {
	inner *mem.Store
	s     *scheduler
	p     int
	blind func(verb, key string) bool // what the process does not see, for broken variants
}

func (d *scheduled) sees(verb, key string) bool { return d.blind == nil || !d.blind(verb, key) }

func (d *scheduled) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	d.s.enter(d.p)
	defer d.s.leave()
	if !d.sees("get", key) {
		return nil, storage.ErrNotFound
	}
	return d.inner.Get(ctx, key, offset, length)
}

func (d *scheduled) Stat(ctx context.Context, key string) (storage.Info, error) {
	d.s.enter(d.p)
	defer d.s.leave()
	if !d.sees("stat", key) {
		return storage.Info{}, storage.ErrNotFound
	}
	return d.inner.Stat(ctx, key)
}

// List is one operation where there is something to list, else none.
func (d *scheduled) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var all []storage.Info
		d.s.mu.Lock()
		d.s.wait(d.p)
		d.s.mu.Unlock()
		for range d.inner.List(ctx, prefix) {
			d.s.enter(d.p)
			for info, err := range d.inner.List(ctx, prefix) {
				if err == nil && d.sees("list", info.Key) {
					all = append(all, info)
				}
			}
			d.s.leave()
			break
		}
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// write asks the guard before the operation, which may change turns: the last moment is then the operation's.
func (d *scheduled) write(ctx context.Context, do func(context.Context) error) error {
	if err := storage.Allowed(ctx); err != nil {
		return err
	}
	d.s.enter(d.p)
	defer d.s.leave()
	return do(storage.WithGuard(ctx, func(context.Context) error { return nil }))
}

func (d *scheduled) Put(ctx context.Context, key string, body io.Reader) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return d.write(ctx, func(ctx context.Context) error { return d.inner.Put(ctx, key, strings.NewReader(string(b))) })
}

func (d *scheduled) Create(ctx context.Context, key string, body io.Reader) error {
	return d.write(ctx, func(ctx context.Context) error { return d.inner.Create(ctx, key, body) })
}

func (d *scheduled) Swap(ctx context.Context, key string, old, new []byte) error {
	return d.write(ctx, func(ctx context.Context) error { return d.inner.Swap(ctx, key, old, new) })
}

func (d *scheduled) Delete(ctx context.Context, key string) error {
	return d.write(ctx, func(ctx context.Context) error { return d.inner.Delete(ctx, key) })
}

// process is one of a plot. It returns what has to be whole in the end if it has succeeded.
type process struct {
	name  string
	run   func(t *testing.T, s storage.Store, r *repo.Repo, waiting func(string)) (want string, err error)
	blind func(verb, key string) bool
}

// plot is who works at the same time, on a store that has this.
type plot struct {
	name      string
	tags      []string // of the image: those that are there
	untagged  []string // those that were there, and left their entries
	processes []process
}

func pusher(img remotetest.Image, tag string) process {
	return process{name: "push " + tag, run: func(t *testing.T, _ storage.Store, r *repo.Repo, waiting func(string)) (string, error) {
		to, end := remote.Begin(r, waiting)
		defer end(context.Background())
		_, err := remotetest.Push(context.Background(), noSessions{to}, remotetest.Ref(t, tag), img)
		return tag, err
	}}
}

// noSessions is a target whose session has begun.
type noSessions struct{ remote.Target }

func tagger(from, to string) process {
	return process{name: "tag " + to, run: func(t *testing.T, _ storage.Store, r *repo.Repo, waiting func(string)) (string, error) {
		id, err := r.Resolve(context.Background(), remotetest.Ref(t, from))
		if err != nil {
			return "", nil //nolint:nilerr // it is gone: nothing to do
		}
		in, end := remote.Begin(r, waiting)
		defer end(context.Background())
		err = in.Tag(context.Background(), remotetest.Ref(t, to), id)
		var incomplete *remote.IncompleteError
		if errors.As(err, &incomplete) && !incomplete.Tagged {
			return "", nil // it was too late, and says so
		}
		return to, err
	}}
}

func remover(tag string) process {
	return process{name: "rm " + tag, run: func(_ *testing.T, s storage.Store, _ *repo.Repo, _ func(string)) (string, error) {
		return "", s.Delete(context.Background(), tagKey(tag))
	}}
}

func collector() process {
	return process{name: "gc", run: func(_ *testing.T, _ storage.Store, r *repo.Repo, _ func(string)) (string, error) {
		_, err := r.Collect(context.Background(), repo.CollectOptions{Grace: soon})
		if fault.Is(err, fault.Locked) || fault.Is(err, fault.Refused) {
			err = nil // another one runs, or there is no tag at the moment
		}
		return "", err
	}}
}

// play runs the processes of a plot on a store, in the order of a schedule, and returns
// what is wrong then, and how many operations there were.
func (p plot) play(t *testing.T, base map[string]string, img remotetest.Image, first int, switches []switching) (ops int, wrong error) {
	inner := mem.New()
	past := time.Now().Add(-time.Hour)
	inner.Now = func() time.Time { past = past.Add(time.Millisecond); return past }
	for key, content := range base {
		put(t, inner, key, []byte(content))
	}
	sched := newScheduler(len(p.processes), first, switches)
	wants, errs := make([]string, len(p.processes)), make([]error, len(p.processes))
	var wg sync.WaitGroup
	for i, proc := range p.processes {
		wg.Go(func() {
			defer sched.end(i)
			s := &scheduled{inner: inner, s: sched, p: i, blind: proc.blind}
			r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Times: lease.Times{Poll: time.Nanosecond, Renew: time.Hour}})
			if err == nil {
				wants[i], err = proc.run(t, s, r, func(what string) {
					if what != "" {
						sched.yield(i)
					}
				})
			}
			errs[i] = err
		})
	}
	wg.Wait()
	r := open(t, inner, codec.LZ4)
	for i, want := range wants {
		if errs[i] != nil {
			return sched.ops, fmt.Errorf("%s: %w", p.processes[i].name, errs[i])
		}
		if want == "" {
			continue
		}
		got, err := remotetest.Pull(context.Background(), r, remotetest.Ref(t, want))
		if err == nil && img.Diff(got) != "" {
			err = errors.New(img.Diff(got))
		}
		if err != nil {
			return sched.ops, fmt.Errorf("%s has succeeded: %w", p.processes[i].name, err)
		}
	}
	if _, err := (plain{inner}).check(); err != nil {
		return sched.ops, err
	}
	return sched.ops, nil
}

// explore plays a plot by every schedule of one change, a sixth of those of two (with -every all of them), and some of
// three. It stops at the first that goes wrong.
func (p plot) explore(t *testing.T, samples int) (played int, wrong error) {
	img := remotetest.NewImage(t, "img", remotetest.FileLayer(t, "layer", "layer"))
	before := mem.New()
	pushTo(t, before, "other:1", remotetest.NewImage(t, "other", remotetest.FileLayer(t, "other", "other")))
	for _, tag := range slices.Concat(p.tags, p.untagged) {
		pushTo(t, before, tag, img)
	}
	for _, tag := range p.untagged {
		remove(t, before, tagKey(tag))
	}
	base := snapshot(t, before)
	n := len(p.processes)
	play := func(first int, switches ...switching) (ops int, ok bool) {
		played++
		ops, err := p.play(t, base, img, first, switches)
		if err != nil {
			wrong = fmt.Errorf("%s begins, changes %v: %w", p.processes[first].name, switches, err)
		}
		return ops, err == nil
	}
	for first := range n {
		ops, ok := play(first)
		if !ok {
			return played, wrong
		}
		for a := 1; a <= ops+10; a++ {
			for to := range n {
				if _, ok := play(first, switching{a, to}); !ok {
					return played, wrong
				}
				if testing.Short() && a%9 != 0 {
					continue
				}
				for b := a + 1; b <= ops+10; b++ {
					if testing.Short() && b%9 != 0 || !*every && (a+b)%6 != 0 {
						continue
					}
					for then := range n {
						if then == to {
							continue
						}
						if _, ok := play(first, switching{a, to}, switching{b, then}); !ok {
							return played, wrong
						}
					}
				}
			}
		}
		random := rand.New(rand.NewPCG(uint64(first), 1))
		for range samples {
			var switches []switching
			for range 3 {
				switches = append(switches, switching{1 + random.IntN(ops+10), random.IntN(n)})
			}
			slices.SortFunc(switches, func(a, b switching) int { return a.op - b.op })
			if _, ok := play(first, switches...); !ok {
				return played, wrong
			}
		}
	}
	return played, nil
}

func plots(t *testing.T) []plot {
	img := remotetest.NewImage(t, "img", remotetest.FileLayer(t, "layer", "layer"))
	return []plot{
		{name: "a push finds garbage", untagged: []string{"app:0"}, processes: []process{pusher(img, "app:1"), collector()}},
		{name: "the tag is removed meanwhile", tags: []string{"app:0"}, processes: []process{pusher(img, "app:1"), remover("app:0"), collector()}},
		{name: "a tag moves to another name", tags: []string{"app:0"}, processes: []process{tagger("app:0", "app:1"), remover("app:0"), collector()}},
	}
}

// TestSchedules: nothing that a push has reported is lost, whatever the order.
func TestSchedules(t *testing.T) {
	samples := 500
	switch {
	case *every:
		samples = 1500
	case testing.Short():
		samples = 100
	}
	for _, p := range plots(t) {
		t.Run(p.name, func(t *testing.T) {
			played, wrong := p.explore(t, samples)
			t.Logf("%d schedules", played)
			if wrong != nil || played < 500 {
				t.Errorf("after %d schedules: %v", played, wrong)
			}
		})
	}
}

// TestSchedulesFindHoles: without one of its steps the protocol loses a layer, and the schedules find it.
func TestSchedulesFindHoles(t *testing.T) {
	under := func(verb, prefix string) func(string, string) bool {
		return func(v, key string) bool { return (verb == "" || v == verb) && strings.HasPrefix(key, prefix) }
	}
	for name, blind := range map[string]struct {
		who string
		not func(verb, key string) bool
	}{
		"gc does not read leases":           {"gc", under("list", "run/leases/")},
		"a push does not read the register": {"push", under("", "run/sweep")},
	} {
		t.Run(name, func(t *testing.T) {
			p := plots(t)[0]
			for i := range p.processes {
				if strings.HasPrefix(p.processes[i].name, blind.who) {
					p.processes[i].blind = blind.not
				}
			}
			played, wrong := p.explore(t, 0)
			if wrong == nil {
				t.Errorf("%d schedules have found nothing", played)
			}
			t.Logf("after %d schedules: %v", played, wrong)
		})
	}
}
