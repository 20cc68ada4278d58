package transfer

import (
	"fmt"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// TestTwoPushesAtOnce: of the same image, with other codecs, through other processes as it were. Both succeed.
func TestTwoPushesAtOnce(t *testing.T) {
	m := layered("1", "a", "b", "c")
	one, two := newClassic(m).connect(t), newClassic(m).connect(t)
	for range 10 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		for i, client := range []Exporter{one, two, one} {
			store, err := file.Create(dir)
			if err != nil {
				t.Fatal(err)
			}
			r := remoteOn(t, store, []codec.Codec{codec.LZ4, codec.Zstd, codec.LZ4}[i])
			wg.Go(func() {
				defer store.Close()
				if _, err := Push(t.Context(), client, r, pushes(t, "much:1"), Options{}); err != nil {
					t.Errorf("push %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		noTemporary(t, dir)
		checkWhole(t, remoteIn(t, dir), "much:1", m)
	}
}

// TestPushAndPullAtOnce moves a tag to and fro while it is pulled: the old image or the new, never an error.
func TestPushAndPullAtOnce(t *testing.T) {
	a, b := layered("1", "a", "b", "c"), layered("1", "a", "d")
	dir := t.TempDir()
	pushers := []Exporter{newClassic(a).connect(t), newClassic(b).connect(t)}
	mustPush(t, pushers[0], remoteIn(t, dir), "much:1")
	rounds := 20
	var wg sync.WaitGroup
	pushed := make(chan struct{})
	wg.Go(func() {
		defer close(pushed)
		r := remoteIn(t, dir)
		for i := range 2 * rounds {
			if _, err := Push(t.Context(), pushers[i%2], r, pushes(t, "much:1"), Options{}); err != nil {
				t.Errorf("push %d: %v", i, err)
			}
		}
	})
	seen := map[string]int{}
	to := newClassic()
	client, r := to.connect(t), remoteIn(t, dir)
	for pulled := 0; ; pulled++ {
		select {
		case <-pushed:
			if pulled < rounds {
				break
			}
			wg.Wait()
			t.Logf("pulled %v", seen)
			return
		default:
		}
		results, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{})
		if err != nil {
			t.Fatalf("pull %d: %v", pulled, err)
		}
		id := results[0].ID.String()
		seen[id]++
		if id != a.ID() && id != b.ID() {
			t.Errorf("pulled %s", id)
		}
		if pulled%2 == 0 {
			to.mu.Lock()
			clear(to.images)
			to.mu.Unlock()
		}
	}
}

// TestManyPullsAtOnce: into one engine, from one remote. All succeed, and the engine has each image once.
func TestManyPullsAtOnce(t *testing.T) {
	m := layered("1", "a", "b", "c")
	r := stocked(t, m)
	e := newClassic()
	client := e.connect(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			images := []PullImage{{reference(t, "much:1"), reference(t, fmt.Sprintf("such:%d", i))}}
			if _, err := Pull(t.Context(), r, client, images, Options{}); err != nil {
				t.Errorf("pull %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if names := e.names(); len(names) != 8 {
		t.Errorf("the engine has %q", names)
	}
}
