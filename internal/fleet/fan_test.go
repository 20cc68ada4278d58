package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// TestOnce: what several lack is read once, whatever each has already and however late it begins.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 100*time.Millisecond, 5*mib, 40*mib+17, 100, 0, 7*mib, 3*mib)
		all := []*host{
			{lacks: [][]image.Digest{l}},
			{lacks: [][]image.Digest{l}, wait: 5 * time.Second},
			{lacks: [][]image.Digest{l[4:]}},
			{lacks: [][]image.Digest{nil}},
			{lacks: [][]image.Digest{l}, pace: 50 * time.Millisecond},
			{lacks: [][]image.Digest{{l[0], l[5]}}},
		}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, out := range outcomes {
			all[i].has(t, s, all[i].lacks[0]...)
			if out.Status != Done || out.Alone != 0 {
				t.Errorf("%s: %+v", out.Host, out)
			}
		}
		for i, id := range l {
			if s.opens[id] != 1 {
				t.Errorf("layer %d was read %d times", i, s.opens[id])
			}
		}
		if s.resolved != 1 {
			t.Errorf("the tag was resolved %d times", s.resolved)
		}
	})
}

// TestSlow: an engine that cannot keep up is let go, holds nobody back, and gets all.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 10*time.Millisecond, 40*mib, 3*mib, 4*mib)
		all := []*host{
			{lacks: [][]image.Digest{l}},
			{lacks: [][]image.Digest{l}, pace: 10 * time.Second},
			{lacks: [][]image.Digest{l}, wait: 5 * time.Minute}, // does not even say what it lacks
			{lacks: [][]image.Digest{l}, pace: 20 * time.Millisecond},
		}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, out := range outcomes {
			all[i].has(t, s, l...)
			if slow := i == 1 || i == 2; slow != (out.Alone > 0) {
				t.Errorf("%s read %d bytes for itself", out.Host, out.Alone)
			}
		}
		// What they would have taken alone, and for how long they were held up.
		for _, h := range []*host{all[0], all[3]} {
			if most := 47*20*time.Millisecond + 2*patience + 5*time.Second; h.took > most {
				t.Errorf("%s took %s, want at most %s", h.name, h.took, most)
			}
		}
	})
}

// TestSlowLink: where all wait for the remote, nobody is let go, however long that takes:
// also not one whose place others wait for, which itself waits for an earlier layer.
func TestSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 5*time.Second, 40*mib, 40*mib)
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l[1:]}}, {lacks: [][]image.Digest{l}, pace: 100 * time.Millisecond}}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, out := range outcomes {
			all[i].has(t, s, all[i].lacks[0]...)
			if out.Alone > 0 {
				t.Errorf("%s read %d bytes for itself", out.Host, out.Alone)
			}
		}
		for i, id := range l {
			if s.opens[id] != 1 {
				t.Errorf("layer %d was read %d times", i, s.opens[id])
			}
		}
	})
}

// TestLetGoIsProved: who is let go in the middle of a layer goes on with the same
// bytes, or fails: what came before was proved at its end alone.
func TestLetGoIsProved(t *testing.T) {
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprint(changed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := newStore(t, time.Millisecond, 40*mib)
				s.change = func(_ image.Digest, open int, content []byte) []byte {
					if open < 2 || !changed {
						return content
					}
					other := slices.Clone(content)
					other[7] ^= 1
					return other
				}
				all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}, pace: 10 * time.Second}}
				outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
				if outcomes[0].Err != nil || s.opens[l[0]] != 2 {
					t.Errorf("error %v, read %d times", outcomes[0].Err, s.opens[l[0]])
				}
				if !changed {
					all[1].has(t, s, l...)
				} else if !fault.Is(outcomes[1].Err, fault.Damaged) || fault.KindOf(err) != fault.Partial {
					t.Errorf("error %v, %v", outcomes[1].Err, err)
				}
			})
		})
	}
}

// TestCrossed: engines that take the layers in contrary orders wait for one another,
// which is noticed.
func TestCrossed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Millisecond, 33*mib, 33*mib, 33*mib, 33*mib)
		back := slices.Clone(l)
		slices.Reverse(back)
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{back}}}
		if _, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{}); err != nil {
			t.Fatal(err)
		}
		all[0].has(t, s, l...)
		all[1].has(t, s, back...)
		if all[0].took > 3*patience {
			t.Errorf("took %s", all[0].took)
		}
	})
}

// TestNotCrossed: who waits for what is about to come is not taken for one that waits for the others.
func TestNotCrossed(t *testing.T) {
	f := newFan(t.Context())
	a, b := f.join(), f.join()
	first, second := newCast(f, remote.Layer{}, 0), newCast(f, remote.Layer{}, 0)
	for range windowMost {
		first.chunks = append(first.chunks, &chunk{bytes: make([]byte, chunkSize)})
	}
	f.chunks = windowMost
	first.readers = []*reader{{m: a, cast: first, next: windowMost, waits: true}, {m: b, cast: first}}
	second.readers = []*reader{{m: b, cast: second, waits: true}}
	a.reading, b.reading, a.planned, b.planned = 1, 1, 1, 1
	first.stop, second.stop = func() {}, func() {}
	f.casts[castKey{layer: image.DigestOf([]byte("1"))}], f.casts[castKey{layer: image.DigestOf([]byte("2"))}] = first, second
	look := func(when string, want bool) {
		t.Helper()
		f.watch()
		if a.alone || b.alone != want {
			t.Errorf("%s: let go are %v and %v", when, a.alone, b.alone)
		}
	}
	look("at first", false)
	look("the second layer is between two chunks", false) // neither fetching nor full
	second.over = true
	f.settle()
	look("who waits for its end has not looked yet", false)
	look("nothing has changed since", true)
}

// TestOneDies: the others get all, of the same read.
func TestOneDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 10*time.Millisecond, 3*mib, 36*mib, 5*mib, 2*mib, 34*mib)
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}, stop: 1}, {lacks: [][]image.Digest{l}}}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if fault.KindOf(err) != fault.Partial || !strings.Contains(err.Error(), "1 of 3 engines failed") || !errors.Is(outcomes[1].Err, errDied) {
			t.Errorf("error %v, %v", err, outcomes[1].Err)
		}
		for _, i := range []int{0, 2} {
			all[i].has(t, s, l...)
			if all[i].took > patience/3 {
				t.Errorf("%s waited for the dead: %s", all[i].name, all[i].took)
			}
		}
		for i, id := range l {
			if s.opens[id] != 1 {
				t.Errorf("layer %d was read %d times", i, s.opens[id])
			}
		}
	})
}

// TestRemoteFails: what the remote cannot give fails for all, for that reason, and
// for those alone who lack it.
func TestRemoteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 10*time.Millisecond, 3*mib, 9*mib, 5*mib)
		s.fail[l[1]] = 4*mib + 5
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l[2:]}}}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if !errors.Is(outcomes[0].Err, errRemote) || !errors.Is(outcomes[1].Err, errRemote) || outcomes[2].Err != nil || fault.KindOf(err) != fault.Partial {
			t.Errorf("%v, outcomes %v", err, outcomes)
		}
		outcomes, err = Pull(t.Context(), hostsOf(all[:2]), jobOf(t, s, 1), Options{})
		if fault.KindOf(err) != fault.Other || !errors.Is(err, errRemote) {
			t.Errorf("all failed so: %v, %v", err, outcomes)
		}
	})
}

// TestMemory: what is in memory has a bound, whatever the engines take, and nothing is left at the end.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 0, 40*mib, 40*mib, 40*mib, 40*mib, 2*mib)
		f := newFan(t.Context())
		from := share(s)
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.run(ctx); close(done) }()
		a, b := f.join(), f.join()
		var layers []remote.Layer
		for _, id := range l {
			layers = append(layers, s.layer(id))
		}
		a.lacks(0, layers)
		b.lacks(0, layers)
		for _, m := range []*member{a, b} {
			for _, layer := range layers { // all at once, and nobody takes anything
				if _, err := m.open(ctx, from, layer); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		f.mu.Lock()
		if n := f.chunks; n < windowAll || n > windowAll+windowLeast*len(l) {
			t.Errorf("%d chunks in memory, want %d and what each may have", n, windowAll)
		}
		f.mu.Unlock()
		a.leave()
		b.leave()
		for _, c := range f.casts {
			for _, r := range slices.Clone(c.readers) {
				_ = r.Close()
			}
		}
		end()
		<-done
		if f.chunks != 0 || len(f.casts) != 0 {
			t.Errorf("%d chunks and %d layers are left", f.chunks, len(f.casts))
		}
	})
}

// TestChunksAreUsedAgain: a long layer takes no more memory than a window does, and what one
// who was let go still reads is not written over.
func TestChunksAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Millisecond, 48*mib)
		f := newFan(t.Context())
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.run(ctx); close(done) }()
		defer func() { end(); <-done }()
		var readers []*reader
		for _, m := range []*member{f.join(), f.join()} {
			m.lacks(0, []remote.Layer{s.layer(l[0])})
			defer m.leave()
		}
		from := share(s)
		for _, m := range slices.Clone(f.members) {
			r, err := m.open(t.Context(), from, s.layer(l[0]))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			readers = append(readers, r.(*reader))
		}
		quick, slow := readers[0], readers[1]
		got := make([]byte, 48*mib)
		if _, err := io.ReadFull(slow, got[:100]); err != nil {
			t.Fatal(err)
		}
		used := map[*byte]bool{}
		for at := 0; at < len(got); at += mib / 2 {
			if _, err := io.ReadFull(quick, got[at:at+mib/2]); err != nil {
				t.Fatal(err)
			}
			used[&quick.taken.bytes[0]] = true
		}
		if !bytes.Equal(got, s.layers[l[0]]) {
			t.Error("the quick one got other bytes")
		}
		if !slow.m.alone {
			t.Error("the slow one was not let go")
		}
		if len(used) > windowMost+2 { // those of the window, of the quick one and of the slow one
			t.Errorf("%d chunks were made for 48", len(used))
		}
		if _, err := io.ReadFull(slow, got[100:]); err != nil || !bytes.Equal(got, s.layers[l[0]]) {
			t.Errorf("the slow one: error %v, or other bytes", err)
		}
	})
}

// TestMeasuredOnce: a layer of unknown size is read for that once, and who waits for it is not let go.
func TestMeasuredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Millisecond, mib, 36*mib)
		measured := 0
		size := func(ctx context.Context, job Job) error {
			_, err := job.Options.Measure(ctx, l[0], func() (int64, error) {
				measured++
				return mib, sleep(ctx, 2*time.Minute)
			})
			return err
		}
		all := []*host{{lacks: [][]image.Digest{l}, before: size}, {lacks: [][]image.Digest{l}, before: size}, {lacks: [][]image.Digest{l[1:]}}}
		outcomes, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{})
		if err != nil || measured != 1 {
			t.Errorf("error %v, measured %d times", err, measured)
		}
		for _, out := range outcomes {
			if out.Alone > 0 {
				t.Errorf("%s read %d bytes for itself", out.Host, out.Alone)
			}
		}
	})
}

// TestTwoImages: one has the first image, and does not read the second before the others do.
func TestTwoImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 100*time.Millisecond, 40*mib, 35*mib)
		all := []*host{{lacks: [][]image.Digest{l[:1], l[1:]}}, {lacks: [][]image.Digest{nil, l[1:]}}, {lacks: [][]image.Digest{l[:1], nil}}}
		if _, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 2), Options{}); err != nil {
			t.Fatal(err)
		}
		all[0].has(t, s, l...)
		all[1].has(t, s, l[1])
		all[2].has(t, s, l[0])
		for i, id := range l {
			if s.opens[id] != 1 {
				t.Errorf("layer %d was read %d times", i, s.opens[id])
			}
		}
	})
}

// TestInterrupt: all stop at once, and nothing of theirs is left running.
func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Second, 90*mib)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		all := []*host{{lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}}, {lacks: [][]image.Digest{l}}}
		start := time.Now()
		outcomes, err := Pull(ctx, hostsOf(all), jobOf(t, s, 1), Options{Parallel: 2})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 32*time.Second {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
		for _, out := range outcomes {
			if out.Status != Stopped || !fault.Interrupted(out.Err) {
				t.Errorf("%+v", out)
			}
		}
	})
}
