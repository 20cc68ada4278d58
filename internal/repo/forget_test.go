package repo_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// removals notes what is deleted.
type removals struct {
	*mem.Store
	keys []string
}

func (d *removals) Delete(ctx context.Context, key string) error {
	d.keys = append(d.keys, key)
	return d.Store.Delete(ctx, key)
}

// TestForget: an entry goes as a whole, its json first, and stays where it is younger
// than the caller knows.
func TestForget(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &removals{Store: mem.New()}
	s.Now = func() time.Time { return now }
	r := open(t, s, codec.LZ4)
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"))
	if err := remotetest.Put(t.Context(), r, img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	layer := img.DiffIDs()[0]
	if gone, err := r.Forget(t.Context(), layer, now.Add(-time.Second)); err != nil || gone || len(s.keys) > 0 {
		t.Errorf("a younger one is gone: %t, %v; deleted %q", gone, err, s.keys)
	}
	if gone, err := r.Forget(t.Context(), layer, now); err != nil || !gone {
		t.Errorf("gone: %t, %v", gone, err)
	}
	entry := "images/" + layer.Hex() + "/"
	if want := []string{entry + "json", entry + "layer.tar.lz4", entry + "VERSION"}; !slices.Equal(s.keys, want) {
		t.Errorf("deleted %q, not %q", s.keys, want)
	}
	if gone, err := r.Forget(t.Context(), img.ID, time.Time{}); err != nil || !gone {
		t.Errorf("gone: %t, %v", gone, err)
	}
	if gone, err := r.Forget(t.Context(), img.ID, time.Time{}); err != nil || !gone {
		t.Errorf("one that is not there: %t, %v", gone, err)
	}
	for e := range r.Entries(t.Context()) {
		t.Errorf("%s is left", e.ID)
	}
}

// TestTouch: an entry becomes the youngest.
func TestTouch(t *testing.T) {
	dir := t.TempDir()
	r := open(t, openDir(t, dir), codec.LZ4)
	one, two := remotetest.NewImage(t, "one"), remotetest.NewImage(t, "two")
	for _, img := range []remotetest.Image{one, two} {
		if err := remotetest.Put(t.Context(), r, img, img.Closure()); err != nil {
			t.Fatal(err)
		}
	}
	modified := func(id image.Digest) time.Time {
		for e, err := range r.Entries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if e.ID == id {
				return e.Modified
			}
		}
		t.Fatal("it is gone")
		return time.Time{}
	}
	for !modified(one.ID).After(modified(two.ID)) { // clocks tick in milliseconds
		if err := r.Touch(t.Context(), one.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.Document(t.Context(), one.ID); err != nil || !slices.Equal(got, one.Config) {
		t.Errorf("then it is %q, %v", got, err)
	}
	if err := open(t, mem.New(), codec.LZ4).Touch(t.Context(), one.ID); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("in a store that cannot: %v", err)
	}
}

// TestOpenDecoded gives what Open gives, and proves nothing.
func TestOpenDecoded(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.LZ4)
	tar := remotetest.FileLayer(t, "a", "a")
	img := remotetest.NewImage(t, "app", tar)
	if err := remotetest.Put(t.Context(), r, img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	layers, err := remote.Layers(t.Context(), r, img.DiffIDs())
	if err != nil {
		t.Fatal(err)
	}
	wrong := remotetest.FileLayer(t, "b", "b")
	put(t, s, layers[0].Object, encode(t, codec.LZ4, wrong))
	body, err := r.OpenDecoded(t.Context(), layers[0])
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || !slices.Equal(got, wrong) {
		t.Errorf("%q, %v", got, err)
	}
}
