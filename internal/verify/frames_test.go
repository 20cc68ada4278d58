package verify_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

// indexedWorld is a remote with one image, app:1, of one layer with a chunk index.
type indexedWorld struct {
	*world
	codec codec.Codec
	tar   []byte
	key   string // of the layer's file
	file  []byte
	index *chunk.Index
}

// gem is the name of a file, in which a part is like in no other.
func gem(i int) string {
	return fmt.Sprintf("usr/lib/ruby/%s-%03d.so", image.DigestOf([]byte{byte(i)}).Hex()[:12], i)
}

// newIndexedWorld has a layer of files of noise, which are too small to be cut and too large to be put
// together: a chunk is a file, and another seed changes no size.
func newIndexedWorld(t testing.TB, c codec.Codec, seed string) *indexedWorld {
	t.Helper()
	var entries []remotetest.Entry
	for i := range 220 {
		name := gem(i)
		entries = append(entries, remotetest.Entry{Header: tar.Header{Name: name}, Content: string(remotetest.Noise(seed+name, 12<<10))})
	}
	return newWorldOf(t, c, remotetest.Tar(t, entries...))
}

func newWorldOf(t testing.TB, c codec.Codec, layer []byte) *indexedWorld {
	t.Helper()
	w := &indexedWorld{world: &world{store: mem.New()}, codec: c, tar: layer}
	w.one = remotetest.NewImage(t, "indexed", layer)
	if _, err := remotetest.Push(t.Context(), open(t, w.store, c), remotetest.Ref(t, "app:1"), w.one); err != nil {
		t.Fatal(err)
	}
	w.key = fileOf(w.one.DiffIDs()[0], "layer.tar"+c.Extension())
	w.put(t, encoded(t, c, layer))
	w.objects = tree(t, w.store)
	w.index = indexOf(t, w.file)
	return w
}

// put replaces the file, and what is said of its size.
func (w *indexedWorld) put(t testing.TB, file []byte) {
	t.Helper()
	w.file = file
	put(t, w.store, w.key, file)
	meta, err := json.Marshal(map[string]any{"diffID": w.one.DiffIDs()[0], "size": len(w.tar), "file": "layer.tar" + w.codec.Extension(), "storedSize": len(file)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, w.store, fileOf(w.one.DiffIDs()[0], "json"), meta)
}

func encoded(t testing.TB, c codec.Codec, layer []byte) []byte {
	t.Helper()
	e := chunk.Encode(c, bytes.NewReader(layer))
	defer e.Close()
	b, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func indexOf(t testing.TB, file []byte) *chunk.Index {
	t.Helper()
	x, err := chunk.Read(t.Context(), func(_ context.Context, offset, n int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(file[offset:min(offset+n, int64(len(file)))])), nil
	}, int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// flipped is the file with one bit of one byte flipped.
func (w *indexedWorld) flipped(at int64) []byte {
	b := bytes.Clone(w.file)
	b[at] ^= 0x10
	return b
}

// find returns where something is in the file, once.
func (w *indexedWorld) find(t testing.TB, what string) int64 {
	t.Helper()
	if n := bytes.Count(w.file, []byte(what)); n != 1 {
		t.Fatalf("%q is %d times in the file", what, n)
	}
	return int64(bytes.Index(w.file, []byte(what)))
}

// frame is the one that a place of the file is in.
func (w *indexedWorld) frame(at int64) chunk.Frame {
	for _, f := range w.index.Frames {
		if at < f.At+int64(f.Stored) {
			return f
		}
	}
	return chunk.Frame{Tar: w.index.Size, At: w.index.Stored, Stored: codec.SkippableHeader}
}

// rangeOf is what the frame at a place of the file holds.
func (w *indexedWorld) rangeOf(at int64) chunk.Range {
	f := w.frame(at)
	return chunk.Range{Tar: f.Tar, Size: int64(f.Size)}
}

// harm is a way to damage a layer with an index.
type harm struct {
	file    []byte
	problem verify.Problem // none where the layer is whole
	at      int64          // in a frame that is named; -1 where none is
	files   []string       // that are named; nil where that is not looked at
	detail  string
	note    string
	lost    []chunk.Range // of the tar
}

func (w *indexedWorld) harms(t testing.TB) map[string]harm {
	t.Helper()
	x := w.index
	second := x.Frames[1]
	payload := x.Stored + codec.SkippableHeader
	end := int64(len(w.file))
	content := w.find(t, string(remotetest.Noise("a"+gem(50), 12<<10)[4000:4010]))
	name := w.find(t, gem(60)[13:24])
	harms := map[string]harm{
		"a frame's header":        {file: w.flipped(second.At), problem: verify.Damaged, at: second.At},
		"content":                 {file: w.flipped(content), problem: verify.Damaged, at: content, files: []string{gem(50)}},
		"a header of the tar":     {file: w.flipped(name + 4), problem: verify.Damaged, at: name, files: []string{gem(60)}},
		"the index's header":      {file: w.flipped(x.Stored + 4), problem: verify.Damaged, at: x.Stored, detail: "its frames are whole, and the header of its chunk index is not"},
		"the index's magic":       {file: w.flipped(x.Stored + 2), problem: verify.Damaged, at: x.Stored, detail: "its frames are whole, and the header of its chunk index is not"},
		"literals in the index":   {file: w.flipped(payload + 100), note: "its chunk index is damaged; the layer is whole"},
		"the index's table":       {file: w.flipped(end - 100), note: "its chunk index is damaged; the layer is whole"},
		"the footer's numbers":    {file: w.flipped(end - 12), note: "its chunk index is damaged; the layer is whole"},
		"the footer's magic":      {file: w.flipped(end - 32)}, // as if there were none
		"cut at a frame's border": {file: w.file[:second.At], problem: verify.Truncated, at: -1, detail: fmt.Sprintf("ends after %d of %d bytes", second.Tar, x.Size)},
		"cut within a frame":      {file: w.file[:second.At+50], problem: verify.Truncated, at: -1, detail: fmt.Sprintf("of %d bytes", x.Size)},
		"cut within the index":    {file: w.file[:end-10], problem: verify.Truncated, at: -1},
		"its index is gone":       {file: w.file[:x.Stored]},
		"two frames":              {file: func() []byte { w := *w; w.file = w.flipped(second.At); return w.flipped(content) }(), problem: verify.Damaged, at: second.At},
	}
	for what, h := range harms {
		switch {
		case h.at >= 0 && h.at < x.Stored:
			h.lost = []chunk.Range{w.rangeOf(h.at)}
		case strings.HasPrefix(what, "cut") && len(h.file) < int(x.Stored):
			h.lost = []chunk.Range{{Tar: second.Tar, Size: x.Size - second.Tar}}
		}
		if what == "two frames" {
			h.lost = append(h.lost, w.rangeOf(content))
		}
		harms[what] = h
	}
	return harms
}

// TestDamagedFrames damages a layer with an index everywhere: what is damaged is named.
func TestDamagedFrames(t *testing.T) {
	for _, c := range []codec.Codec{codec.LZ4, codec.Zstd} {
		w := newIndexedWorld(t, c, "a")
		expect(t, "undamaged", w.verify(t, verify.Options{}))
		for what, h := range w.harms(t) {
			what = c.Name() + ": " + what
			put(t, w.store, w.key, h.file)
			report := w.verify(t, verify.Options{})
			var notes []string
			for _, n := range report.Notes {
				notes = append(notes, n.Object+" "+n.Detail)
			}
			if want := w.key + " " + h.note; h.note != "" && strings.Join(notes, "") != want || h.note == "" && len(notes) > 0 {
				t.Errorf("%s: notes %q, want %q", what, notes, h.note)
			}
			if h.problem == "" { // and `dogestry index` mends what is told
				expect(t, what, report)
				if len(h.file) < len(w.file) { // its json says that it lacks something
					continue
				}
				done, err := open(t, w.store, c).AddIndexes(t.Context(), repo.IndexOptions{Parallel: 1})
				if err != nil || len(done.Written) != 1 {
					t.Errorf("%s: an index is written for %d layers: %v", what, len(done.Written), err)
				}
				if report := w.verify(t, verify.Options{}); len(report.Findings)+len(report.Notes) > 0 || !bytes.Equal(tree(t, w.store)[w.key], w.file) {
					t.Errorf("%s: indexed, it has %s %v", what, findings(report), report.Notes)
				}
				continue
			}
			expect(t, what, report, string(h.problem)+" "+w.key+" [app:1]")
			if len(report.Findings) != 1 {
				continue
			}
			f := report.Findings[0]
			if !strings.Contains(f.Detail, h.detail) {
				t.Errorf("%s: %q does not say %q", what, f.Detail, h.detail)
			}
			if h.at < 0 {
				if len(f.Frames) > 0 {
					t.Errorf("%s: frames %v", what, f.Frames)
				}
				continue
			}
			frame := w.frame(h.at)
			offset, length := frame.At, int64(frame.Stored)
			if len(f.Frames) == 0 || f.Frames[0].Offset != offset || f.Frames[0].Length != length {
				t.Errorf("%s: frames %v, want %d–%d", what, f.Frames, offset, offset+length)
			} else if got := f.Frames[0].Files; h.files != nil && (strings.Join(got, " ") != strings.Join(h.files, " ") || f.Frames[0].More > 0) && c == codec.LZ4 {
				t.Errorf("%s: files %q, want %q", what, got, h.files)
			} else if h.at != w.index.Stored && len(got) == 0 {
				t.Errorf("%s: no file is named", what)
			}
		}
	}
}
