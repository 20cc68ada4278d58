package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// stocked is a remote with images.
func stocked(t testing.TB, images ...*enginetest.Image) remote.Remote {
	t.Helper()
	r := remoteOn(t, mem.New(), codec.LZ4)
	client := newClassic(images...).connect(t)
	for _, m := range images {
		mustPush(t, client, r, m.Tags()...)
	}
	return r
}

func TestPullSendsOnlyWhatIsMissing(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "b", "c")
	r := stocked(t, one, two)
	e := newClassic()
	client := &counted{Client: e.connect(t)}
	first := mustPull(t, r, client, "much:1")[0]
	if len(moved(first)) != 2 || first.ID.String() != one.ID() {
		t.Errorf("first pull: %+v", first)
	}
	all := client.bytes
	second := mustPull(t, r, client, "much:2")[0]
	top := two.Layers()[2]
	if got := moved(second); !slices.Equal(got, []string{image.DigestOf(top.Bytes()).Short()}) {
		t.Errorf("second pull: moved %q", got)
	}
	if n, most := client.bytes-all, top.Size()+16<<10; n > most {
		t.Errorf("second pull: sent %d bytes, want at most %d", n, most)
	}
	if want := []string{"much:1 " + first.ID.Short(), "much:2 " + second.ID.Short()}; !slices.Equal(e.names(), want) {
		t.Errorf("the engine has %q, want %q", e.names(), want)
	}
}

// TestPullTellsWhatIsLacking: for each image once, before its layers are opened, and also of
// an image that is there; with little read ahead the engine gets the same.
func TestPullTellsWhatIsLacking(t *testing.T) {
	one, two := layered("1", "a", "b"), heavy("2")
	r := stocked(t, one, two)
	client := newClassic(one).connect(t)
	var told []string
	results, err := Pull(t.Context(), r, client, pulls(t, "much:1", "much:2"), Options{Ahead: 1, Lacks: func(img PullImage, layers []remote.Layer) {
		var size int64
		for _, l := range layers {
			size += l.Size
		}
		told = append(told, fmt.Sprintf("%s lacks %d layers, %d bytes", img.Source, len(layers), size))
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, size, _ := results[1].Moved()
	if want := []string{"much:1 lacks 0 layers, 0 bytes", fmt.Sprintf("much:2 lacks 2 layers, %d bytes", size)}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if has, err := client.Has(t.Context(), results[1].ID); !has || err != nil {
		t.Errorf("the engine has it: %v, %v", has, err)
	}
}

// TestPullOfWhatIsThere: nothing is loaded, a tag is all.
func TestPullOfWhatIsThere(t *testing.T) {
	m := layered("1", "a", "b")
	r := stocked(t, m)
	e := newClassic(m)
	client := &counted{Client: e.connect(t)}
	results, err := Pull(t.Context(), r, client, []PullImage{{reference(t, "much:1"), reference(t, "other:2")}}, Options{})
	if err != nil || client.loads != 0 || len(moved(results[0])) != 0 || results[0].Image != "other:2" {
		t.Errorf("%+v, %d loads, error %v", results, client.loads, err)
	}
	id := results[0].ID.Short()
	if want := []string{"much:1 " + id, "other:2 " + id}; !slices.Equal(e.names(), want) {
		t.Errorf("the engine has %q, want %q", e.names(), want)
	}
}

// TestPullOfAConfigAlone: all layers are there, in another image.
func TestPullOfAConfigAlone(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "b")
	two.Step("ENV such=config")
	r := stocked(t, two)
	e := newClassic(one)
	client := &counted{Client: e.connect(t)}
	result := mustPull(t, r, client, "much:2")[0]
	if len(moved(result)) != 0 || client.loads != 1 || client.bytes > 16<<10 || result.ID.String() != two.ID() {
		t.Errorf("%+v, %d loads of %d bytes", result, client.loads, client.bytes)
	}
}

func TestPullByDigestLeavesNoTag(t *testing.T) {
	m := layered("1", "a")
	r := stocked(t, m)
	e := newClassic()
	source := reference(t, "much@"+m.ID())
	results, err := Pull(t.Context(), r, e.connect(t), []PullImage{{Source: source, Target: source}}, Options{})
	if err != nil || results[0].Image != source.String() {
		t.Fatalf("%+v, error %v", results, err)
	}
	if want := []string{"<none> " + results[0].ID.Short()}; !slices.Equal(e.names(), want) {
		t.Errorf("the engine has %q, want %q", e.names(), want)
	}
}

func TestPullSeveral(t *testing.T) {
	images := []*enginetest.Image{layered("1", "a", "b"), layered("2", "a", "c"), layered("3", "d")}
	r := stocked(t, images...)
	client := &counted{Client: newClassic().connect(t)}
	results := mustPull(t, r, client, "much:1", "much:2", "much:3")
	for i, want := range []int{2, 1, 1} {
		if n := len(moved(results[i])); n != want || results[i].ID.String() != images[i].ID() {
			t.Errorf("image %d: %d layers moved, want %d; %+v", i, n, want, results[i])
		}
	}
}

func TestPullFailsBeforeAnythingMoves(t *testing.T) {
	r := stocked(t, layered("1", "a"))
	e := newClassic()
	_, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:1", "much:2"), Options{})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "much:2") || !strings.Contains(err.Error(), remoteName) {
		t.Errorf("error %v", err)
	}
	if e.changed > 0 {
		t.Error("something was done to the engine")
	}
}

func TestPullDryRun(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("2", "a", "c")
	r := stocked(t, two)
	e := newClassic(one)
	results, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:2"), Options{DryRun: true})
	if err != nil || len(moved(results[0])) != 1 || !results[0].DryRun || results[0].Layers[1].Size <= 0 {
		t.Errorf("%+v, error %v", results, err)
	}
	if e.changed > 0 {
		t.Error("something was done to the engine")
	}
}

// TestPullFromWhatLiesAboutLayers: an engine that lacks what it seemed to have gets all, once.
func TestPullFromWhatLiesAboutLayers(t *testing.T) {
	one, two := layered("1", "a"), layered("2", "a", "b", "c")
	r := stocked(t, two)
	for held := 1; held <= 3; held++ {
		e := newClassic(one)
		client := &counted{Client: e.connect(t), held: func(_, _ int) int { return held }}
		var said recorder
		results, err := Pull(t.Context(), r, client, pulls(t, "much:2"), Options{Progress: &said})
		if err != nil {
			t.Errorf("%d said to be held: %v", held, err)
			continue
		}
		loads, layers := 2, 3
		if held == 1 { // true
			loads, layers = 1, 2
		}
		if client.loads != loads || len(moved(results[0])) != layers {
			t.Errorf("%d said to be held: %d loads, moved %q", held, client.loads, moved(results[0]))
		}
		if (len(said.notes) > 0) != (loads == 2) {
			t.Errorf("%d said to be held: told %q", held, said.notes)
		}
		if held > 1 {
			said.checkRepeated(t)
		}
	}
	e := newClassic()
	client := &counted{Client: e.connect(t), held: func(_, all int) int { return all }}
	client.load = func() error { return fmt.Errorf("%w: always", engine.ErrLacksLayer) }
	_, err := Pull(t.Context(), r, client, pulls(t, "much:2"), Options{})
	if !errors.Is(err, engine.ErrLacksLayer) || client.loads != 2 || len(e.names()) > 0 {
		t.Errorf("lacks for ever: error %v after %d loads, the engine has %q", err, client.loads, e.names())
	}
}

// TestPullLeavesNothingBehind: whatever fails, the engine has what it had.
func TestPullLeavesNothingBehind(t *testing.T) {
	m := layered("1", "a", "b")
	r := stocked(t, m)
	load, tag := "POST /images/load", "POST /images/"+m.ID()+"/tag"
	for what, c := range map[string]struct {
		prepare func(*classic)
		want    string
	}{
		"load":                   {func(e *classic) { e.deny = map[string]string{load: "much trouble"} }, "much trouble"},
		"tag":                    {func(e *classic) { e.deny = map[string]string{tag: "much trouble"} }, "much trouble"},
		"load, which says it is": {func(e *classic) { e.lies = true }, "has no image"},
		"list":                   {func(e *classic) { e.deny = map[string]string{"GET /images/json": "much trouble"} }, "much trouble"},
	} {
		e := newClassic(layered("before", "z"))
		client := e.connect(t)
		before := e.names()
		c.prepare(e)
		results, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{})
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), c.want) || len(results) > 0 {
			t.Errorf("%s: error %v", what, err)
		}
		if !slices.Equal(e.names(), before) {
			t.Errorf("%s: the engine has %q, had %q", what, e.names(), before)
		}
	}
}

// TestPullKeepsWhatWasThere: an image that the engine had without a tag is not cleaned up when its tag fails.
func TestPullKeepsWhatWasThere(t *testing.T) {
	m := layered("1", "a")
	r := stocked(t, m)
	e := newClassic()
	e.keep(m.Config(), [][]byte{m.Layers()[0].Bytes()})
	before := e.names()
	client := e.connect(t)
	e.deny = map[string]string{"POST /images/" + m.ID() + "/tag": "much trouble"}
	if _, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{}); err == nil {
		t.Error("no error")
	}
	if !slices.Equal(e.names(), before) {
		t.Errorf("the engine has %q, had %q", e.names(), before)
	}
}

// TestTagComesLast: when an engine gets its tag, it has the image, and when a remote does, so has that.
func TestTagComesLast(t *testing.T) {
	m := layered("1", "a", "b", "c")
	client := newClassic(m).connect(t)
	r := remoteOn(t, mem.New(), codec.None)
	target := &hooked{Target: r}
	mustPush(t, client, target, "much:1")
	if target.tagged != 1 || target.documents != 1 || len(target.layers) != 3 {
		t.Errorf("%d tags, %d documents, %d layers", target.tagged, target.documents, len(target.layers))
	}
	e := newClassic()
	watched := &tagWatch{Client: e.connect(t)}
	mustPull(t, r, watched, "much:1")
	if watched.tagged != 1 || watched.early {
		t.Errorf("tagged %d times, before the image was there: %v", watched.tagged, watched.early)
	}
}

// tagWatch notes whether the engine had the image when it was to be tagged.
type tagWatch struct {
	*engine.Client
	tagged int
	early  bool
}

func (w *tagWatch) Tag(ctx context.Context, id image.ID, ref image.Reference) error {
	w.tagged++
	has, err := w.Has(ctx, id)
	w.early = w.early || !has || err != nil
	return w.Client.Tag(ctx, id, ref)
}
