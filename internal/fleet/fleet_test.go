package fleet

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// statuses are what became of the hosts, in one line.
func statuses(outcomes []Outcome) string {
	var all []string
	for _, out := range outcomes {
		all = append(all, string(out.Status))
	}
	return strings.Join(all, " ")
}

func TestChecks(t *testing.T) {
	refused := fault.New(fault.Refused, "no permission")
	for _, c := range []struct {
		what  string
		hosts []*host
		o     Options
		want  string
		kind  fault.Kind // 0 is none
	}{
		{"all are well", []*host{{id: "a"}, {id: "b"}}, Options{}, "done done", 0},
		{"one has two names", []*host{{id: "a"}, {id: "b"}, {id: "a"}}, Options{}, "done done same", 0},
		{"some say no name", []*host{{}, {}}, Options{}, "done done", 0},
		{"one is not well", []*host{{unwell: refused}, {}}, Options{}, "unhealthy done", fault.Partial},
		{"one is not well, and nothing begins", []*host{{unwell: refused}, {}}, Options{FailFast: true}, "unhealthy stopped", fault.Refused},
		{"none is well", []*host{{unwell: refused}, {unwell: refused}}, Options{}, "unhealthy unhealthy", fault.Refused},
		{"none is well, for two reasons", []*host{{unwell: refused}, {silent: true}}, Options{}, "unhealthy unhealthy", fault.Partial},
		{"one does not answer", []*host{{silent: true}, {}}, Options{}, "unhealthy done", fault.Partial},
		{"nobody looks", []*host{{unwell: refused, id: "a"}, {silent: true}, {id: "a"}}, Options{SkipChecks: true}, "done done done", 0},
		{"a twin of one that fails in the check", []*host{{id: "a", unwell: refused}, {id: "a"}}, Options{}, "unhealthy done", fault.Partial},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := newStore(t, 0)
				for _, h := range c.hosts {
					h.lacks = [][]image.Digest{nil}
				}
				outcomes, err := Pull(t.Context(), hostsOf(c.hosts), jobOf(t, s, 1), c.o)
				if got := statuses(outcomes); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				if c.kind == 0 && err != nil || c.kind != 0 && fault.KindOf(err) != c.kind {
					t.Errorf("error %v, want kind %s", err, c.kind)
				}
			})
		})
	}
}

func TestFailFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Second, mib, 40*mib)
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}, stop: 1}, {lacks: [][]image.Digest{l}}}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{FailFast: true, Parallel: 2})
		if got := statuses(outcomes); got != "stopped failed stopped" || len(all[2].ids) > 0 {
			t.Errorf("%s, error %v, the last began with %v", got, err, all[2].ids)
		}
	})
}

// TestParallel: so many at once, and no more.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 0, 2*mib)
		var all []*host
		for range 9 {
			all = append(all, &host{lacks: [][]image.Digest{l}, wait: time.Second})
		}
		start := time.Now()
		if _, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{Parallel: 3}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("took %s, want three seconds", took)
		}
		if n := s.opens[l[0]]; n < 1 || n > 3 {
			t.Errorf("the layer was read %d times, want once for each three at most", n)
		}
	})
}

// TestOneImageForAll: a tag that moves meanwhile, and a signature that is asked for once.
func TestOneImageForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Second, 2*mib)
		s.tag = image.DigestOf([]byte("the first"))
		time.AfterFunc(500*time.Millisecond, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tag = image.DigestOf([]byte("the second"))
		})
		var asked atomic.Int32
		job := jobOf(t, s, 1)
		job.Options.Verify = func(context.Context, image.Reference, image.ID) (string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return "somebody", nil
		}
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}}}
		if _, err := Pull(t.Context(), hostsOf(all), job, Options{Parallel: 1}); err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			if len(h.ids) != 1 || h.ids[0] != image.DigestOf([]byte("the first")) {
				t.Errorf("%s got %v", h.name, h.ids)
			}
		}
		if asked.Load() != 1 || s.looks != 1 {
			t.Errorf("the signature was asked for %d times, layers %d times", asked.Load(), s.looks)
		}
	})
}

// TestMemoInterrupted: an interrupt of who asks is not what the others get.
func TestMemoInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memo[string, int]
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := m.get(ctx, "x", func() (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			if err == nil {
				t.Error("no error")
			}
		}()
		synctest.Wait()
		var got int
		go func() { got, _ = m.get(t.Context(), "x", func() (int, error) { return 7, nil }) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if got != 7 {
			t.Errorf("got %d", got)
		}
	})
}
