package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestRecompressFollows: a tag that moves meanwhile gives the image that it names then, as that is.
func TestRecompressFollows(t *testing.T) {
	from, to := newStock(t), mem.New()
	_, index := packedImage(t, from)
	next, err := from.Resolve(t.Context(), reference(t, "app:1"))
	must(t, err)
	blob := "images/" + mustDigest(t, index.Blobs[0]).Hex() + "/blob"
	trap := &trapped{Store: from.store, key: blob, act: func() {
		must(t, from.Tag(t.Context(), reference(t, "packed:1"), next))
		must(t, from.store.Delete(t.Context(), blob))
	}}
	done, err := Copy(t.Context(), remoteOn(t, trap, codec.LZ4), remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), anew)
	if err != nil || done.Images[0].ID != next || len(done.Images[0].Layers) != 2 {
		t.Errorf("%+v, error %v", done, err)
	}
	if got, err := remoteOn(t, to, codec.LZ4).Resolve(t.Context(), reference(t, "packed:1")); err != nil || got != next {
		t.Errorf("the tag names %s, error %v", got, err)
	}
}

// TestRecompressMends: a layer that vanishes from the target before the tag is unpacked again.
func TestRecompressMends(t *testing.T) {
	from, to := newStock(t), mem.New()
	m, _ := packedImage(t, from)
	layer := "images/" + mustDigest(t, m.DiffIDs()[0]).Hex() + "/layer.tar.lz4"
	target := &hooked{Target: remoteOn(t, to, codec.LZ4)}
	target.beforeTag = func(ctx context.Context, _ image.ID) {
		if target.tagged == 0 {
			must(t, to.Delete(ctx, layer))
		}
	}
	done, err := Copy(t.Context(), from, target, copies(t, "packed:1"), anew)
	if err != nil || target.tagged != 2 || len(moved(done.Images[0])) != 3 {
		t.Errorf("tagged %d times: %+v, error %v", target.tagged, done, err)
	}
	checkAnew(t, to, "packed:1", m, ".lz4")
}

// TestRecompressExported: what an export has compressed is unpacked on its way; whatever is wrong with it is told as what it
// is, and stores nothing.
func TestRecompressExported(t *testing.T) {
	m := layered("x", "exported")
	layer, trouble := mustDigest(t, m.DiffIDs()[0]), errors.New("much trouble")
	for _, c := range []enginetest.Compression{enginetest.Gzip, enginetest.Zstd} {
		blob := c.Pack(m.Layers()[0].Bytes())
		for what, body := range map[string]io.Reader{
			"right":         bytes.NewReader(blob),
			"cut":           bytes.NewReader(blob[:len(blob)/2]),
			"another layer": bytes.NewReader(c.Pack(layered("x", "wrong").Layers()[0].Bytes())),
			"broken off":    io.MultiReader(bytes.NewReader(blob[:len(blob)/2]), iotest.ErrReader(trouble)),
		} {
			to := mem.New()
			p := &push{
				to: remoteOn(t, to, codec.LZ4), o: Options{}.withDefaults(), layers: map[image.Digest]*LayerResult{layer: {Digest: layer}},
				blobs: &blobs{unpack: unpacking{layer: image.DigestOf(blob)}},
			}
			g, ctx := errgroup.WithContext(t.Context())
			err := p.put(ctx, g, engine.Item{Digest: image.DigestOf(blob), Media: image.UnknownMediaType, Size: int64(len(blob)), Body: body}, func() {})
			if stored := g.Wait(); err == nil {
				err = stored
			}
			keys := layerKeys(keysOf(t, to))
			switch {
			case what == "right":
				if err != nil || !slices.Equal(keys, []string{"images/" + layer.Hex() + "/layer.tar.lz4"}) || !p.layers[layer].Moved {
					t.Errorf("%s: stored %q, error %v", c, keys, err)
				}
			case len(keys) > 0, errors.Is(err, trouble) != (what == "broken off"), fault.Is(err, fault.Damaged) != (what != "broken off"):
				t.Errorf("%s, %s: stored %q, error %v", c, what, keys, err)
			}
		}
	}
}

// TestRecompressMispacked: what is not in a blob that the config says is, or cannot be unpacked, is stored nowhere.
func TestRecompressMispacked(t *testing.T) {
	right, registry := layered("x", "right"), registryAt(t, registrytest.Start(t, registrytest.Options{}).Host, "", client.Gzip)
	for what, blob := range map[string][]byte{
		"another layer": enginetest.Gzip.Pack(layered("x", "wrong").Layers()[0].Bytes()),
		"cut":           enginetest.Gzip.Pack(right.Layers()[0].Bytes())[:100],
		"no gzip":       bytes.Repeat([]byte("wrong"), 300),
		"two layers":    enginetest.Gzip.Pack(right.Layers()[0].Bytes()),
	} {
		var l enginetest.Layout
		n := l.ImageOf(right.Config(), enginetest.Gzip, blob)
		if what == "two layers" {
			n = l.ImageOf(layered("x", "right", "wrong").Config(), enginetest.Gzip, blob, blob)
		}
		from, to := layoutOf(t, l.Archive(n, "much:1")), mem.New()
		_, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), copies(t, "much:1"), anew)
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "much:1") || !strings.Contains(err.Error(), image.DigestOf(blob).Short()) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := Copy(t.Context(), from, registry, copies(t, "much:1"), anew); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), image.DigestOf(blob).Short()) {
			t.Errorf("%s, to a registry: %v", what, err)
		}
		if keys := keysOf(t, to); slices.ContainsFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "run/") }) {
			t.Errorf("%s: stored %q", what, keys)
		}
	}
}

// layoutOf unpacks an archive, and reads it as a layout.
func layoutOf(t *testing.T, archive []byte) remote.Source {
	t.Helper()
	dir := t.TempDir()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		path := filepath.Join(dir, h.Name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		var content []byte
		if err == nil && h.Typeflag == tar.TypeReg {
			content, err = io.ReadAll(r)
			err = errors.Join(err, os.WriteFile(path, content, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return layoutIn(t, dir)
}

// TestRecompressSourceDamaged: a blob that is not as it was built is told by where it lies, and not as one that nobody could
// unpack, wherever it is damaged.
func TestRecompressSourceDamaged(t *testing.T) {
	from := newStock(t)
	_, index := packedImage(t, from)
	for i, d := range index.Blobs[:2] { // in gzip, and in zstd
		key := "images/" + mustDigest(t, d).Hex() + "/blob"
		was := content(t, from.store, key)
		for _, at := range []int{0, 30, len(was) - 1} {
			write(t, from.store, key, flipped(was, at))
			_, err := Copy(t.Context(), from, remoteOn(t, mem.New(), codec.LZ4), copies(t, "packed:1"), anew)
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), key) || strings.Contains(fault.AdviceOf(err), "build") {
				t.Errorf("layer %d, byte %d: %v (%s)", i, at, err, fault.AdviceOf(err))
			}
		}
		write(t, from.store, key, was)
	}
}

// TestRecompressSourceFails: what reading fails with is told as it is, and not as damage.
func TestRecompressSourceFails(t *testing.T) {
	from, to := newStock(t), mem.New()
	packedImage(t, from)
	trouble := errors.New("much trouble")
	failing := &sourceOf{from, func(context.Context, remote.Layer) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(enginetest.Gzip.Pack(make([]byte, 5000))[:20]), iotest.ErrReader(trouble))), nil
	}}
	_, err := Copy(t.Context(), failing, remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), anew)
	if !errors.Is(err, trouble) || fault.Is(err, fault.Damaged) {
		t.Errorf("error %v", err)
	}
}
