package repo_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const goldenIndex = "../../testdata/golden/2.0-index"

// goldenIndexImage has a layer for each codec, as small as one with an index can be: a file that is a run of its
// own, two that share one, one file of both layers, and in one of them a file that is cut.
func goldenIndexImage(t *testing.T) remotetest.Image {
	layer := func(name string) []byte {
		return remotetest.Tar(t,
			remotetest.Entry{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
			remotetest.Entry{Header: tar.Header{Name: "etc/" + name}, Content: name},
			remotetest.Entry{Header: tar.Header{Name: "etc/motd"}, Content: "so portable, much chunk\n"},
			remotetest.Entry{Header: tar.Header{Name: "lib/both"}, Content: string(remotetest.Noise("golden both", 30_000))},
			remotetest.Entry{Header: tar.Header{Name: "lib/" + name}, Content: string(remotetest.Noise("golden "+name, 36_000))},
		)
	}
	return remotetest.NewImage(t, "golden index", layer("lz4"), layer("zstd"))
}

func goldenIndexWrite(t *testing.T, s storage.Store) {
	t.Helper()
	img := goldenIndexImage(t)
	for i, c := range []codec.Codec{codec.LZ4, codec.Zstd} {
		if err := remotetest.Put(t.Context(), open(t, s, c), img, remote.Closure{Layers: img.DiffIDs()[i : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := remotetest.Push(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, "myapp:1"), img); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenIndex proves that indexes that were written are read, that what they say is so, and that the same layers
// are cut in the same chunks today.
func TestGoldenIndex(t *testing.T) {
	if *update {
		if err := os.RemoveAll(goldenIndex); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(goldenIndex, 0o755); err != nil {
			t.Fatal(err)
		}
		goldenIndexWrite(t, openDir(t, goldenIndex))
	}
	s := openDir(t, goldenIndex)
	want := goldenIndexImage(t)
	got, err := remotetest.Pull(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, "myapp:1"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := want.Diff(got); diff != "" {
		t.Fatal(diff)
	}
	now := mem.New()
	goldenIndexWrite(t, now)
	sums := map[chunk.Sum]int{}
	for i, id := range want.DiffIDs() {
		was, is := chunkIndexOf(t, s, id), chunkIndexOf(t, now, id)
		if len(was.Chunks) != 3+i || !slices.Equal(was.Chunks, is.Chunks) || !slices.Equal(was.Spans, is.Spans) {
			t.Errorf("FORMAT CHANGED: layer %d was cut in %v, and is in %v", i, was.Chunks, is.Chunks)
		}
		for _, k := range was.Chunks {
			sums[k.Sum]++
		}
	}
	if len(sums) != 6 {
		t.Errorf("of seven chunks %d differ: one is in both", len(sums))
	}
	old := tree(t, s)
	for key, content := range tree(t, now) {
		if !bytes.Equal(content, old[key]) {
			t.Errorf("%s has %d bytes today, had %d. If it is a codec that has changed, which the format allows: "+
				"go test ./internal/repo -run Golden -update", key, len(content), len(old[key]))
		}
	}
}

func chunkIndexOf(t *testing.T, s storage.Store, id image.DiffID) *chunk.Index {
	t.Helper()
	r := open(t, s, codec.LZ4)
	layers, err := remote.Layers(t.Context(), r, []image.Digest{id})
	if err != nil {
		t.Fatal(err)
	}
	x, err := chunk.Read(t.Context(), func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		return r.OpenPart(ctx, layers[0], offset, n)
	}, layers[0].Stored)
	if err != nil {
		t.Fatalf("%s: %v", layers[0].Object, err)
	}
	return x
}
