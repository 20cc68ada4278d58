package transfer

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TestRealParts: a real engine gets the image whole, with nothing beside it, whatever the pieces and whatever it has; without
// -every a third of all pairs of these. TestPartsOfAnyImage has all of them.
func TestRealParts(t *testing.T) { eachEngine(t, testRealParts) }

func testRealParts(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("in-parts", "a", "b", "c", "d", "e", "f").Step("ENV such=image").Entrypoint("/a")
	twice := enginetest.TroubleNamed("same-layer-twice").Image
	size := m.Layers()[0].Size()
	for _, c := range []struct {
		m      *enginetest.Image
		pieces []int64
	}{{m, []int64{1, size + 1, 3 * size, 1 << 40}}, {twice, []int64{1}}, {enginetest.TroubleNamed("empty-layers").Image, []int64{1}}} {
		r, name := stocked(t, c.m), c.m.Tags()[0]
		if testing.Short() {
			c.pieces = c.pieces[:1]
		}
		step := 3
		if *every {
			step = 1
		}
		for i, piece := range c.pieces {
			for held := i % step; held < len(c.m.Layers()); held += step {
				base := enginetest.NewImage().Tag("much:base").Add(c.m.Layers()[:held]...).Step("ENV such=base")
				if held > 0 {
					loadImage(t, e, base)
				}
				before := listedImages(t, e)
				client.loads = 0
				results, err := Pull(t.Context(), r, client, pulls(t, name), Options{piece: piece})
				if err != nil || results[0].ID.String() != c.m.ID() {
					t.Fatalf("piece %d, %d held: %+v, error %v", piece, held, results, err)
				}
				if piece == 1 && c.m == m && client.loads != len(c.m.Layers())-held {
					t.Errorf("piece %d, %d held: %d loads", piece, held, client.loads)
				}
				want := slices.Sorted(slices.Values(append(slices.Clone(before), name+" "+c.m.ID())))
				if got := listedImages(t, e); !slices.Equal(got, want) {
					t.Errorf("piece %d, %d held: the engine has %q, want %q", piece, held, got, want)
				}
				saved, err := e.Saved(t.Context(), name)
				if err == nil {
					err = saved.Check(c.m)
				}
				if err != nil {
					t.Errorf("piece %d, %d held: %v", piece, held, err)
				}
				checkPushedAgain(t, client, name, c.m)
				remove(t, e, c.m.ID())
				if held > 0 {
					remove(t, e, base.ID())
				}
			}
		}
	}
}

// TestRealPartsDamage: a layer damaged in the remote, in whichever part, leaves nothing in a real engine.
func TestRealPartsDamage(t *testing.T) { eachEngine(t, testRealPartsDamage) }

func testRealPartsDamage(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("damaged-part", "part-a", "part-b", "part-c", "part-d")
	pusher := newClassic(m).connect(t)
	before := listed(t, e)
	for k, l := range m.Layers() {
		dir := t.TempDir()
		r := remoteIn(t, dir)
		mustPush(t, pusher, r, "much:damaged-part")
		bad := image.DigestOf(l.Bytes())
		if err := flipByte(filepath.Join(dir, "images", bad.Hex(), "layer.tar.lz4")); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err := Pull(t.Context(), r, client, pulls(t, "much:damaged-part"), inParts)
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), bad.Short()) {
				t.Errorf("part %d: error %v", k+1, err)
			}
			if after := listed(t, e); after != before {
				t.Fatalf("part %d: the engine has\n%s, had\n%s", k+1, after, before)
			}
		}
	}
}

// TestRealAfterAKill: a real engine goes on from the stacks that a killed pull has left, and then has none of them; also
// where the image itself was left.
func TestRealAfterAKill(t *testing.T) { oneEngine(t, testRealAfterAKill) }

func testRealAfterAKill(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("killed", "killed-a", "killed-b", "killed-c", "killed-d")
	r := stocked(t, m)
	before := listed(t, e)
	for done := 1; done <= 4; done++ {
		p := &pull{from: r, to: client, o: inParts.withDefaults(), image: pulls(t, "much:killed")[0]}
		if err := p.resolve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.send(t.Context(), p.parts(image.Distinct(p.order))[:done]); err != nil { // and nothing that cleans up
			t.Fatal(err)
		}
		if n := len(listedImages(t, e)); n < done {
			t.Errorf("%d images are left of %d parts", n, done)
		}
		results, err := Pull(t.Context(), r, client, pulls(t, "much:killed"), inParts)
		if err != nil || len(moved(results[0])) != 4-done {
			t.Errorf("after %d parts: %+v, error %v", done, results, err)
		}
		remove(t, e, m.ID())
		if after := listed(t, e); after != before {
			t.Fatalf("after %d parts: the engine has\n%s, had\n%s", done, after, before)
		}
	}
}

// TestRealPartsInterrupted ends the context at random times: a rerun completes, and what is left is the image.
func TestRealPartsInterrupted(t *testing.T) { oneEngine(t, testRealPartsInterrupted) }

func testRealPartsInterrupted(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("interrupted", "int-a", "int-b", "int-c", "int-d", "int-e")
	r := stocked(t, m)
	before := listed(t, e)
	start := time.Now()
	pull := func(ctx context.Context) error {
		_, err := Pull(ctx, r, client, pulls(t, "much:interrupted"), inParts)
		return err
	}
	if err := pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	remove(t, e, m.ID())
	interrupted, rounds := 0, 6
	switch {
	case *every:
		rounds = 12
	case testing.Short():
		rounds = 4
	}
	for i := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/time.Duration(rounds+1))
		err := pull(ctx)
		cancel()
		if err != nil {
			interrupted++
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("round %d: error %v", i, err)
			}
		}
		settled(t, e)
		start := time.Now()
		if err := pull(t.Context()); err != nil {
			t.Errorf("round %d, again: %v", i, err)
		}
		whole = min(whole, time.Since(start)) // the machine may have been busier before
		remove(t, e, m.ID())
		if after := listed(t, e); after != before {
			t.Fatalf("round %d: the engine has\n%s, had\n%s", i, after, before)
		}
	}
	if interrupted == 0 { // how many is a matter of the machine
		t.Error("none was interrupted")
	}
}

// settled waits until the engine has ended what it had whole of who has gone. Where its directory can be seen, archives that
// it is unpacking are seen there.
func settled(t *testing.T, e *enginetest.Engine) {
	t.Helper()
	time.Sleep(300 * time.Millisecond)
	if !e.Private() {
		return
	}
	var left []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if left, err = filepath.Glob(filepath.Join(e.DataRoot(), "tmp", "docker-import-*")); err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("it is unpacking %q, and nobody waits for them", left)
}

// TestRealPartsAtOnce: two pulls of one image on one real engine.
func TestRealPartsAtOnce(t *testing.T) { oneEngine(t, testRealPartsAtOnce) }

func testRealPartsAtOnce(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("two-pulls", "two-a", "two-b", "two-c", "two-d", "two-e")
	r := stocked(t, m)
	before := listed(t, e)
	for round := range 5 {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := Pull(t.Context(), r, client.Client, pulls(t, "much:two-pulls"), inParts); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		saved, err := e.Saved(t.Context(), "much:two-pulls")
		if err == nil {
			err = saved.Check(m)
		}
		if err != nil {
			t.Error(err)
		}
		remove(t, e, m.ID())
		if after := listed(t, e); after != before {
			t.Fatalf("round %d: the engine has\n%s, had\n%s", round, after, before)
		}
	}
}

// TestRealManyParts: as many loads as an engine takes layers; with -every on Docker 20 too, and in pieces of the usual size, as
// TestRoundTrip has them.
func TestRealManyParts(t *testing.T) { eachEngine(t, testRealManyParts) }

func testRealManyParts(t *testing.T, e *enginetest.Engine, client *counted) {
	if testing.Short() {
		t.Skip("-short: 120 loads")
	}
	version, err := e.Version(t.Context())
	must(t, err)
	if strings.HasPrefix(version, "20.") && !*every {
		return // it takes five times as long there; TestRealParts has fewer
	}
	m := enginetest.TroubleNamed("layers-120")
	r := stocked(t, m.Image)
	before := listed(t, e)
	pieces := []int64{1, 0}
	if !*every {
		pieces = pieces[:1]
	}
	for _, piece := range pieces {
		start := time.Now()
		if _, err := Pull(t.Context(), r, client, pulls(t, m.Ref), Options{piece: piece}); err != nil {
			t.Fatal(err)
		}
		t.Logf("piece %d: %v", piece, time.Since(start))
		saved, err := e.Saved(t.Context(), m.Ref)
		if err == nil {
			err = saved.Check(m.Image)
		}
		if err != nil {
			t.Error(err)
		}
		remove(t, e, m.ID())
		if after := listed(t, e); after != before {
			t.Errorf("the engine has\n%s, had\n%s", after, before)
		}
	}
}
