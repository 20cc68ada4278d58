package transfer

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// TestPushOnAFaultyStore fails operation N of a push in each way, for every N, without -every in one of the ways: no tag
// reaches an incomplete image, no other tag changes, and a rerun completes.
func TestPushOnAFaultyStore(t *testing.T) {
	old, m := layered("1", "a", "z"), layered("1", "a", "b", "c")
	m.Step("ENV such=config")
	beside := layered("beside", "a", "b")
	before, after := newClassic(old, beside), newClassic(m)
	beforeClient, afterClient := before.connect(t), after.connect(t)
	step, failed := len(storagetest.Modes), 0
	if *every {
		step = 1
	}
	for i, mode := range storagetest.Modes {
		n := 1 + i%step
		for ; ; n += step {
			store := mem.New()
			r := remoteOn(t, store, codec.LZ4)
			mustPush(t, beforeClient, r, "much:1", "much:beside")
			faulty := storagetest.NewFaulty(store)
			broken, err := repo.Open(t.Context(), faulty, repo.Options{Name: remoteName, Codec: codec.LZ4})
			if err != nil {
				t.Fatal(err)
			}
			faulty.FailAt(faulty.Ops()+n, mode)
			ops := faulty.Ops()
			// One at a time, so that operation N is the same one in each run.
			_, err = Push(t.Context(), afterClient, broken, pushes(t, "much:1"), Options{Parallel: 1})
			what := fmt.Sprintf("operation %d %s", n, mode)
			if err != nil {
				failed++
				if !errors.Is(err, storagetest.ErrInjected) || fault.KindOf(err) != fault.Other {
					t.Errorf("%s: error %v", what, err)
				}
			}
			id, rerr := r.Resolve(t.Context(), reference(t, "much:1"))
			switch {
			case rerr != nil:
				t.Errorf("%s: the tag is gone: %v", what, rerr)
			case id.String() == m.ID():
				checkWhole(t, r, "much:1", m)
			default:
				checkWhole(t, r, "much:1", old)
				if err == nil {
					t.Errorf("%s: no error, and the old tag", what)
				}
			}
			mustPush(t, afterClient, r, "much:1")
			checkWhole(t, r, "much:1", m)
			checkWhole(t, r, "much:beside", beside)
			if faulty.Ops()-ops < n { // there is no operation N any more
				break
			}
			if t.Failed() {
				t.Fatalf("%s: %q", what, faulty.Log())
			}
		}
		if n < 10 {
			t.Errorf("only %d operations were tried", n)
		}
	}
	t.Logf("%d pushes failed", failed)
}

// TestPullFromAFaultyStore: an error, no tag and no part of an image in the engine, and a rerun completes.
func TestPullFromAFaultyStore(t *testing.T) {
	m := layered("1", "a", "b", "c")
	store := mem.New()
	mustPush(t, newClassic(m).connect(t), remoteOn(t, store, codec.Zstd), "much:1")
	e := newClassic()
	client := e.connect(t)
	for _, mode := range storagetest.Modes {
		for n := 1; ; n++ {
			faulty := storagetest.NewFaulty(store)
			r, err := repo.Open(t.Context(), faulty, repo.Options{Name: remoteName, Codec: codec.Zstd})
			if err != nil {
				t.Fatal(err)
			}
			ops := faulty.Ops()
			faulty.FailAt(ops+n, mode)
			_, err = Pull(t.Context(), r, client, pulls(t, "much:1"), Options{})
			ended := faulty.Ops()-ops < n
			if (err == nil) != ended {
				t.Fatalf("operation %d %s: error %v: %q", n, mode, err, faulty.Log())
			}
			if err == nil {
				e.mu.Lock()
				clear(e.images)
				e.mu.Unlock()
				break
			}
			if !errors.Is(err, storagetest.ErrInjected) || fault.KindOf(err) != fault.Other {
				t.Errorf("operation %d %s: error %v", n, mode, err)
			}
			if names := e.names(); len(names) > 0 {
				t.Fatalf("operation %d %s: the engine has %q", n, mode, names)
			}
		}
	}
	mustPull(t, remoteOn(t, store, codec.Zstd), client, "much:1")
	if names := e.names(); !slices.Equal(names, []string{"much:1 " + m.ID()[7:19]}) {
		t.Errorf("the engine has %q", names)
	}
}
