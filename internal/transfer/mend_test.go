package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// idOf is the ID of a test image.
func idOf(t testing.TB, m *enginetest.Image) image.ID {
	t.Helper()
	id, err := image.ParseDigest(m.ID())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// lossOf is a loss of some layers of an image, and of its config where that is set.
func lossOf(t testing.TB, m *enginetest.Image, config bool, layers ...int) remote.Loss {
	t.Helper()
	loss := remote.Loss{ID: idOf(t, m), Tags: []image.Reference{reference(t, m.Tags()[0])}}
	if config {
		loss.Documents = []image.Digest{loss.ID}
	}
	for _, i := range layers {
		loss.Layers = append(loss.Layers, image.Descriptor{Digest: image.DigestOf(m.Layers()[i].Bytes()), Size: -1})
	}
	return loss
}

// overwrite damages an object without changing its size.
func overwrite(t testing.TB, store *mem.Store, key string) {
	t.Helper()
	info, err := store.Stat(t.Context(), key)
	if err == nil {
		err = store.Put(t.Context(), key, bytes.NewReader(make([]byte, info.Size)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// versions are those of all objects of a store.
func versions(t testing.TB, store *mem.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for info, err := range store.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Key] = info.Version + info.Modified.String()
	}
	return all
}

// TestMend writes again what is damaged in its right size, which a push takes for
// whole, and nothing else: no other layer that is missing, and no tag.
func TestMend(t *testing.T) {
	m, moved := layered("1", "mend-a", "mend-b", "mend-c"), layered("1", "mend-a", "mend-other")
	for _, parallel := range []int{1, 3} {
		store := mem.New()
		r := remoteOn(t, store, codec.LZ4)
		e := newClassic(m)
		client, stop := e.serve(t)
		mustPush(t, client, r, "much:1")
		whole := versions(t, store)
		e.put(moved) // and takes the tag: the image is found by its ID
		layer := func(i int) string {
			return "images/" + strings.TrimPrefix(m.Layers()[i].DiffID(), "sha256:") + "/layer.tar.lz4"
		}
		overwrite(t, store, layer(0))
		overwrite(t, store, layer(2))
		config := "images/" + idOf(t, m).Hex() + "/json"
		overwrite(t, store, config)
		must(t, store.Delete(t.Context(), layer(1))) // nobody asks for this one
		mender := &Mender{From: client, To: r, Options: Options{Parallel: parallel}}
		if err := mender.Mend(t.Context(), lossOf(t, m, true, 0, 2)); err != nil {
			t.Fatal(err)
		}
		after := versions(t, store)
		for key, version := range whole {
			changed := after[key] != version
			if want := key == layer(0) || key == layer(1) || key == layer(2) || key == config; changed != want {
				t.Errorf("%s changed: %t", key, changed)
			}
		}
		if after[layer(1)] != "" {
			t.Errorf("it writes a layer that is not said to be lost")
		}
		if id, err := r.Resolve(t.Context(), reference(t, "much:1")); err != nil || id != idOf(t, m) {
			t.Errorf("the tag names %s, %v", id, err)
		}
		if err := mender.Mend(t.Context(), lossOf(t, m, false, 1)); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, r, "much:1", m)
		stop()
	}
}

// TestMendByName finds the parts in an image that the engine has under the same
// name and another ID, as engines of another kind do.
func TestMendByName(t *testing.T) {
	m, other := layered("1", "mend-a", "mend-b"), layered("1", "mend-a", "mend-more")
	store := mem.New()
	r := remoteOn(t, store, codec.LZ4)
	first, stopFirst := newClassic(m).serve(t)
	defer stopFirst()
	mustPush(t, first, r, "much:1")
	second, stop := newClassic(other).serve(t)
	defer stop()
	for _, d := range m.Layers() {
		overwrite(t, store, "images/"+strings.TrimPrefix(d.DiffID(), "sha256:")+"/layer.tar.lz4")
	}
	mender := &Mender{From: second, To: r}
	if err := mender.Mend(t.Context(), lossOf(t, m, false, 0)); err != nil {
		t.Errorf("a layer that both have: %v", err)
	}
	err := mender.Mend(t.Context(), lossOf(t, m, false, 0, 1))
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("a layer that it does not have: %v", err)
	}
	if got := tagsOf(t, r); !slices.Equal(got, []string{"much:1"}) {
		t.Errorf("tags %q", got)
	}
	empty, stopEmpty := newClassic().serve(t)
	defer stopEmpty()
	err = (&Mender{From: empty, To: r}).Mend(t.Context(), lossOf(t, m, false, 0))
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no image") {
		t.Errorf("an engine without the image: %v", err)
	}
}

// unwritable refuses all writes.
type unwritable struct {
	remote.Remote
	err error
}

func (u unwritable) PutLayer(context.Context, image.Descriptor, io.Reader) (remote.Layer, error) {
	return remote.Layer{}, u.err
}

func (u unwritable) PutDocument(context.Context, []byte) error { return u.err }

// TestMendFails tells whose failure it is.
func TestMendFails(t *testing.T) {
	m := layered("1", "mend-a", "mend-b")
	client, stop := newClassic(m).serve(t)
	defer stop()
	store := mem.New()
	r := remoteOn(t, store, codec.LZ4)
	full := fault.New(fault.Other, "no space left")
	for _, loss := range []remote.Loss{lossOf(t, m, false, 0, 1), lossOf(t, m, true)} {
		err := (&Mender{From: client, To: unwritable{r, full}}).Mend(t.Context(), loss)
		if !errors.Is(err, full) || fault.Is(err, fault.NotFound) {
			t.Errorf("a remote that is full: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Mender{From: client, To: r}).Mend(ctx, lossOf(t, m, false, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	bad := newClassic(m)
	wrong, stopWrong := bad.serve(t)
	defer stopWrong()
	for _, i := range bad.images {
		i.layers[0] = bytes.Repeat([]byte("x"), len(i.layers[0]))
	}
	err := (&Mender{From: wrong, To: r}).Mend(t.Context(), lossOf(t, m, false, 0))
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("an engine that gives wrong bytes: %v", err)
	}
	if got := versions(t, store); len(got) > 0 {
		t.Errorf("it wrote %v", got)
	}
}
