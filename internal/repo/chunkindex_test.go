package repo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"testing"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// older is a remote with images that were pushed without indexes.
type older struct {
	images map[string]remotetest.Image
	lz4    image.DiffID
	zstd   image.DiffID
}

func newOlder(t *testing.T, s storage.Store) older {
	t.Helper()
	one := remotetest.FileLayer(t, "lib/one", string(remotetest.Noise("one", 150<<10)))
	two := remotetest.FileLayer(t, "lib/two", string(remotetest.Noise("two", 200<<10)))
	small := remotetest.FileLayer(t, "lib/small", "small")
	plain := remotetest.FileLayer(t, "lib/plain", string(remotetest.Noise("plain", 100<<10)))
	o := older{images: map[string]remotetest.Image{
		"myapp:1": remotetest.NewImage(t, "older", one, two, small, plain),
		"other:1": remotetest.NewImage(t, "older other", one),
	}}
	img := o.images["myapp:1"]
	ids := img.DiffIDs()
	o.lz4, o.zstd = ids[0], ids[1]
	for i, c := range []codec.Codec{codec.LZ4, codec.Zstd, codec.LZ4, codec.None} {
		if err := remotetest.Put(t.Context(), openBare(t, s, c), img, remote.Closure{Layers: ids[i : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	for ref, img := range o.images {
		if _, err := remotetest.Push(t.Context(), openBare(t, s, codec.LZ4), remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// openBare opens a repository that writes no indexes.
func openBare(t *testing.T, s storage.Store, c codec.Codec) *repo.Repo {
	t.Helper()
	r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", Codec: c, NoIndex: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// check proves that all images are whole, and tells which layers have an index.
func (o older) check(t *testing.T, s storage.Store) map[image.DiffID]bool {
	t.Helper()
	r := open(t, s, codec.LZ4)
	indexed := map[image.DiffID]bool{}
	for ref, want := range o.images {
		got, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, ref))
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if diff := want.Diff(got); diff != "" {
			t.Fatalf("%s: %s", ref, diff)
		}
		layers, err := remote.Layers(t.Context(), r, want.DiffIDs())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			x, err := chunk.Read(t.Context(), func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
				return r.OpenPart(ctx, l, offset, n)
			}, l.Stored)
			if err == nil {
				indexed[l.Digest] = true
				if x.Codec != codecOf(t, l.Object) || x.Size != l.Size {
					t.Errorf("%s: the index is of %d bytes in %v", l.Object, x.Size, x.Codec)
				}
			}
		}
	}
	return indexed
}

func addIndexes(t *testing.T, s storage.Store, o repo.IndexOptions) (*repo.Indexed, error) {
	t.Helper()
	o.Parallel = 1
	return open(t, s, codec.LZ4).AddIndexes(t.Context(), o)
}

func TestAddIndexes(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "file": openDir(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			o := newOlder(t, s)
			before := tree(t, s)
			if got := o.check(t, s); len(got) > 0 {
				t.Fatalf("%v have an index", got)
			}
			done, err := addIndexes(t, s, repo.IndexOptions{DryRun: true})
			if err != nil || len(done.Written) != 2 || done.Had != 0 || done.Small != 1 || done.Plain != 1 {
				t.Errorf("a dry run: %+v, %v", done, err)
			}
			if !maps.EqualFunc(tree(t, s), before, bytes.Equal) {
				t.Error("a dry run has changed something")
			}
			if done, err = addIndexes(t, s, repo.IndexOptions{Images: []image.Reference{remotetest.Ref(t, "other:1")}}); err != nil || len(done.Written) != 1 || done.Small > 0 {
				t.Errorf("of one image: %+v, %v", done, err)
			}
			read := 0
			done, err = addIndexes(t, s, repo.IndexOptions{Layer: func(l remote.Layer) (func(int), func()) {
				return func(n int) { read += n }, func() { read -= int(l.Size) }
			}})
			if err != nil || len(done.Written) != 1 || done.Had != 1 || read != 0 {
				t.Errorf("%+v, %v, told of %d bytes too many", done, err, read)
			}
			if now := done.Written[0].Layer; now.Stored != int64(len(tree(t, s)[now.Object])) || now.Stored <= done.Written[0].Was {
				t.Errorf("stored in %d bytes, before in %d", now.Stored, done.Written[0].Was)
			}
			if got := o.check(t, s); !got[o.lz4] || !got[o.zstd] || len(got) != 2 {
				t.Errorf("%v have an index", got)
			}
			after := tree(t, s)
			for key := range after {
				if before[key] == nil { // of a lease, or a layer in another codec
					t.Errorf("%s is new", key)
				}
			}
			if done, err = addIndexes(t, s, repo.IndexOptions{}); err != nil || len(done.Written) != 0 || done.Had != 2 {
				t.Errorf("again: %+v, %v", done, err)
			}
			if !maps.EqualFunc(tree(t, s), after, bytes.Equal) {
				t.Error("again, it has changed something")
			}
			if missing, _, err := open(t, s, codec.LZ4).Missing(t.Context(), o.images["myapp:1"].Closure()); err != nil || !missing.Empty() {
				t.Errorf("a push would write %v: %v", missing, err)
			}
		})
	}
}

// TestAddIndexesKilled: whatever fails, and whatever dies, all images stay whole, and a rerun completes.
func TestAddIndexesKilled(t *testing.T) {
	count := storagetest.NewFaulty(mem.New())
	newOlder(t, count)
	prepared := len(count.Log())
	if _, err := addIndexes(t, count, repo.IndexOptions{}); err != nil {
		t.Fatal(err)
	}
	ops := len(count.Log()) - prepared
	for n := 1; n <= ops; n += 1 + ops/16 {
		for _, mode := range storagetest.Modes {
			inner := mem.New()
			o := newOlder(t, inner)
			faulty := storagetest.NewFaulty(inner)
			faulty.FailAt(n, mode)
			if r, err := repo.Open(t.Context(), faulty, repo.Options{Name: "the-remote"}); err == nil {
				done, err := r.AddIndexes(t.Context(), repo.IndexOptions{Parallel: 1})
				if err == nil && len(done.Written) != 2 {
					t.Errorf("%v operation %d: %+v is no failure", mode, n, done)
				}
			}
			o.check(t, inner)
			if _, err := addIndexes(t, inner, repo.IndexOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := o.check(t, inner); len(got) != 2 {
				t.Errorf("%v operation %d, and a rerun: %v have an index", mode, n, got)
			}
			if missing, _, err := open(t, inner, codec.LZ4).Missing(t.Context(), o.images["myapp:1"].Closure()); err != nil || !missing.Empty() {
				t.Errorf("%v operation %d, and a rerun: a push would write %v: %v", mode, n, missing, err)
			}
		}
	}
}

// TestAddIndexesUnfit: a layer whose json knows another file than the one that is there gets its index, and its json.
func TestAddIndexesUnfit(t *testing.T) {
	s := mem.New()
	o := newOlder(t, s)
	for _, id := range []image.DiffID{o.lz4, o.zstd} {
		key := "images/" + id.Hex() + "/json"
		put(t, s, key, bytes.Replace(get(t, s, key), []byte(`"storedSize":`), []byte(`"storedSize":1`), 1))
	}
	for range 2 { // at first of what has no index, then of what has one
		if missing, _, err := open(t, s, codec.LZ4).Missing(t.Context(), o.images["myapp:1"].Closure()); err != nil || missing.Empty() {
			t.Fatalf("a push would write %v: %v", missing, err)
		}
		done, err := addIndexes(t, s, repo.IndexOptions{})
		if got := o.check(t, s); err != nil || len(got) != 2 || len(done.Failed) > 0 {
			t.Errorf("%v have an index: %+v, %v", got, done, err)
		}
		if missing, _, err := open(t, s, codec.LZ4).Missing(t.Context(), o.images["myapp:1"].Closure()); err != nil || !missing.Empty() {
			t.Errorf("a push would write %v: %v", missing, err)
		}
		key := "images/" + o.lz4.Hex() + "/json"
		put(t, s, key, bytes.Replace(get(t, s, key), []byte(`"storedSize":`), []byte(`"storedSize":1`), 1))
	}
}

// TestAddIndexesDamaged: a damaged layer stays as it is, and is told; the others get their index.
func TestAddIndexesDamaged(t *testing.T) {
	s := mem.New()
	o := newOlder(t, s)
	key := "images/" + o.lz4.Hex() + "/layer.tar.lz4"
	broken := get(t, s, key)
	broken[len(broken)/2] ^= 1
	put(t, s, key, broken)
	done, err := addIndexes(t, s, repo.IndexOptions{})
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Layer.Digest != o.lz4 || len(done.Written) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if !bytes.Equal(get(t, s, key), broken) {
		t.Error("the damaged layer was written")
	}

	s = mem.New()
	o = newOlder(t, s)
	put(t, s, "images/"+o.images["other:1"].ID.Hex()+"/json", []byte("{}"))
	done, err = addIndexes(t, s, repo.IndexOptions{})
	if !fault.Is(err, fault.Partial) || done.Unread != 1 || len(done.Written) != 2 {
		t.Errorf("an image whose config is damaged: %+v, %v", done, err)
	}
}

// TestAddIndexesBlobs: a compressed layer stays as it came, and counts once though it has a diffID too.
func TestAddIndexesBlobs(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.LZ4)
	tar := remotetest.FileLayer(t, "lib/packed", string(remotetest.Noise("packed", 150<<10)))
	img := remotetest.NewImage(t, "packed", tar)
	packed := gzipped(t, tar)
	d := image.Descriptor{MediaType: gzipTar, Digest: image.DigestOf(packed), Size: int64(len(packed))}
	if _, err := r.PutLayer(t.Context(), d, bytes.NewReader(packed)); err != nil {
		t.Fatal(err)
	}
	manifest := manifestOf(img.Config, []image.Descriptor{d})
	for _, doc := range [][]byte{img.Config, manifest} {
		if err := r.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Tag(t.Context(), remotetest.Ref(t, "packed:1"), image.DigestOf(manifest)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, s)
	done, err := addIndexes(t, s, repo.IndexOptions{})
	if err != nil || done.Blobs != 1 || len(done.Written) > 0 || done.Had != 0 || !maps.EqualFunc(tree(t, s), before, bytes.Equal) {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestAddIndexesRead: who reads a layer that is replaced gets it whole.
func TestAddIndexesRead(t *testing.T) {
	s := openDir(t, t.TempDir())
	o := newOlder(t, s)
	r := open(t, s, codec.LZ4)
	layers, err := remote.Layers(t.Context(), r, []image.Digest{o.zstd})
	if err != nil {
		t.Fatal(err)
	}
	from, err := r.Open(t.Context(), layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := io.CopyN(io.Discard, from, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := addIndexes(t, s, repo.IndexOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, from); err != nil || n+1000 != layers[0].Size {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestAddIndexesUnsupported: where there are no parts it says so, and changes nothing.
func TestAddIndexesUnsupported(t *testing.T) {
	s := mem.New()
	newOlder(t, s)
	before := tree(t, s)
	_, err := addIndexes(t, whole{s}, repo.IndexOptions{})
	if !fault.Is(err, fault.Refused) || !maps.EqualFunc(tree(t, s), before, bytes.Equal) {
		t.Error(err)
	}
}

// whole is a store without ranges.
type whole struct{ storage.Store }

func (w whole) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset > 0 {
		return nil, errors.ErrUnsupported
	}
	return w.Store.Get(ctx, key, offset, length)
}

// inexact is a store that reads more than a part where its server has none.
type inexact struct{ storage.Store }

func (inexact) GetExact(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// TestOpenPartOfBlob: parts are had of a tar that lies in a blob, which may have an index. The blob itself has none, and
// neither has what is not encoded.
func TestOpenPartOfBlob(t *testing.T) {
	r := open(t, mem.New(), codec.None)
	tar := remotetest.Noise("in a blob", 1000)
	encoded := codec.Zstd.Encode(bytes.NewReader(tar))
	defer encoded.Close()
	blob, err := io.ReadAll(encoded)
	if err != nil {
		t.Fatal(err)
	}
	plain := remotetest.Noise("plain", 1000)
	for _, l := range []image.Descriptor{
		{MediaType: "application/octet-stream", Digest: image.DigestOf(blob), Size: int64(len(blob))},
		{Digest: image.DigestOf(plain), Size: int64(len(plain))},
	} {
		if _, err := r.PutLayer(t.Context(), l, bytes.NewReader(map[image.Digest][]byte{image.DigestOf(blob): blob, image.DigestOf(plain): plain}[l.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	layers, err := remote.Layers(t.Context(), r, []image.Digest{image.DigestOf(tar), image.DigestOf(blob), image.DigestOf(plain)})
	if err != nil {
		t.Fatal(err)
	}
	body, err := r.OpenPart(t.Context(), layers[0], 10, 50)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); !bytes.Equal(got, blob[10:60]) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, l := range layers[1:] {
		if _, err := r.OpenPart(t.Context(), l, 10, 50); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", l.Object, err)
		}
	}
}

// TestOpenPartExact: of a store that reads the whole for a part, parts are refused.
func TestOpenPartExact(t *testing.T) {
	s := mem.New()
	o := newOlder(t, s)
	for store, want := range map[storage.Store]error{s: nil, inexact{s}: errors.ErrUnsupported} {
		r := open(t, store, codec.LZ4)
		layers, err := remote.Layers(t.Context(), r, []image.DiffID{o.lz4})
		if err != nil {
			t.Fatal(err)
		}
		body, err := r.OpenPart(t.Context(), layers[0], 5, 5)
		if !errors.Is(err, want) {
			t.Errorf("%T: %v", store, err)
		}
		if err == nil {
			body.Close()
		}
	}
}
