package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

func (s *suite) notFound() {
	s.absent("a")
	s.absent("a/b/c")
	s.lists("")
	s.lists("a/")
	s.put("dir/object", []byte("x"))
	s.absent("dir") // a directory is no object
	s.absent("dir/other")
	s.absent("dir/object/below")
	s.absent("di")
	s.absent(strings.Repeat("long", 100)) // no file can have that name, no object does
	if err := s.A.Delete(s.ctx(), "a/b"); err != nil {
		s.Errorf("delete of nothing: %v", err)
	}
}

func (s *suite) roundTrip() {
	for i, size := range []int{0, 1, 1000, 32<<10 - 1, 32 << 10, 32<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, s.Large} {
		key := fmt.Sprintf("sizes/%d", size)
		body := bytesOf(i, size)
		before := time.Now().Add(-time.Hour)
		s.put(key, body)
		s.holds(key, body)
		info, err := s.B.Stat(s.ctx(), key)
		if err != nil {
			s.Fatal(err)
		}
		if info.Modified.Before(before) || info.Modified.After(time.Now().Add(time.Hour)) {
			s.Errorf("%s: modified %v", key, info.Modified)
		}
	}
	// Smaller, larger and empty objects over others, by the other store, and bodies that come in odd pieces.
	for i, size := range []int{10, 100_000, 3, 0, 1 << 20} {
		body := bytesOf(100+i, size)
		if err := s.B.Put(s.ctx(), "object", &pieces{body: body}); err != nil {
			s.Fatal(err)
		}
		s.holds("object", body)
	}
}

// pieces hands out body in pieces of 1, 2, 3 … bytes, some of them empty, the last one with io.EOF.
type pieces struct {
	body []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.n++
	if p.n%7 == 0 {
		return 0, nil
	}
	n := copy(b[:min(p.n, len(b))], p.body)
	p.body = p.body[n:]
	if len(p.body) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (s *suite) ranges() {
	body := bytesOf(1, 3<<20)
	s.put("object", body)
	s.put("empty", nil)
	size := int64(len(body))
	for _, r := range []struct{ offset, length int64 }{
		{0, -1},
		{0, 0},
		{0, 1},
		{0, size},
		{0, size + 1},
		{1, -1},
		{1, 1},
		{1 << 20, 1 << 20},
		{5, 100_000},
		{size - 1, -1},
		{size - 1, 1},
		{size - 1, 10},
		{size, -1},
		{size, 1},
		{size, 0},
		{size + 1, -1},
		{size + 1000, 10},
		{0, -5},
		{7, -1 << 40},
		{0, 1 << 40},
		{1 << 40, 1 << 40},
	} {
		from := min(r.offset, size)
		to := size
		if r.length >= 0 {
			to = min(from+r.length, size)
		}
		s.rangeIs("object", r.offset, r.length, body[from:to])
		s.rangeIs("empty", r.offset, r.length, nil)
	}
	if s.Ranges {
		for _, length := range []int64{0, 1, -1} {
			if _, err := s.A.Get(s.ctx(), "missing", 1, length); !errors.Is(err, storage.ErrNotFound) {
				s.Errorf("range of a missing object: %v, want ErrNotFound", err)
			}
		}
		if _, err := s.A.Get(s.ctx(), "object", -1, 1); err == nil {
			s.Error("a negative offset gets no error")
		}
	}
	// Early Close, and many readers of one object at once.
	var open []io.ReadCloser
	for range s.rounds(20) {
		r, err := s.A.Get(s.ctx(), "object", 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		open = append(open, r)
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			s.Error(err)
		}
	}
	for _, r := range open {
		if err := r.Close(); err != nil {
			s.Errorf("close before the end: %v", err)
		}
	}
}

func (s *suite) rangeIs(key string, offset, length int64, want []byte) {
	s.Helper()
	r, err := s.B.Get(s.ctx(), key, offset, length)
	if !s.Ranges && (offset != 0 || length >= 0) {
		if !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("%s[%d, %d]: %v, want ErrUnsupported, as ranges are not declared", key, offset, length, err)
		}
		if err == nil {
			_ = r.Close()
		}
		return
	}
	if err != nil {
		s.Errorf("%s[%d, %d]: %v", key, offset, length, err)
		return
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		s.Errorf("%s[%d, %d]: %d bytes (%x…), %v; want %d (%x…)", key, offset, length, len(got), head(got), err, len(want), head(want))
	}
}

// oddKeys are valid.
var oddKeys = []string{
	"plain",
	"host%3A5000/repository",
	"other%3a5000/repository/x", // not to be normalised
	"%25/%2F/%",
	"spaces in/a name/ leading/trailing ",
	"plus+plus/a&b=c?d#e",
	"quote'\"`/$HOME/~/*?[a]{b}/a;b|c<d>e/!(x)",
	`back\slash/\`,
	"a..b/c..",
	"trailing./x",
	"colon:/@at,comma",
	"temporary.tmp/x.tmp",
	"--option/-rf",
	"con/nul",
	"UPPER/lower/MiXed",
	"digits/" + strings.Repeat("0123456789abcdef", 4) + "/layer.tar.lz4",
	"long/" + strings.Repeat("n", 200),
	"longest/" + strings.Repeat("m", 255),
	"deep/" + strings.Repeat("d/", 100) + "x",
	strings.Repeat(strings.Repeat("w", 203)+"/", 5) + "last", // 1,024 bytes
}

func (s *suite) oddKeys() {
	keys := oddKeys
	s.putAll(keys)
	s.each(len(keys), func(i int) {
		s.holds(keys[i], bytesOf(i, 100))
		s.lists(keys[i], keys[i])
	})
	s.lists("", keys...)
	s.each(len(keys), func(i int) {
		if err := s.B.Delete(s.ctx(), keys[i]); err != nil {
			s.Errorf("delete %q: %v", keys[i], err)
		}
		s.absent(keys[i])
	})
	s.lists("")
}

func (s *suite) invalidKeys() {
	s.put("a/b", []byte("x"))
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/.", "a/..", "a/../b", "a/./b", ".a", "a/.b", "a/.b/c",
		"a\x00b", "a\nb", "a\x7f", "\xc3\xa9", "a\xff", strings.Repeat("k/", 512) + "k",
	} {
		body := &touched{Reader: strings.NewReader("x")}
		calls := map[string]func() error{
			"put":    func() error { return s.A.Put(s.ctx(), key, body) },
			"delete": func() error { return s.A.Delete(s.ctx(), key) },
			"stat": func() error {
				_, err := s.A.Stat(s.ctx(), key)
				return err
			},
			"get": func() error {
				_, err := s.A.Get(s.ctx(), key, 0, -1)
				return err
			},
		}
		if s.Create {
			calls["create"] = func() error { return s.creator(s.A).Create(s.ctx(), key, body) }
		}
		if s.Swap {
			calls["swap"] = func() error { return s.swapper(s.A).Swap(s.ctx(), key, nil, nil) }
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, storage.ErrInvalidKey) {
				s.Errorf("%s %q: %v, want ErrInvalidKey", name, key, err)
			}
		}
		if body.touched {
			s.Errorf("%q: the body was read", key)
		}
	}
	s.lists("", "a/b")
}

type touched struct {
	io.Reader
	touched bool
}

func (r *touched) Read(p []byte) (int, error) {
	r.touched = true
	return r.Reader.Read(p)
}
