package transfer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"

	"github.com/dogestry/dogestry/internal/codec"
)

func TestPushAgainMovesNothing(t *testing.T) {
	m := layered("1", "a", "b", "c")
	e := &counted{Client: newClassic(m).connect(t)}
	dir := t.TempDir()
	r := remoteIn(t, dir)
	first := mustPush(t, e, r, "much:1")[0]
	if len(moved(first)) != 3 || e.exports != 1 || first.ID.String() != m.ID() || first.Image != "much:1" {
		t.Errorf("first push: %+v, %d exports", first, e.exports)
	}
	for _, l := range first.Layers {
		if l.Size <= 0 || l.Stored <= 0 {
			t.Errorf("layer %+v", l)
		}
	}
	before := files(t, dir)
	again := mustPush(t, e, r, "much:1")[0]
	if n, _, _ := again.Moved(); n != 0 || e.exports != 1 {
		t.Errorf("second push: %d layers moved, %d exports", n, e.exports)
	}
	if n, size, stored := again.Spared(); n != 3 || size <= 0 || stored <= 0 {
		t.Errorf("second push: spared %d layers of %d bytes, %d stored", n, size, stored)
	}
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("the second push wrote: %q, before %q", after, before)
	}
	checkWhole(t, r, "much:1", m)
}

func TestPushStoresOnlyWhatIsMissing(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "b", "c")
	e := newClassic(one, two)
	target := &hooked{Target: remoteIn(t, t.TempDir())}
	client := e.connect(t)
	mustPush(t, client, target, "much:1")
	result := mustPush(t, client, target, "much:2")[0]
	top := image.DigestOf(two.Layers()[2].Bytes())
	if got := moved(result); !slices.Equal(got, []string{top.Short()}) {
		t.Errorf("moved %q", got)
	}
	if !slices.Equal(target.layers[2:], []image.DiffID{top}) || target.documents != 2 {
		t.Errorf("stored layers %v, %d documents", target.layers, target.documents)
	}
}

func TestPushSeveral(t *testing.T) {
	one, two, three := layered("1", "a", "b"), layered("2", "a", "c"), layered("3", "a", "b")
	three.Step("ENV such=config")
	target := &hooked{Target: remoteIn(t, t.TempDir())}
	results := mustPush(t, newClassic(one, two, three).connect(t), target, "much:1", "much:2", "much:3")
	if len(results) != 3 || len(target.layers) != 3 || target.documents != 3 {
		t.Errorf("%d results, layers %v, %d documents", len(results), target.layers, target.documents)
	}
	for i, m := range []string{one.ID(), two.ID(), three.ID()} {
		if results[i].ID.String() != m {
			t.Errorf("result %d is %s", i, results[i].ID)
		}
	}
}

// TestPushFailsBeforeAnythingMoves: all names are looked up first.
func TestPushFailsBeforeAnythingMoves(t *testing.T) {
	e := &counted{Client: newClassic(layered("1", "a")).connect(t)}
	store := mem.New()
	_, err := Push(t.Context(), e, remoteOn(t, store, codec.LZ4), pushes(t, "much:1", "much:2"), Options{})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "much:2") || !strings.Contains(fault.AdviceOf(err), "much:1") {
		t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
	}
	if keys := keysOf(t, store); len(keys) > 0 || e.exports > 0 {
		t.Errorf("stored %q, %d exports", keys, e.exports)
	}
}

func keysOf(t testing.TB, s storage.Store) (keys []string) {
	t.Helper()
	for info, err := range s.List(context.WithoutCancel(t.Context()), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// TestPushStopsAtTheFirstFailure, and says what was done before it.
func TestPushStopsAtTheFirstFailure(t *testing.T) {
	none := layered("none")
	e := newClassic(layered("1", "a"), none, layered("3", "c"))
	r := remoteIn(t, t.TempDir())
	results, err := Push(t.Context(), e.connect(t), r, pushes(t, "much:1", "much:none", "much:3"), Options{})
	if len(results) != 1 || !errors.Is(err, engine.ErrUnexportable) || !fault.Is(err, fault.Refused) {
		t.Errorf("%d results, error %v", len(results), err)
	}
	if tags := tagsOf(t, r); !slices.Equal(tags, []string{"much:1"}) {
		t.Errorf("tags %q", tags)
	}
}

func TestPushDryRun(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "c")
	c := newClassic(one, two)
	e := &counted{Client: c.connect(t)}
	dir := t.TempDir()
	r := remoteIn(t, dir)
	mustPush(t, e, r, "much:1")
	before, changed := files(t, dir), c.changed
	results, err := Push(t.Context(), e, r, pushes(t, "much:2"), Options{DryRun: true})
	if err != nil || len(moved(results[0])) != 1 || !results[0].DryRun || results[0].Layers[1].Size != -1 {
		t.Errorf("%+v, error %v", results, err)
	}
	if after := files(t, dir); !slices.Equal(before, after) || e.exports != 1 || c.changed != changed {
		t.Errorf("changed something: %q", after)
	}
}

func TestPushAs(t *testing.T) {
	m := layered("1", "a")
	r := remoteIn(t, t.TempDir())
	as := reference(t, "localhost:5000/other/name:2.0")
	results, err := Push(t.Context(), newClassic(m).connect(t), r, []PushImage{{Source: "much:1", Target: as}}, Options{})
	if err != nil || results[0].Image != as.String() {
		t.Fatalf("%+v, error %v", results, err)
	}
	if tags := tagsOf(t, r); !slices.Equal(tags, []string{as.String()}) {
		t.Errorf("tags %q", tags)
	}
	checkWhole(t, r, as.String(), m)
}

// TestPushOfWrongBytes: an engine that gives other bytes than it says is found out, and no tag comes of it.
func TestPushOfWrongBytes(t *testing.T) {
	m := layered("1", "a", "b", "c")
	layer := image.DigestOf(m.Layers()[1].Bytes())
	config := image.DigestOf(m.Config())
	is := func(name string, d image.Digest) bool { return strings.HasSuffix(name, d.Hex()) }
	for what, c := range map[string]struct {
		spoil func(name string, content []byte) []byte
		want  string
	}{
		"a layer's byte": {func(n string, b []byte) []byte {
			if b = bytes.Clone(b); is(n, layer) {
				b[700] ^= 1
			}
			return b
		}, "layer " + layer.Short()},
		"a layer's last byte": {func(n string, b []byte) []byte {
			if b = bytes.Clone(b); is(n, layer) {
				b[len(b)-1] ^= 1
			}
			return b
		}, "layer " + layer.Short()},
		"an empty layer": {func(n string, b []byte) []byte {
			if is(n, layer) {
				return []byte{}
			}
			return b
		}, "layer " + layer.Short()},
		"more layer": {func(n string, b []byte) []byte {
			if is(n, layer) {
				return append(bytes.Clone(b), 0)
			}
			return b
		}, "layer " + layer.Short()},
		"no layer": {func(n string, b []byte) []byte {
			if is(n, layer) {
				return nil
			}
			return b
		}, "lacks layer " + layer.Short()},
		"the config": {func(n string, b []byte) []byte {
			if is(n, config) {
				return bytes.Replace(b, []byte("PATH"), []byte("HTAP"), 1)
			}
			return b
		}, "config"},
		"a huge config": {func(n string, b []byte) []byte {
			if is(n, config) {
				return append(bytes.Clone(b), make([]byte, 2*image.MaxDocument)...)
			}
			return b
		}, "config"},
		"no config": {func(n string, b []byte) []byte {
			if is(n, config) {
				return nil
			}
			return b
		}, "lacks its config"},
	} {
		t.Run(what, func(t *testing.T) {
			e := newClassic(m)
			client := e.connect(t)
			e.spoil = c.spoil
			store := mem.New()
			r := remoteOn(t, store, codec.LZ4)
			_, err := Push(t.Context(), client, r, pushes(t, "much:1"), Options{})
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "much:1") {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if strings.Contains(what, "layer") && slices.ContainsFunc(keysOf(t, store), func(k string) bool { return strings.Contains(k, layer.Hex()) }) {
				t.Errorf("stored it: %q", keysOf(t, store))
			}
			if tags := tagsOf(t, r); len(tags) > 0 {
				t.Errorf("tags %q", tags)
			}
			e.now(func() { e.spoil = nil })
			mustPush(t, client, r, "much:1")
			checkWhole(t, r, "much:1", m)
		})
	}
}

// TestPushMends: what vanishes from the remote while it is pushed is written again, and what keeps vanishing is told.
func TestPushMends(t *testing.T) {
	m := layered("1", "a", "b", "c")
	layer, config := image.DigestOf(m.Layers()[1].Bytes()), image.DigestOf(m.Config())
	for what, ids := range map[string][]image.Digest{"a layer": {layer}, "the config": {config}, "both": {layer, config}} {
		for _, times := range []int{1, mendings, mendings + 1} {
			rounds := times // Tag cannot tell which layers are missing before the config is there again
			if len(ids) == 2 {
				if times == mendings {
					continue
				}
				rounds = 2 * times
			}
			store := mem.New()
			r := remoteOn(t, store, codec.Zstd)
			target := &hooked{Target: r}
			left := times
			target.beforeTag = func(ctx context.Context, _ image.ID) {
				if left--; left < 0 {
					return
				}
				for _, id := range ids {
					if err := store.Delete(ctx, "images/"+id.Hex()+"/json"); err != nil {
						t.Error(err)
					}
				}
			}
			results, err := Push(t.Context(), newClassic(m).connect(t), target, pushes(t, "much:1"), Options{})
			if times > mendings {
				if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "keeps vanishing") || fault.AdviceOf(err) == "" {
					t.Errorf("%s, %d times: error %v", what, times, err)
				}
				if tags := tagsOf(t, r); len(tags) > 0 {
					t.Errorf("%s, %d times: tags %q", what, times, tags)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %d times: %v", what, times, err)
				continue
			}
			if n, _, _ := results[0].Moved(); n != 3 {
				t.Errorf("%s, %d times: %d layers moved", what, times, n)
			}
			if target.tagged != rounds+1 {
				t.Errorf("%s, %d times: tagged %d times", what, times, target.tagged)
			}
			checkWhole(t, r, "much:1", m)
		}
	}
}

// TestPushMendsWhatWasThere: also what this push did not write itself, and of which it counted on being there.
func TestPushMendsWhatWasThere(t *testing.T) {
	m := layered("1", "a", "b")
	store := mem.New()
	r := remoteOn(t, store, codec.LZ4)
	client := newClassic(m).connect(t)
	mustPush(t, client, r, "much:1")
	layer := image.DigestOf(m.Layers()[0].Bytes())
	target := &hooked{Target: r}
	target.beforeTag = func(ctx context.Context, _ image.ID) {
		target.beforeTag = nil
		if err := store.Delete(ctx, "images/"+layer.Hex()+"/layer.tar.lz4"); err != nil {
			t.Error(err)
		}
	}
	result := mustPush(t, client, target, "much:1")[0]
	if got := moved(result); !slices.Equal(got, []string{layer.Short()}) {
		t.Errorf("moved %q", got)
	}
	checkWhole(t, r, "much:1", m)
}
