package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMem(t *testing.T) {
	s := mem.New()
	if err := s.Put(t.Context(), "images/object", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	green(t, s, s)
	if left := keys(t, s); left != "images/object" {
		t.Errorf("left over: %s", left)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	var both [2]*file.Store
	for i := range both {
		s, err := file.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		both[i] = s
	}
	green(t, both[0], both[1])
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// green fails the test unless all checks are OK, and begin in their order.
func green(t *testing.T, a, b storage.Store) {
	t.Helper()
	var begun []string
	results, err := Run(t.Context(), a, b, Options{Begin: func(name string) { begun = append(begun, name) }})
	if err != nil {
		t.Error(err)
	}
	for i, r := range results {
		if r.Status != OK || r.Err != nil || r.Bad() || r.Needed == "" || begun[i] != r.Name {
			t.Errorf("%+v", r)
		}
		t.Logf("%-18s %-8s %6.1f ms  %s", r.Name, r.Status, float64(r.Took.Microseconds())/1000, r.Detail)
	}
	if len(results) != len(checks) || len(begun) != len(checks) {
		t.Errorf("%d results, %d begun, want %d", len(results), len(begun), len(checks))
	}
}

func keys(t *testing.T, s storage.Store) string {
	t.Helper()
	var all []string
	for info, err := range s.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return strings.Join(all, " ")
}

// bent is a store that does what mem.Store does, but for what a test replaces.
type bent struct {
	*mem.Store
	get    func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	put    func(ctx context.Context, key string, body io.Reader) error
	stat   func(ctx context.Context, key string) (storage.Info, error)
	list   func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error]
	remove func(ctx context.Context, key string) error
	create func(ctx context.Context, key string, body io.Reader) error
	swap   func(ctx context.Context, key string, old, new []byte) error
}

func bend(s *mem.Store) *bent {
	return &bent{s, s.Get, s.Put, s.Stat, s.List, s.Delete, s.Create, s.Swap}
}

func (b *bent) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return b.get(ctx, key, offset, length)
}

func (b *bent) Put(ctx context.Context, key string, body io.Reader) error {
	return b.put(ctx, key, body)
}

func (b *bent) Stat(ctx context.Context, key string) (storage.Info, error) { return b.stat(ctx, key) }

func (b *bent) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return b.list(ctx, prefix)
}

func (b *bent) Delete(ctx context.Context, key string) error { return b.remove(ctx, key) }

func (b *bent) Create(ctx context.Context, key string, body io.Reader) error {
	return b.create(ctx, key, body)
}

func (b *bent) Swap(ctx context.Context, key string, old, new []byte) error {
	return b.swap(ctx, key, old, new)
}

// untidy is a store whose killed writes leave something.
type untidy struct {
	*bent
	left int
	err  error
}

func (u untidy) Sweep(context.Context, string, time.Duration) (int, error) { return u.left, u.err }

// Each check notices what it is there for, and no other one mistakes it for its own.
func TestBrokenStores(t *testing.T) {
	for _, test := range brokenStores() {
		t.Run(test.check+" "+test.name, func(t *testing.T) {
			t.Parallel()
			inner := mem.New()
			if err := inner.Put(t.Context(), "images/object", strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
			a, b := test.open(inner)
			results, err := Run(t.Context(), a, b, Options{part: testPart})
			if (err != nil) != test.leaves {
				t.Errorf("the end: %v", err)
			}
			want := test.status
			if want == "" {
				want = Failed
			}
			found := false
			for _, r := range results {
				switch {
				case r.Name == test.check:
					found = true
					if r.Status != want || !strings.Contains(r.Detail, test.detail) || strings.Contains(r.Detail, "\n") || (r.Err != nil) != (want == Failed) {
						t.Errorf("%+v, want %s: …%s…", r, want, test.detail)
					}
				case r.Status == Skipped && found:
					if test.skips == 0 {
						t.Errorf("%s is skipped: %s", r.Name, r.Detail)
					}
					test.skips--
				case r.Status != OK:
					t.Errorf("%s, too: %s, %s", r.Name, r.Status, r.Detail)
				}
			}
			if !found || test.skips != 0 || len(results) != len(checks) {
				t.Errorf("found %v, %d more skipped expected: %v", found, test.skips, results)
			}
			if left := keys(t, inner); left != "images/object" && !test.leaves {
				t.Errorf("left over: %s", left)
			}
		})
	}
}

// Every check is among the broken stores.
func TestEveryCheckCanFail(t *testing.T) {
	broken := map[string]bool{}
	for _, test := range brokenStores() {
		broken[test.check] = true
	}
	for _, c := range checks {
		if !broken[c.name] {
			t.Errorf("no broken store makes %q fail", c.name)
		}
	}
}

// A store that may only be read is told so, by its own words, and nothing is asked to be removed.
func TestReadOnly(t *testing.T) {
	s := bend(mem.New())
	denied := fmt.Errorf("key: %w", storage.ErrPermission)
	s.put = func(context.Context, string, io.Reader) error { return denied }
	s.remove = func(context.Context, string) error { return denied }
	results, err := Run(t.Context(), s, s, Options{part: testPart})
	if err != nil {
		t.Error(err)
	}
	if results[0].Status != OK || results[1].Status != Failed || !results[1].Bad() || !errors.Is(results[1].Err, storage.ErrPermission) {
		t.Errorf("%+v", results[:2])
	}
	for _, r := range results[2:] {
		if r.Status != Skipped {
			t.Errorf("%+v", r)
		}
	}
}

// However early or late it is cancelled, it returns soon, says so, and leaves nothing.
func TestCancel(t *testing.T) {
	for i, c := range checks {
		for _, inside := range []bool{false, true} {
			inner := mem.New()
			s := bend(inner)
			ctx, cancel := context.WithCancel(t.Context())
			var at time.Time
			results, err := Run(ctx, s, s, Options{part: testPart, Begin: func(name string) {
				if name != c.name {
					return
				}
				if at = time.Now(); inside {
					time.AfterFunc(300*time.Microsecond, cancel)
				} else {
					cancel()
				}
			}})
			if took := time.Since(at); took > 20*time.Second {
				t.Errorf("%s: returned after %v", c.name, took)
			}
			if !inside && (len(results) != i || !errors.Is(err, context.Canceled)) {
				t.Errorf("%s: %d results, want %d; %v", c.name, len(results), i, err)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", c.name, err)
			}
			for _, r := range results {
				if r.Status != OK {
					t.Errorf("%s: what the end of the context broke is told of the store: %+v", c.name, r)
				}
			}
			if left := keys(t, inner); left != "" {
				t.Errorf("%s: left over: %s", c.name, left)
			}
			cancel()
		}
	}
}

// What cannot be removed is told.
func TestCannotRemove(t *testing.T) {
	inner := mem.New()
	s := bend(inner)
	s.remove = func(ctx context.Context, key string) error {
		if strings.Contains(key, "range/") {
			return errors.New("no such luck")
		}
		return inner.Delete(ctx, key)
	}
	_, err := Run(t.Context(), s, s, Options{part: testPart})
	if err == nil || !strings.HasPrefix(err.Error(), "1 objects are left under run/check-") || !strings.HasSuffix(err.Error(), ": no such luck") {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	s := mem.New()
	for _, key := range []string{
		"run/check-0123456789abcdef/first/object", "run/check-0123456789abcdef/x", "run/check-0123456789abcdeX/x", "run/check-01/x", "run/check-0123456789abcdef", "run/leases/x",
	} {
		if err := s.Put(t.Context(), key, strings.NewReader("x")); err != nil && !errors.Is(err, storage.ErrConflict) {
			t.Fatal(err)
		}
	}
	if n, err := Sweep(t.Context(), untidy{bend(s), 3, nil}, time.Hour); n != 3 || err != nil {
		t.Errorf("young ones: %d, %v", n, err)
	}
	if n, err := Sweep(t.Context(), s, 0); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if left := keys(t, s); left != "run/check-01/x run/check-0123456789abcdeX/x run/leases/x" {
		t.Errorf("left is %s", left)
	}
	if _, err := Sweep(t.Context(), untidy{bend(s), 0, io.ErrUnexpectedEOF}, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// TestSweepByStoreTime has stores whose clocks differ from this host's: an object
// is as old as theirs says.
func TestSweepByStoreTime(t *testing.T) {
	const key = "run/check-0123456789abcdef/first/object"
	for name, test := range map[string]struct {
		clock time.Duration // of the store, against this host's
		age   time.Duration // of the object, by the store's clock
		want  int
	}{
		"behind, young": {-3 * time.Hour, 0, 0},
		"behind, old":   {-3 * time.Hour, 2 * time.Hour, 1},
		"ahead, old":    {3 * time.Hour, 2 * time.Hour, 1},
		"ahead, young":  {3 * time.Hour, time.Minute, 0},
	} {
		inner := mem.New()
		if err := inner.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		s := bend(inner)
		seen := func(info storage.Info) storage.Info {
			info.Modified = info.Modified.Add(test.clock)
			if info.Key == key {
				info.Modified = info.Modified.Add(-test.age)
			}
			return info
		}
		s.stat = func(ctx context.Context, key string) (storage.Info, error) {
			info, err := inner.Stat(ctx, key)
			return seen(info), err
		}
		s.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
			return func(yield func(storage.Info, error) bool) {
				for info, err := range inner.List(ctx, prefix) {
					if !yield(seen(info), err) {
						return
					}
				}
			}
		}
		if n, err := Sweep(t.Context(), s, time.Hour); n != test.want || err != nil {
			t.Errorf("%s: %d, %v; want %d", name, n, err, test.want)
		}
		if left := keys(t, inner); (left == "") != (test.want == 1) || left != "" && left != key {
			t.Errorf("%s: left is %q", name, left)
		}
	}
}
