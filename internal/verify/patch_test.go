package verify_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

// counting counts the bytes that are asked for of one object.
type counting struct {
	storage.Store
	key   string
	bytes atomic.Int64
	whole atomic.Int32 // how often all of it was asked for
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == c.key && length < 0 {
		c.whole.Add(1)
	} else if key == c.key {
		c.bytes.Add(length)
	}
	return c.Store.Get(ctx, key, offset, length)
}

// whole fails the test unless the layer is what it has to be.
func (w *indexedWorld) whole(t testing.TB, what string) {
	t.Helper()
	if report := w.verify(t, verify.Options{}); len(report.Findings)+len(report.Notes) > 0 {
		t.Errorf("%s: afterwards %s %v", what, findings(report), report.Notes)
	}
}

// TestRepairFrames repairs a layer that is damaged anywhere from a remote that has stored it by another
// encoder: of that no more is read than the frames with the damage, and the index.
func TestRepairFrames(t *testing.T) {
	for _, codecs := range [][2]codec.Codec{{codec.LZ4, codec.Zstd}, {codec.Zstd, codec.LZ4}} {
		w, other := newIndexedWorld(t, codecs[0], "a"), newIndexedWorld(t, codecs[1], "a")
		for what, h := range w.harms(t) {
			if h.problem == "" {
				continue
			}
			what = fmt.Sprintf("%s from %s: %s", codecs[0], codecs[1], what)
			w.restore(t)
			put(t, w.store, w.key, h.file)
			from := &counting{Store: other.store, key: other.key}
			report := w.repairFrom(t, from)
			if report.Left() > 0 || len(report.Findings) != 1 {
				t.Errorf("%s: %s", what, findings(report))
			}
			w.whole(t, what)
			most := other.index.Payload + 16<<10
			for _, f := range other.index.Frames {
				if slices.ContainsFunc(h.lost, func(r chunk.Range) bool { return r.Tar < f.Tar+int64(f.Size) && f.Tar < r.End() }) {
					most += int64(f.Stored)
				}
			}
			if n := from.bytes.Load(); n > most || from.whole.Load() > 0 {
				t.Errorf("%s: %d bytes are read of the other, in full %d times; at most %d are needed", what, n, from.whole.Load(), most)
			}
		}
	}
}

// lying returns a file whose index has a wrong sum of each chunk.
func lying(t testing.TB, file []byte) []byte {
	t.Helper()
	x := indexOf(t, file)
	const footer = 32
	end := len(file) - footer
	size := int(binary.LittleEndian.Uint32(file[end+16:]))
	table := end - size
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(file[table:end], nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range x.Chunks {
		raw[len(raw)-1-i*len(chunk.Sum{})] ^= 1
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	payload := w.EncodeAll(raw, bytes.Clone(file[x.Stored+codec.SkippableHeader:table]))
	foot := bytes.Clone(file[end:])
	binary.LittleEndian.PutUint32(foot[16:], uint32(int64(len(payload))-(int64(table)-x.Stored-codec.SkippableHeader)))
	payload = append(payload, foot...)
	binary.LittleEndian.PutUint32(payload[len(payload)-8:], uint32(len(payload)))
	return codec.AppendSkippable(bytes.Clone(file[:x.Stored]), 0xd, payload)
}

// TestRepairFramesWhole: where the frames do not do, all of the layer is read, and nothing is published that is
// wrong.
func TestRepairFramesWhole(t *testing.T) {
	w, other := newIndexedWorld(t, codec.LZ4, "a"), newIndexedWorld(t, codec.LZ4, "a")
	second, last := w.index.Frames[1].At, w.index.Frames[len(w.index.Frames)-1].At
	lies := lying(t, w.file)
	if sums := indexOf(t, lies).Chunks; sums[0].Sum == w.index.Chunks[0].Sum || sums[len(sums)-1].Sum == w.index.Chunks[len(sums)-1].Sum {
		t.Fatal("it does not lie")
	}
	wrong := bytes.Clone(lies)
	wrong[second+8] ^= 0x10
	far := w.flipped(second)
	far[last] ^= 0x10
	for what, c := range map[string]struct {
		here, there []byte
		whole       int32 // how often all is read of the other
		left        int
	}{
		"the other's is damaged elsewhere":        {w.flipped(second), w.flipped(last), 0, 0},
		"frames far from each other":              {far, w.file, 0, 0},
		"the other's is damaged there too":        {w.flipped(second), w.flipped(second), 1, 1},
		"the other's index lies":                  {w.file[:second], lies, 1, 0},
		"the other's index lies, and that is all": {w.flipped(second), lies, 0, 0}, // the one here does not
		"the other's index is gone":               {w.flipped(second), w.file[:w.index.Stored], 1, 0},
		"the index here lies":                     {wrong, w.file, 1, 0},
		"the other's file ends early":             {w.flipped(second), append(w.file[:last:last], w.file[w.index.Stored:]...), 1, 1},
		"all is gone":                             {nil, w.file, 0, 0},
		"another layer, with an index":            {newIndexedWorld(t, codec.LZ4, "b").file, w.file, 1, 0},
	} {
		put(t, w.store, w.key, c.here)
		put(t, other.store, other.key, c.there)
		from := &counting{Store: other.store, key: other.key}
		report := w.repairFrom(t, from)
		if report.Left() != c.left || len(report.Findings) != 1 || from.whole.Load() != c.whole {
			t.Errorf("%s: %d left, all is read %d times:\n%s", what, report.Left(), from.whole.Load(), findings(report))
		}
		if c.left == 0 {
			w.whole(t, what)
		} else if !bytes.Equal(tree(t, w.store)[w.key], c.here) {
			t.Errorf("%s: something was published", what)
		}
	}
}

// tiny is a layer of empty files: its headers are too much for an index.
func tiny(t testing.TB) []byte {
	t.Helper()
	var entries []remotetest.Entry
	for i := range 3000 {
		entries = append(entries, remotetest.Entry{Header: tar.Header{Name: image.DigestOf(fmt.Append(nil, i)).Hex()}})
	}
	return remotetest.Tar(t, entries...)
}

// TestUnprovedHeaders: where the index does not have the headers, nobody knows which of them are damaged. A repair that
// gets them wrong publishes nothing, and reads all.
func TestUnprovedHeaders(t *testing.T) {
	w := newWorldOf(t, codec.LZ4, tiny(t))
	if slices.ContainsFunc(w.index.Blocks, func(b chunk.Block) bool { return b.Stored > 0 }) {
		t.Fatal("its headers are in the index")
	}
	other := w.copyOf(t)
	name := image.DigestOf(fmt.Append(nil, 2000)).Hex()
	put(t, w.store, w.key, w.flipped(w.find(t, name[20:30])))
	from := &counting{Store: other, key: w.key}
	report := w.repairFrom(t, from)
	if report.Left() > 0 || len(report.Findings) != 1 || len(report.Findings[0].Frames) > 0 || from.whole.Load() != 1 {
		t.Errorf("read in full %d times: %s %v", from.whole.Load(), findings(report), report.Findings)
	}
	w.whole(t, "a header")

	// A frame that does not decode is known all the same, and those that are named are in others.
	frame := w.index.Frames[1]
	put(t, w.store, w.key, w.flipped(frame.At))
	from = &counting{Store: other, key: w.key}
	report = w.repairFrom(t, from)
	if report.Left() > 0 || len(report.Findings) != 1 || len(report.Findings[0].Frames) != 1 || report.Findings[0].Frames[0].Offset != frame.At || from.whole.Load() != 0 {
		t.Errorf("read in full %d times: %s %v", from.whole.Load(), findings(report), report.Findings)
	}
	w.whole(t, "a frame")

	// What ends within a frame of the other's is not all of it.
	put(t, w.store, w.key, w.file[:w.index.Frames[1].At])
	apart := newWorldOf(t, codec.Zstd, w.tar)
	if apart.index.Frames[0].Size <= w.index.Frames[0].Size {
		t.Fatal("its frames are those of the other")
	}
	from = &counting{Store: apart.store, key: apart.key}
	if report := w.repairFrom(t, from); report.Left() > 0 || from.whole.Load() != 0 {
		t.Errorf("cut: read in full %d times: %s", from.whole.Load(), findings(report))
	}
	w.whole(t, "cut")
}

// TestRepairFramesKilled ends a repair at each of its requests: the file is the old one or the new one, and whole
// after another repair.
func TestRepairFramesKilled(t *testing.T) {
	w, other := newIndexedWorld(t, codec.LZ4, "a"), newIndexedWorld(t, codec.LZ4, "a")
	here := w.flipped(w.index.Frames[1].At)
	killed := 0
	for n := int64(1); ; n++ {
		put(t, w.store, w.key, here)
		ctx, cancel := context.WithCancel(t.Context())
		dying := &dyingStore{Store: w.store, cancel: cancel}
		dying.left.Store(n)
		to := open(t, dying, codec.LZ4)
		_, err := verify.Run(ctx, to, verify.Options{Parallel: 1, Mender: &verify.Copier{From: open(t, other.store, codec.LZ4), To: to}})
		cancel()
		file := tree(t, w.store)[w.key]
		old := bytes.Equal(file, here)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err != nil && old {
			killed++
		}
		if !old {
			w.whole(t, fmt.Sprintf("killed at %d", n))
		} else if report := w.repairFrom(t, other.store); report.Left() > 0 {
			t.Errorf("killed at %d: %s", n, findings(report))
		}
		if err == nil {
			break
		}
	}
	if killed < 10 {
		t.Errorf("it was killed %d times", killed)
	}
}

// dyingStore ends a context when so much has been asked of it, or read.
type dyingStore struct {
	*mem.Store
	left   atomic.Int64
	cancel context.CancelFunc
}

func (d *dyingStore) step() {
	if d.left.Add(-1) == 0 {
		d.cancel()
	}
}

func (d *dyingStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	d.step()
	return d.Store.Get(ctx, key, offset, length)
}

func (d *dyingStore) Put(ctx context.Context, key string, body io.Reader) error {
	d.step()
	return d.Store.Put(ctx, key, body)
}

// TestDamagedFilesNamed: few files are named, the others counted.
func TestDamagedFilesNamed(t *testing.T) {
	var entries []remotetest.Entry
	for i := range 40 {
		entries = append(entries, remotetest.Entry{Header: tar.Header{Name: fmt.Sprintf("f%02d", i)}, Content: string(remotetest.Noise(fmt.Sprint(i), 3000))})
	}
	long := strings.Repeat("ö", 400)
	entries = append(entries,
		remotetest.Entry{Header: tar.Header{Name: long}, Content: string(remotetest.Noise("long", 200<<10))},
		remotetest.Entry{Header: tar.Header{Name: "\x1b[31mred\n"}, Content: string(remotetest.Noise("red", 150<<10))},
		remotetest.Entry{Header: tar.Header{Name: "whole"}, Content: string(remotetest.Noise("whole", 150<<10))},
		remotetest.Entry{Header: tar.Header{Name: "end"}, Content: string(remotetest.Noise("end", 150<<10))},
	)
	w := newWorldOf(t, codec.LZ4, remotetest.Tar(t, entries...))
	at := func(seed string, n int) int64 { return w.find(t, string(remotetest.Noise(seed, n)[n-100:n-80])) }
	first, inLong, inRed, inEnd := w.index.Frames[0], at("long", 200<<10), at("red", 150<<10), at("end", 150<<10)
	span := func(first, last int64) string {
		return fmt.Sprintf("at %d–%d", w.frame(first).At, w.frame(last).At+int64(w.frame(last).Stored))
	}
	for what, c := range map[string]struct {
		at   []int64
		want []string
	}{
		"many small ones": {
			[]int64{first.At}, []string{span(0, 0) + " (f00, f01, f02, f03, f04, f05, f06, f07, f08, f09, 31 files more)"},
		},
		"a long name, and one that steers a terminal, in frames beside each other": {
			[]int64{inLong, inRed}, []string{span(inLong, inRed) + " (" + long[:300] + "…, \x1b[31mred\n)"},
		},
		"such frames lost as wholes": {
			[]int64{w.frame(inLong).At, w.frame(inRed).At}, []string{span(inLong, inRed) + " (" + long[:300] + "…, \x1b[31mred\n, whole)"},
		},
		"the first and the last one": {
			[]int64{first.At, inEnd}, []string{span(0, 0) + " (f00, f01, f02, f03, f04, f05, f06, f07, f08, f09, 31 files more)", span(inEnd, inEnd) + " (1 file)"},
		},
		"the last one": {
			[]int64{inEnd}, []string{span(inEnd, inEnd) + " (end)"},
		},
	} {
		file := bytes.Clone(w.file)
		for _, at := range c.at {
			file[at] ^= 0x10
		}
		put(t, w.store, w.key, file)
		report := w.verify(t, verify.Options{})
		if len(report.Findings) != 1 {
			t.Fatalf("%s: %s", what, findings(report))
		}
		var got []string
		for _, f := range report.Findings[0].Frames {
			got = append(got, f.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: damaged\n%q\nwant\n%q", what, got, c.want)
		}
	}
}

// TestManyDamagedFrames: few runs of frames are told, the others counted.
func TestManyDamagedFrames(t *testing.T) {
	w := newIndexedWorld(t, codec.LZ4, "a")
	file, damaged := bytes.Clone(w.file), 0
	for i := 0; i < len(w.index.Frames); i += 2 {
		file[w.index.Frames[i].At] ^= 0x10
		damaged++
	}
	put(t, w.store, w.key, file)
	report := w.verify(t, verify.Options{})
	if f := report.Findings; len(f) != 1 || len(f[0].Frames)+f[0].MoreFrames != damaged || len(f[0].Frames) > 10 || damaged > 10 && f[0].MoreFrames == 0 {
		t.Errorf("of %d: %+v", damaged, f)
	}
}
