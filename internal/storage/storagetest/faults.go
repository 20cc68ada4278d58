package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
)

var errBody = errors.New("the body broke")

// breaking reads body and then ends with err, or io.EOF where that is nil,
// together with the last bytes or behind them. It calls act just before.
type breaking struct {
	body     *bytes.Reader
	err      error
	together bool
	act      func()
}

func (r *breaking) Read(p []byte) (int, error) {
	n, _ := r.body.Read(p)
	if r.body.Len() > 0 || n > 0 && !r.together {
		return n, nil
	}
	if r.act != nil {
		r.act()
		r.act = nil
	}
	if r.err != nil {
		return n, r.err
	}
	return n, io.EOF
}

// cuts are the places where a body fails: at the start, in the middle, and after the last byte of all sizes that matter.
func (s *suite) cuts() []int {
	if s.Slow {
		return []int{0, 1000, s.Large}
	}
	return []int{0, 1, 1000, 1 << 20, s.Large/2 + 1, s.Large}
}

// failingWrites runs a test of a write that must change nothing, for Put onto nothing, Put onto an object, and Create.
func (s *suite) failingWrites(run func(t *testing.T, write func(ctx context.Context, body io.Reader) error, check func())) {
	s.Helper()
	old := bytesOf(1, 5000)
	s.put("old/object", old)
	s.T.Run("new", func(t *testing.T) {
		sub := &suite{T: t, Harness: s.Harness, Target: s.Target}
		run(t, func(ctx context.Context, body io.Reader) error { return s.A.Put(ctx, "new/object", body) }, func() {
			t.Helper()
			sub.absent("new/object")
			sub.lists("", "old/object")
			sub.noLeftovers()
		})
	})
	s.T.Run("old", func(t *testing.T) {
		sub := &suite{T: t, Harness: s.Harness, Target: s.Target}
		run(t, func(ctx context.Context, body io.Reader) error { return s.A.Put(ctx, "old/object", body) }, func() {
			t.Helper()
			sub.holds("old/object", old)
			sub.lists("", "old/object")
			sub.noLeftovers()
		})
	})
	if s.Create {
		s.T.Run("create", func(t *testing.T) {
			sub := &suite{T: t, Harness: s.Harness, Target: s.Target}
			run(t, func(ctx context.Context, body io.Reader) error {
				return s.creator(s.A).Create(ctx, "new/object", body)
			}, func() {
				t.Helper()
				sub.absent("new/object")
				sub.lists("", "old/object")
				sub.noLeftovers()
			})
		})
	}
}

func (s *suite) failingBody() {
	body := bytesOf(2, s.Large)
	s.failingWrites(func(t *testing.T, write func(context.Context, io.Reader) error, check func()) {
		for _, cut := range s.cuts() {
			for _, together := range []bool{false, true} {
				for _, cause := range []error{errBody, io.ErrUnexpectedEOF} {
					err := write(s.ctx(), &breaking{body: bytes.NewReader(body[:cut]), err: cause, together: together})
					if !errors.Is(err, cause) {
						t.Errorf("body fails after %d bytes: %v, want its error", cut, err)
					}
					for _, kind := range []error{storage.ErrNotFound, storage.ErrExists, storage.ErrConflict, storage.ErrPermission, storage.ErrNoSpace} {
						if errors.Is(err, kind) {
							t.Errorf("a body's failure is taken for one of the store: %v", err)
						}
					}
				}
			}
			check()
		}
	})
}

// cancelled proves that nothing is changed, and nil never returned, by a
// context that ended before the body did.
func (s *suite) cancelled() {
	body := bytesOf(2, s.Large)
	s.failingWrites(func(t *testing.T, write func(context.Context, io.Reader) error, check func()) {
		ended, cancel := context.WithCancel(s.ctx())
		cancel()
		if err := write(ended, bytes.NewReader(body)); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v, want context.Canceled", err)
		}
		check()
		expired, cancel := context.WithTimeout(s.ctx(), 0)
		defer cancel()
		if err := write(expired, bytes.NewReader(body)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("expired before: %v, want context.DeadlineExceeded", err)
		}
		check()
		for _, cut := range s.cuts() {
			for _, end := range []struct {
				name string
				body *breaking
			}{
				// A body that does not look at the context, and says that it is complete.
				{"complete", &breaking{body: bytes.NewReader(body[:cut]), together: false}},
				{"complete, with the last bytes", &breaking{body: bytes.NewReader(body[:cut]), together: true}},
				{"failing with the context's error", &breaking{body: bytes.NewReader(body[:cut]), err: fmt.Errorf("stopped: %w", context.Canceled)}},
				{"failing", &breaking{body: bytes.NewReader(body[:cut]), err: errBody}},
			} {
				ctx, cancel := context.WithCancel(s.ctx())
				end.body.act = cancel
				err := write(ctx, end.body)
				cancel()
				if !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled after %d bytes, body %s: %v, want context.Canceled", cut, end.name, err)
				}
				check()
			}
			// A body that goes on, so long that only the context explains an early end.
			ctx, cancel := context.WithCancel(s.ctx())
			err := write(ctx, io.MultiReader(bytes.NewReader(body[:cut]), acting(cancel), io.LimitReader(endless{}, 64<<20)))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after %d bytes of a body that goes on: %v, want context.Canceled", cut, err)
			}
			check()
		}
	})
	s.cancelledReads()
}

func (s *suite) cancelledReads() {
	s.put("read/object", bytesOf(3, s.Large))
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if _, err := s.A.Get(ended, "read/object", 0, -1); !errors.Is(err, context.Canceled) {
		s.Errorf("get: %v, want context.Canceled", err)
	}
	if _, err := s.A.Stat(ended, "read/object"); !errors.Is(err, context.Canceled) {
		s.Errorf("stat: %v, want context.Canceled", err)
	}
	if !s.ReadOnly {
		if err := s.A.Delete(ended, "read/object"); !errors.Is(err, context.Canceled) {
			s.Errorf("delete: %v, want context.Canceled", err)
		}
	}
	s.holds("read/object", bytesOf(3, s.Large))
	s.cancelledReader()
	if !s.Unlisted {
		s.cancelledLists(ended)
	}
}

func (s *suite) cancelledLists(ended context.Context) {
	for _, prefix := range []string{"", "read/"} {
		var got error
		for _, err := range s.A.List(ended, prefix) {
			got = err
		}
		if !errors.Is(got, context.Canceled) {
			s.Errorf("list %q: %v, want context.Canceled", prefix, got)
		}
	}
	s.put("read/second", nil)
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	var last error
	for _, err := range s.A.List(ctx, "read/") {
		if last = err; err == nil {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		s.Errorf("listing on after cancel: %v, want context.Canceled", last)
	}
}

func (s *suite) cancelledReader() {
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	r, err := s.A.Get(ctx, "read/object", 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		s.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		s.Errorf("reading on after cancel: %d bytes, %v, want context.Canceled", n, err)
	}
}

// acting is an empty reader that acts when it is read.
type acting func()

func (a acting) Read([]byte) (int, error) {
	a()
	return 0, io.EOF
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
