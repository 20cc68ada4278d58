package transfer

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// trapped is a store in which something happens before an object is first read.
type trapped struct {
	*mem.Store
	key  string
	once sync.Once
	act  func()
}

func (w *trapped) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == w.key {
		w.once.Do(w.act)
	}
	return w.Store.Get(ctx, key, offset, length)
}

// TestImageGoesMeanwhile: an image whose tag is removed, and whose entries a
// collection deletes, while it is read is told as removed, and not as damage; one
// whose tag moves gives the image that it names then.
func TestImageGoesMeanwhile(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("1", "a", "c")
	oneID, own := mustDigest(t, one.ID()), mustDigest(t, one.DiffIDs()[1])
	ref := reference(t, "much:1")
	for place, key := range map[string]string{
		"document": "images/" + oneID.Hex() + "/json",
		"metadata": "images/" + own.Hex() + "/json",
		"layer":    "images/" + own.Hex() + "/layer.tar.lz4",
	} {
		for _, moves := range []bool{false, true} {
			for command, read := range map[string]func(from remote.Source) (id image.ID, left []string, err error){
				"copy": func(from remote.Source) (image.ID, []string, error) {
					to := remoteOn(t, mem.New(), codec.LZ4)
					done, err := Copy(t.Context(), from, to, copies(t, "much:1"), CopyOptions{})
					if err != nil {
						return image.ID{}, tagsOf(t, to), err
					}
					return done.Images[0].ID, tagsOf(t, to), nil
				},
				"pull": func(from remote.Source) (image.ID, []string, error) {
					e := newClassic()
					done, err := Pull(t.Context(), from, e.connect(t), pulls(t, "much:1"), Options{})
					if err != nil {
						return image.ID{}, e.names(), err
					}
					return done[0].ID, e.names(), nil
				},
				"pull of blobs": func(from remote.Source) (image.ID, []string, error) {
					var e blobEngine
					done, err := Pull(t.Context(), from, &e, pulls(t, "much:1"), Options{})
					if err != nil {
						return image.ID{}, e.names, err
					}
					tree, err := remote.ReadTree(t.Context(), from, done[0].ID, nil) // its manifest
					if err != nil || len(tree.Children) != 1 {
						return done[0].ID, e.names, err
					}
					return tree.Children[0].ID, e.names, nil
				},
			} {
				store := mem.New()
				r := remoteOn(t, store, codec.LZ4)
				mustPush(t, newClassic(two).connect(t), r, "much:1")
				twoID := mustDigest(t, two.ID())
				mustPush(t, newClassic(one).connect(t), r, "much:1")
				from := remoteOn(t, &trapped{Store: store, key: key, act: func() {
					err := r.Untag(t.Context(), ref, oneID)
					if moves {
						err = r.Tag(t.Context(), ref, twoID)
					}
					for _, k := range []string{oneID.Hex() + "/json", own.Hex() + "/json", own.Hex() + "/layer.tar.lz4"} {
						err = errors.Join(err, store.Delete(t.Context(), "images/"+k))
					}
					if err != nil {
						t.Error(err)
					}
				}}, codec.LZ4)
				id, left, err := read(from)
				switch what := command + ", before a " + place; {
				case moves && (err != nil || id != twoID || len(left) != 1):
					t.Errorf("%s: moved, and it gives %s, %q, error %v", what, id.Short(), left, err)
				case !moves && (fault.KindOf(err) != fault.NotFound || !errors.Is(err, remote.ErrRemoved) || !strings.Contains(err.Error(), "much:1") || len(left) != 0):
					t.Errorf("%s: removed, and it leaves %q, error %v", what, left, err)
				}
			}
		}
	}
}

// blobEngine is an engine with the containerd image store that has no layer, and
// takes all that comes.
type blobEngine struct {
	Loader
	whole bool
	names []string
}

func (*blobEngine) Kind() engine.Kind { return engine.Containerd }

func (*blobEngine) Platform() image.Platform {
	return image.Platform{OS: "linux", Architecture: "amd64"}
}

func (*blobEngine) HeldBlobs(context.Context, []image.Digest, engine.ManifestReader) (map[image.Digest]bool, error) {
	return nil, nil
}

func (*blobEngine) Remember(map[image.Digest]*image.Manifest) {}

func (*blobEngine) RemoveUntagged(context.Context, image.ID) error { return nil }

func (e *blobEngine) Has(context.Context, image.ID, ...image.Digest) (bool, error) {
	return e.whole, nil
}

func (e *blobEngine) Load(_ context.Context, archive io.Reader) ([]image.ID, error) {
	_, err := io.Copy(io.Discard, archive)
	e.whole = err == nil
	return nil, err
}

func (e *blobEngine) Tag(_ context.Context, _ image.ID, ref image.Reference) error {
	e.names = append(e.names, ref.String())
	return nil
}

// TestSharedLayerComesBack: a layer that is missing when it is first read, and is
// there again with the image that its tag names by then, is copied.
func TestSharedLayerComesBack(t *testing.T) {
	one, two := layered("1", "a", "b"), layered("1", "a", "c")
	shared := "images/" + mustDigest(t, one.DiffIDs()[0]).Hex() + "/layer.tar.lz4"
	twoID, ref := mustDigest(t, two.ID()), reference(t, "much:1")
	store := mem.New()
	r := remoteOn(t, store, codec.LZ4)
	mustPush(t, newClassic(two).connect(t), r, "much:1")
	mustPush(t, newClassic(one).connect(t), r, "much:1")
	was := content(t, store, shared)
	gone := &trapped{Store: store, key: shared, act: func() {
		if err := errors.Join(r.Tag(t.Context(), ref, twoID), store.Delete(t.Context(), shared)); err != nil {
			t.Error(err)
		}
	}}
	from := remoteOn(t, backAgain{gone, "images/" + twoID.Hex() + "/json", func() { write(t, store, shared, was) }}, codec.LZ4)
	to := remoteOn(t, mem.New(), codec.LZ4)
	done, err := Copy(t.Context(), from, to, copies(t, "much:1"), CopyOptions{})
	if err != nil || done.Images[0].ID != twoID {
		t.Errorf("%+v, error %v", done, err)
	}
}

// backAgain is a store in which something happens before each reading of an object.
type backAgain struct {
	*trapped
	before string
	act    func()
}

func (b backAgain) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == b.before {
		b.act()
	}
	return b.trapped.Get(ctx, key, offset, length)
}

// TestCopyAllOfWhatGoes: a copy of all leaves out what is removed meanwhile.
func TestCopyAllOfWhatGoes(t *testing.T) {
	store := mem.New()
	r := remoteOn(t, store, codec.LZ4)
	one := layered("1", "a", "b")
	mustPush(t, newClassic(one).connect(t), r, "much:1")
	mustPush(t, newClassic(layered("2", "a", "c")).connect(t), r, "much:2")
	own := mustDigest(t, one.DiffIDs()[1]).Hex()
	from := remoteOn(t, &trapped{Store: store, key: "images/" + own + "/layer.tar.lz4", act: func() {
		for _, key := range []string{"repositories/much/1", "images/" + own + "/layer.tar.lz4"} {
			if err := store.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		}
	}}, codec.LZ4)
	to := remoteOn(t, mem.New(), codec.LZ4)
	done, err := Copy(t.Context(), from, to, copies(t, "much:1", "much:2"), CopyOptions{All: true})
	if err != nil || len(done.Failed) > 0 || len(done.Images) != 1 {
		t.Errorf("%+v, error %v", done, err)
	}
	if tags := tagsOf(t, to); !slices.Equal(tags, []string{"much:2"}) {
		t.Errorf("copied %q", tags)
	}
}
