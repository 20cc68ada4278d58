package repo_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// unknown is a layer of which nobody has said what it is.
func unknown(b []byte) image.Descriptor {
	return image.Descriptor{MediaType: image.UnknownMediaType, Digest: image.DigestOf(b), Size: int64(len(b))}
}

// TestGuess: what nobody has said anything of is stored by its first bytes, and comes out as it came.
func TestGuess(t *testing.T) {
	tar := remotetest.FileLayer(t, "file", strings.Repeat("content ", 1000))
	gnu := bytes.Clone(tar)
	copy(gnu[257:], "ustar  \x00")
	for name, c := range map[string]struct {
		body []byte
		file string
		tar  bool // it is found as the tar in it too
	}{
		"a tar":                {tar, "layer.tar.lz4", false},
		"a GNU tar":            {gnu, "layer.tar.lz4", false},
		"a tar without files":  {make([]byte, 1024), "layer.tar.lz4", false},
		"a longer one":         {make([]byte, 10240), "layer.tar.lz4", false},
		"less than that":       {make([]byte, 1023), "blob", false},
		"zeros and more":       {append(make([]byte, 1023), 1), "blob", false},
		"a tar's first block":  {tar[:512], "layer.tar.lz4", false},
		"less than a block":    {tar[:511], "blob", false},
		"nothing":              {nil, "blob", false},
		"a gzip":               {gzipped(t, tar), "blob", true},
		"a zstd":               {encode(t, codec.Zstd, tar), "blob", true},
		"an SBOM":              {[]byte(`{"sbom":1}`), "blob", false},
		"noise":                {remotetest.Noise("noise", 200_000), "blob", false},
		"the magic, elsewhere": {append([]byte("ustar"), make([]byte, 2000)...), "blob", false},
	} {
		s := mem.New()
		r := open(t, s, codec.LZ4)
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
			restore(t, s, nil)
			stored, err := r.PutLayer(t.Context(), unknown(c.body), wrap(bytes.NewReader(c.body)))
			if err != nil || stored.Size != int64(len(c.body)) || !strings.HasSuffix(stored.Object, "/"+c.file) {
				t.Errorf("%s: stored as %+v, %v", name, stored, err)
				continue
			}
			asked := []image.Digest{image.DigestOf(c.body)}
			if c.tar {
				asked = append(asked, image.DigestOf(tar))
			}
			layers, err := remote.Layers(t.Context(), r, asked)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for i, want := range [][]byte{c.body, tar}[:len(asked)] {
				if got, err := remotetest.Read(t.Context(), r, layers[i]); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes come back, %v", name, len(got), err)
				}
			}
		}
		// What breaks, or is something else, is not stored.
		restore(t, s, nil)
		errBroken := errors.New("it broke")
		for _, at := range []int{0, len(c.body) / 2, len(c.body)} {
			if _, err := r.PutLayer(t.Context(), unknown(c.body), io.MultiReader(bytes.NewReader(c.body[:at]), iotest.ErrReader(errBroken))); !errors.Is(err, errBroken) {
				t.Errorf("%s, broken at %d: %v", name, at, err)
			}
		}
		var wrong *image.MismatchError
		if _, err := r.PutLayer(t.Context(), unknown(c.body), bytes.NewReader(append(bytes.Clone(c.body), 0))); !errors.As(err, &wrong) {
			t.Errorf("%s, a byte too long: %v", name, err)
		}
		if left := keys(t, s, ""); len(left) > 0 {
			t.Errorf("%s: left is %q", name, left)
		}
	}
}

// TestAdopt: what a manifest names as its config and has come as a layer, or the other way round, is there as both.
func TestAdopt(t *testing.T) {
	sbom := []byte(`{"sbom":1}`)
	artifact := func(config, layer []byte) []byte {
		return manifestOf(config, []image.Descriptor{{MediaType: "application/spdx+json", Digest: image.DigestOf(layer), Size: int64(len(layer))}})
	}
	s := mem.New()
	r := open(t, s, codec.LZ4)
	ours, end := remote.Begin(r, nil)
	defer end(t.Context())
	adopt := func(manifest []byte) remote.Closure {
		t.Helper()
		m, err := image.ParseManifest(manifest)
		if err != nil {
			t.Fatal(err)
		}
		missing, err := remote.Adopt(t.Context(), r, ours, m)
		if err != nil {
			t.Fatal(err)
		}
		return missing
	}
	add := func(manifest []byte) {
		t.Helper()
		if missing := adopt(manifest); !missing.Empty() {
			t.Errorf("missing is %v", missing)
		}
		if err := ours.PutDocument(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		if err := ours.(remote.Memberships).Add(t.Context(), "app", image.DigestOf(manifest)); err != nil {
			t.Fatal(err)
		}
	}

	// The SBOM as a layer, its config a blob too.
	asLayer, asConfig := artifact(remotetest.EmptyConfig, sbom), artifact(sbom, remotetest.EmptyConfig)
	want := remote.Closure{Documents: []image.Digest{image.DigestOf(remotetest.EmptyConfig)}, Layers: []image.Digest{image.DigestOf(sbom)}}
	if diff := cmp.Diff(want, adopt(asLayer)); diff != "" {
		t.Errorf("of nothing is missing (-want +got):\n%s", diff)
	}
	for _, blob := range [][]byte{remotetest.EmptyConfig, sbom} {
		if _, err := ours.PutLayer(t.Context(), unknown(blob), bytes.NewReader(blob)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ours.(remote.Memberships).Add(t.Context(), "app", image.DigestOf(asLayer)); err == nil {
		t.Error("a manifest that is not there is added")
	}
	add(asLayer)
	add(asConfig) // the same two, each as the other one
	for _, blob := range [][]byte{remotetest.EmptyConfig, sbom} {
		id := image.DigestOf(blob)
		if doc, err := r.Document(t.Context(), id); err != nil || !bytes.Equal(doc, blob) {
			t.Errorf("the document %s is %q, %v", blob, doc, err)
		}
		layers, err := remote.Layers(t.Context(), r, []image.Digest{id})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := remotetest.Read(t.Context(), r, layers[0]); err != nil || !bytes.Equal(got, blob) {
			t.Errorf("the layer %s is %q, %v", blob, got, err)
		}
	}

	// A document that no blob came of: what a push has stored is named as a layer.
	doc := []byte(`{"of":"a push"}`)
	if err := ours.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	add(artifact(sbom, doc))
	end(t.Context())

	// One of them goes, and what the others need stays.
	if err := r.Remove(t.Context(), "app", image.DigestOf(asLayer)); err != nil {
		t.Fatal(err)
	}
	collect(t, s, repo.CollectOptions{})
	for _, id := range []image.Digest{image.DigestOf(asConfig), image.DigestOf(artifact(sbom, doc))} {
		if !slices.Contains(entryIDs(t, s), id.Hex()) {
			t.Errorf("%s is gone", id.Short())
		}
		if err := r.Add(t.Context(), "app", id); err != nil {
			t.Error(err)
		}
	}

	// What is no document is told, and stays what it is.
	for name, blob := range map[string][]byte{
		"no JSON": []byte("text"), "a mixture": []byte(`{"rootfs":{},"layers":[]}`), "too large": bytes.Repeat([]byte{' '}, image.MaxDocument+1),
	} {
		if _, err := r.PutLayer(t.Context(), unknown(blob), bytes.NewReader(blob)); err != nil {
			t.Fatal(err)
		}
		m, err := image.ParseManifest(artifact(blob, sbom))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Adopt(t.Context(), r, r, m); err == nil || !strings.Contains(err.Error(), image.DigestOf(blob).Short()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
