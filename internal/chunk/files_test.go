package chunk

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
)

// TestFiles: what the headers of a tar say comes out of its index alone, or out of frames where that has not all.
func TestFiles(t *testing.T) {
	long := strings.Repeat("directory/", 30) + "file"
	for name, test := range map[string]struct{ files, size int }{
		"in the index":  {50, 9000},
		"in the frames": {3000, 7},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		want := map[string]int64{}
		for i := range test.files {
			name := fmt.Sprintf("%s%d", long[i%5:], i)
			size := int64(test.size + i%3)
			if i%7 == 0 {
				size = 0
			}
			h := &tar.Header{Name: name, Size: size, Mode: 0o600, ModTime: time.Unix(int64(i), 0)}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			content := bytes.Repeat([]byte{byte(i), byte(i >> 8), 0x5a, byte(i * 7)}, int(size))
			if _, err := w.Write(content[:size]); err != nil {
				t.Fatal(err)
			}
			if size > 0 {
				want[name] = size
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		// What follows is no tar.
		b.WriteString(strings.Repeat("garbage that does not repeat as it seems to? ", 1000))
		for i := range 40_000 {
			fmt.Fprintf(&b, "%x", i*2654435761)
		}
		stored := encode(t, codec.LZ4, b.Bytes())
		x, err := Read(t.Context(), file(stored), int64(len(stored)))
		if err != nil {
			t.Fatal(err)
		}
		references := 0
		for _, b := range x.Blocks {
			if b.Stored == 0 {
				references++
			}
		}
		if wanted := strings.Contains(name, "frames"); (references > 0) != wanted {
			t.Errorf("%s: %d of %d blocks are references", name, references, len(x.Blocks))
		}
		at, unnamed := int64(0), int64(0)
		for f, err := range x.Files(t.Context(), file(stored)) {
			if err != nil {
				t.Fatal(err)
			}
			if f.At != at {
				t.Fatalf("%s: %.20q begins at %d, want %d", name, f.Name, f.At, at)
			}
			at += f.Size
			if size, ok := want[f.Name]; ok && size == f.Size {
				delete(want, f.Name)
			} else {
				unnamed += f.Size
			}
		}
		if len(want) > 0 || at != x.contents() || unnamed < 1000 {
			t.Errorf("%s: %d files are missing; %d of %d bytes, %d without a name", name, len(want), at, x.contents(), unnamed)
		}
	}
}

// TestFilesHostile: headers that lie about sizes, sparse files, and an end of the context.
func TestFilesHostile(t *testing.T) {
	data := make([]byte, 391*blockSize)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(data)
	header := func(name string, typ byte, field string) []byte {
		h := make([]byte, blockSize)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[sizeField:], field)
		copy(h[136:], "00000000000\x00")
		h[typeField] = typ
		copy(h[257:], "ustar\x0000")
		copy(h[checksumField:], fmt.Sprintf("%06o\x00 ", checksum(h)))
		return h
	}
	huge := "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xfd\xff"
	for name, test := range map[string]struct {
		tar  []byte
		want []string
	}{
		"a size beyond the end":   {append(header("huge", '0', huge), data...), []string{"huge"}},
		"one behind another":      {slices.Concat(header("file", '0', fmt.Sprintf("%011o\x00", len(data))), data, header("huge", '0', huge), data), []string{"file", "huge"}},
		"a link with a size":      {append(append(header("link", '2', huge), header("file", '0', fmt.Sprintf("%011o\x00", len(data)))...), data...), []string{"file"}},
		"no tar":                  {data, []string{""}},
		"a size of another world": {append(header("below", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), data...), []string{""}},
	} {
		stored := encode(t, codec.LZ4, test.tar)
		x, err := Read(t.Context(), file(stored), int64(len(stored)))
		if err != nil {
			t.Fatal(name, err)
		}
		var names []string
		at := int64(0)
		for f, err := range x.Files(t.Context(), file(stored)) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if f.At != at || f.Size <= 0 || f.Size > x.contents()-at {
				t.Errorf("%s: %+v, want one from %d on", name, f, at)
			}
			at += f.Size
			names = append(names, f.Name)
		}
		if !slices.Equal(names, test.want) || at != x.contents() {
			t.Errorf("%s: %q, %d of %d bytes", name, names, at, x.contents())
		}
		ctx, cancel := context.WithCancel(t.Context())
		open := func(c context.Context, offset, n int64) (io.ReadCloser, error) {
			defer cancel()
			return file(stored)(c, offset, n)
		}
		failed := error(nil)
		for _, err := range x.Files(ctx, open) {
			failed = err
		}
		if stored := len(x.Blocks) > 0 && x.Blocks[0].Stored > 0; stored && !errors.Is(failed, context.Canceled) {
			t.Errorf("%s: an interrupt: %v", name, failed)
		}
	}
}
