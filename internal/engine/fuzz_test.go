package engine

import (
	"bytes"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// FuzzExport walks through any bytes as an export. Whatever they are, only the image's own layers come out.
func FuzzExport(f *testing.F) {
	m := threeLayers()
	img := described(f, m)
	for _, entries := range [][]entry{blobLayout(m), podmanLayout(m), v1Layout(m, true), v1Layout(m, false)} {
		f.Add(tarOf(f, entries...))
	}
	f.Add(sparseBomb(unknownDir(0) + "/layer.tar"))
	f.Add(tarOf(f, entry{name: "../x", body: []byte("x")}))
	f.Add([]byte("such garbage"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		c := &Client{host: "fuzz", log: slog.New(slog.DiscardHandler)}
		x := c.Export(t.Context(), img)
		x.save = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
		got, err := walk(x)
		if x.pass > 2 {
			t.Errorf("%d passes", x.pass)
		}
		if err == nil && got.config != nil && image.DigestOf(got.config) != img.ID {
			t.Errorf("config %q", got.config)
		}
		for d := range got.layers {
			if !slices.Contains(img.DiffIDs, d) {
				t.Errorf("gives layer %s", d)
			}
			if got.sizes[d] > int64(len(archive)) {
				t.Errorf("a layer of %d bytes out of %d", got.sizes[d], len(archive))
			}
		}
	})
}

// FuzzExportBlobs walks through any bytes as an export of a containerd image
// store. What comes out are blobs as the archive has them, none without the name of its digest.
func FuzzExportBlobs(f *testing.F) {
	m := threeLayers()
	img := Image{ID: mustDigest(f, m.ID()), Manifests: []Manifest{{Digest: mustDigest(f, m.ID()), Whole: true}}}
	blob := func(body string) entry { return entry{name: "blobs/sha256/" + sum(body), body: []byte(body)} }
	for _, entries := range [][]entry{
		blobLayout(m),
		{blob(""), blob("{"), blob(" \n\t{}"), blob(strings.Repeat(" ", 600) + "{}"), blob("\x1f\x8b such gzip")},
		{blob(strings.Repeat("\x00", 512)), blob(strings.Repeat("\x00", 511)), blob(strings.Repeat("x", 257) + "ustar"), blob(strings.Repeat("x", 257) + "ustar" + strings.Repeat("x", 250))},
		{entry{name: "blobs/sha256/" + unknownDir(0), body: []byte("{}")}, entry{name: "blobs/sha256/" + unknownDir(1) + ".tar", body: []byte("{}")}},
		{entry{name: "blobs/sha256/" + unknownDir(0), body: []byte("cut"), size: 600}},
		{entry{name: "blobs/sha256/" + unknownDir(0), body: []byte("{cut" + strings.Repeat(" ", 600)), size: image.MaxDocument + 1}},
	} {
		f.Add(tarOf(f, entries...))
	}
	f.Add(sparseBomb("blobs/sha256/" + unknownDir(0)))
	f.Add([]byte("such garbage"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		c := &Client{host: "fuzz", log: slog.New(slog.DiscardHandler)}
		x := c.Export(t.Context(), img)
		x.save = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
		defer x.Close()
		for {
			item, err := x.Next()
			if err != nil {
				break
			}
			body, err := io.ReadAll(item.Body)
			if err == nil && int64(len(body)) != item.Size || int64(len(body)) > item.Size {
				t.Errorf("%d bytes of %d", len(body), item.Size)
			}
			if !bytes.Contains(archive, body) {
				t.Errorf("gives %d bytes that the archive has not", len(body))
			}
			if !bytes.Contains(archive, []byte(item.Digest.Hex())) {
				t.Errorf("gives %s, of which the archive says nothing", item.Digest)
			}
			object := bytes.HasPrefix(bytes.TrimLeft(body[:min(sniffed, len(body))], " \t\r\n"), []byte("{"))
			if err == nil && item.Document != (object && item.Size <= image.MaxDocument) {
				t.Errorf("document %v: %.20q", item.Document, body)
			}
			if item.Document && (item.Media != "" || item.Size > image.MaxDocument) {
				t.Errorf("a document of %d bytes and media type %q", item.Size, item.Media)
			}
		}
		if x.pass > 1 {
			t.Errorf("%d passes", x.pass)
		}
	})
}

// FuzzLoadAnswer: whatever an engine says before it, its error is never missed.
func FuzzLoadAnswer(f *testing.F) {
	f.Add([]byte(loadedLine))
	f.Add([]byte(`{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"a"}` + "\r\n"))
	f.Add([]byte(`{"errorDetail":{"message":"much"},"error":"much"}`))
	f.Add([]byte(`{"stream":"Error unpacking image x: much\n"}`))
	f.Add([]byte(`{"stream":`))
	f.Add([]byte(" null 1 "))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ids, err := readLoadAnswer(bytes.NewReader(answer))
		if err != nil && len(ids) > 0 {
			t.Errorf("loaded %v with error %v", ids, err)
		}
		failing := append(slices.Clone(answer), "\n{\"error\":\"much wrong\"}"...)
		if _, err := readLoadAnswer(bytes.NewReader(failing)); err == nil {
			t.Error("missed the error at its end")
		}
	})
}

// FuzzReadV1: a name comes of a json only if the sum proves it, which no fuzzer can achieve for a name that no engine gave.
func FuzzReadV1(f *testing.F) {
	s := readSample(f, "utc")
	for dir, doc := range s.json {
		f.Add(dir, doc)
	}
	f.Add(s.dirs[0], []byte("null"))
	f.Add(s.dirs[0], []byte(`{"parent":7,"os":"x","layer_id":"sha256:00"}`))
	f.Fuzz(func(t *testing.T, dir string, doc []byte) {
		n := newNames(s.img)
		if err := n.readV1(dir, bytes.NewReader(doc), int64(len(doc))); err != nil {
			t.Error(err)
		}
		for name, d := range n.layer {
			i := slices.Index(s.dirs, dir)
			if i < 0 || name != dir+"/layer.tar" || d != s.img.DiffIDs[i] {
				t.Errorf("%s is %s", name, d)
			}
		}
	})
}

// FuzzLayerLine: a line that is taken is one that dogestry would write for what it was taken for.
func FuzzLayerLine(f *testing.F) {
	id := strings.Repeat("0a", 32)
	f.Add(id + " " + id + " .")
	f.Add(id + " .")
	f.Add(id + "  .")
	f.Add("")
	f.Fuzz(func(t *testing.T, line string) {
		id, layers, ok := parseLayerLine(line)
		if !ok {
			return
		}
		again := id.Hex()
		for _, l := range layers {
			again += " " + l.Hex()
		}
		if again+" ." != line {
			t.Errorf("%q taken for %q", line, again)
		}
	})
}
