package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
)

// These tests stand for an engine that is broken or wicked: every answer ends in a clear error, soon, in little memory.

// allowed bounds what a walk through a hostile export may allocate in all, the fake engine's part included, in bytes.
const allowed = 256 << 20

// walkHostile walks through an export of threeLayers that the handler gives, and fails the test if it costs too much.
func walkHostile(t *testing.T, export http.HandlerFunc) (walked, error) {
	t.Helper()
	f := &fake{export: export}
	c := f.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := walk(c.Export(ctx, described(t, threeLayers())))
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > allowed {
		t.Errorf("%d MiB allocated", n>>20)
	}
	if ctx.Err() != nil {
		t.Errorf("did not end in time")
	}
	return got, err
}

func TestHostileNames(t *testing.T) {
	m := threeLayers()
	layer := m.Layers()[0]
	for _, e := range []entry{
		{name: "../" + bare(layer.DiffID()) + ".tar", body: layer.Bytes()},
		{name: "../../../etc/passwd", body: []byte("x")},
		{name: "a/../../b", body: []byte("x")},
		{name: "/etc/passwd", body: []byte("x")},
		{name: "/blobs/sha256/" + bare(layer.DiffID()), body: layer.Bytes()},
		{name: "..", body: []byte("x")},
		{name: "../"},
		{name: unknownDir(0) + "/layer.tar", link: "/etc/shadow"},
		{name: unknownDir(0) + "/layer.tar", link: "../../secret"},
		{name: "link", link: "../x"},
		{name: "../link", link: "x"},
	} {
		_, err := walkHostile(t, gives(tarOf(t, append([]entry{e}, blobLayout(m)...)...)))
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "dogestry-test/three:1") || fault.AdviceOf(err) == "" {
			t.Errorf("%s → %q: error %v", e.name, e.link, err)
		}
	}
}

// TestOddNamesThatAreHarmless: a path that stays inside means what it says once it is cleaned.
func TestOddNamesThatAreHarmless(t *testing.T) {
	m := threeLayers()
	entries := blobLayout(m)
	for i := range entries {
		entries[i].name = "./" + entries[i].name
	}
	entries = append(entries, entry{name: "a/../b", body: []byte("x")}, entry{name: "x/link", link: "../y"})
	got, err := walkHostile(t, gives(tarOf(t, entries...)))
	if err != nil {
		t.Fatal(err)
	}
	got.check(t, m)
}

func TestHostileStreams(t *testing.T) {
	m := threeLayers()
	whole := tarOf(t, blobLayout(m)...)
	blob := "blobs/sha256/" + bare(m.DiffIDs()[0])
	for what, c := range map[string]struct {
		export http.HandlerFunc
		want   string
	}{
		"garbage":           {gives(bytes.Repeat([]byte("such garbage "), 1000)), "broke off the export"},
		"html":              {gives([]byte("<!DOCTYPE html><html><body>502 Bad Gateway</body></html>")), "broke off the export"},
		"truncated":         {gives(whole[:len(whole)/2]), "broke off the export"},
		"truncated header":  {gives(whole[:1024+100]), "broke off the export"},
		"lying size":        {gives(tarOf(t, entry{name: blob, body: []byte("short"), size: 1 << 40})), "broke off the export"},
		"lying v1 json":     {gives(tarOf(t, entry{name: unknownDir(0) + "/json", body: []byte("{"), size: 1 << 19})), "broke off the export"},
		"lying, to learn":   {gives(tarOf(t, entry{name: unknownDir(0) + "/layer.tar", body: []byte("short"), size: 1 << 40})), "broke off the export"},
		"a million entries": {manyEntries(1_000_000), "more than 16000 entries"},
		"early close":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole[:3000]); flush(w); hangUp() }, "broke off the export"},
		"500 with message":  {says(http.StatusInternalServerError, `{"message":"much trouble"}`), "much trouble"},
		"500 with html":     {says(http.StatusBadGateway, `<html>much proxy</html>`), "cannot export"},
		"endless error":     {endless(http.StatusInternalServerError, []byte("error ")), "cannot export"},
		"a bomb":            {gives(sparseBomb(blob)), "sparse"},
		"bomb to learn":     {gives(sparseBomb(unknownDir(0) + "/layer.tar")), "sparse"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := walkHostile(t, c.export)
			if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestBodyFailsWhenTheEngineBreaksOff: what was read of a layer so far never looks like all of it.
func TestBodyFailsWhenTheEngineBreaksOff(t *testing.T) {
	m := enginetest.BigImage(1, 1<<20)
	whole := tarOf(t, blobLayout(m)...)
	for _, end := range []func(http.ResponseWriter){flush, func(w http.ResponseWriter) { flush(w); hangUp() }} {
		f := &fake{export: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole[:1<<19]); end(w) }}
		x := f.connect(t).Export(t.Context(), described(t, m))
		item, err := x.Next()
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, item.Body)
		if !fault.Is(err, fault.Other) || n >= item.Size {
			t.Errorf("%d of %d bytes, error %v", n, item.Size, err)
		}
		if _, err := x.Next(); !fault.Is(err, fault.Other) {
			t.Errorf("goes on with error %v", err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHarmlessButEmpty: exports that end well, and hold less than they should. Who asks for more must notice.
func TestHarmlessButEmpty(t *testing.T) {
	m := threeLayers()
	for what, export := range map[string]http.HandlerFunc{
		"nothing at all":       gives(nil),
		"an empty archive":     gives(tarOf(t)),
		"huge json":            gives(tarOf(t, entry{name: unknownDir(0) + "/json", body: make([]byte, 8<<20)})),
		"no config":            gives(tarOf(t, entry{name: "manifest.json", body: []byte("[]")})),
		"folders as layers":    gives(tarOf(t, entry{name: "blobs/sha256/" + bare(m.DiffIDs()[0]) + "/"})),
		"links to themselves":  gives(tarOf(t, entry{name: "blobs/sha256/" + bare(m.DiffIDs()[0]), link: bare(m.DiffIDs()[0])})),
		"many v1 jsons, large": gives(tarOf(t, repeated(10, entry{body: append([]byte(`{"x":"`), append(bytes.Repeat([]byte("y"), 1<<20-100), `"}`...)...)})...)),
	} {
		got, err := walkHostile(t, export)
		if err != nil || got.config != nil || len(got.layers) > 0 {
			t.Errorf("%s: config %q, layers %v, error %v", what, got.config, got.layers, err)
		}
	}
}

// TestEndlessExport: an engine that never ends is left when the user has had enough, and costs no memory meanwhile.
func TestEndlessExport(t *testing.T) {
	m := threeLayers()
	lies := func(e entry) http.HandlerFunc {
		e.size = 1 << 60
		head := tarOf(t, e)
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(head)
			endless(http.StatusOK, []byte("wow "))(w, r)
		}
	}
	for what, export := range map[string]http.HandlerFunc{
		"a layer":     lies(entry{name: "blobs/sha256/" + bare(m.DiffIDs()[0])}),
		"a config":    lies(entry{name: bare(m.ID()) + ".json"}),
		"to learn":    lies(entry{name: unknownDir(0) + "/layer.tar"}),
		"nameless":    lies(entry{name: "README"}),
		"nothing":     func(w http.ResponseWriter, r *http.Request) { flush(w); <-r.Context().Done() },
		"no answer":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"pax headers": endlessPAX,
	} {
		t.Run(what, func(t *testing.T) {
			f := &fake{export: export}
			c := f.connect(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stop := time.AfterFunc(300*time.Millisecond, cancel)
			defer stop.Stop()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := walk(c.Export(ctx, described(t, m)))
			if late := time.Since(start); late > 30*time.Second {
				t.Errorf("ended after %v", late)
			}
			runtime.ReadMemStats(&after)
			if !errors.Is(err, context.Canceled) && what != "a config" {
				t.Errorf("error %v", err)
			}
			if err == nil {
				t.Error("no error")
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > allowed {
				t.Errorf("%d MiB held", grown>>20)
			}
		})
	}
}

func TestEmptyExportIsRefusedWithItsReason(t *testing.T) {
	f := &fake{export: says(http.StatusInternalServerError, `{"message":"empty export - not implemented"}`)}
	_, err := walk(f.connect(t).Export(t.Context(), described(t, threeLayers())))
	if !errors.Is(err, ErrUnexportable) || !fault.Is(err, fault.Refused) || fault.AdviceOf(err) == "" {
		t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
	}
}

func TestExportOfWhatIsGone(t *testing.T) {
	f := &fake{export: says(http.StatusNotFound, `{"message":"No such image: x"}`)}
	_, err := walk(f.connect(t).Export(t.Context(), described(t, threeLayers())))
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "dogestry-test/three:1") {
		t.Errorf("error %v", err)
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// manyEntries is an export of n empty files.
func manyEntries(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		t := tar.NewWriter(w)
		for range n {
			if t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x"}) != nil {
				return
			}
		}
		_ = t.Close()
	}
}

func endless(status int, b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		b := bytes.Repeat(b, 64<<10/len(b))
		for {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
}

// endlessPAX are extended headers that no entry follows.
func endlessPAX(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	_ = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"a.b": "c"}, Format: tar.FormatPAX})
	endless(http.StatusOK, b.Bytes()[:1024])(w, r) // without the entry itself
}

// sparseBomb is a file of a few blocks that says it is 1 PiB with holes, in GNU tar's format PAX 1.0.
func sparseBomb(name string) []byte {
	const realSize = 1 << 50
	var records string
	for _, kv := range [][2]string{
		{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", name}, {"GNU.sparse.realsize", strconv.Itoa(realSize)},
	} {
		line := fmt.Sprintf(" %s=%s\n", kv[0], kv[1])
		n := len(line) + 2
		if n > 99 {
			n++
		}
		records += strconv.Itoa(n) + line
	}
	block := func(s string) string { return s + strings.Repeat("\x00", (512-len(s)%512)%512) }
	return []byte(rawHeader("pax", 'x', len(records)) + block(records) +
		rawHeader("file", '0', 1024) + block(fmt.Sprintf("1\n%d\n512\n", realSize-512)) + block("end") + strings.Repeat("\x00", 1024))
}

// rawHeader is a tar header that tar.Writer would not write.
func rawHeader(name string, kind byte, size int) string {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return string(h)
}

func repeated(n int, e entry) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = e
		entries[i].name = unknownDir(i) + "/json"
	}
	return entries
}
