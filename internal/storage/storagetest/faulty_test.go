package storagetest_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A Faulty that is not told to fail is a store like the one in it.
func TestFaultyKeepsTheContract(t *testing.T) {
	storagetest.Run(t, storagetest.Harness{
		Open: func(*testing.T) storagetest.Target {
			inner := mem.New()
			return storagetest.Target{A: storagetest.NewFaulty(inner), B: storagetest.NewFaulty(inner)}
		},
		Create:    true,
		Swap:      true,
		Remove:    true,
		Ranges:    true,
		Conflicts: true,
		Large:     1 << 20,
		Many:      100,
	})
}

func TestFaultyModes(t *testing.T) {
	const content = "new content"
	for _, test := range []struct {
		verb string
		call func(f *storagetest.Faulty) error
		// What is under "key" afterwards, in the order of storagetest.Modes; it was "old" before, or nothing for a create.
		after [4]string
	}{
		{"put", func(f *storagetest.Faulty) error {
			return f.Put(t.Context(), "key", strings.NewReader(content))
		}, [4]string{"old", content, "old", "old"}},
		{"create", func(f *storagetest.Faulty) error {
			return f.Create(t.Context(), "key", strings.NewReader(content))
		}, [4]string{"", content, "", ""}},
		{"delete", func(f *storagetest.Faulty) error { return f.Delete(t.Context(), "key") }, [4]string{"old", "", "old", "old"}},
		{"swap", func(f *storagetest.Faulty) error {
			return f.Swap(t.Context(), "key", []byte("old"), []byte(content))
		}, [4]string{"old", content, "old", "old"}},
		{"stat", func(f *storagetest.Faulty) error {
			_, err := f.Stat(t.Context(), "key")
			return err
		}, [4]string{"old", "old", "old", "old"}},
		{"get", func(f *storagetest.Faulty) error {
			r, err := f.Get(t.Context(), "key", 0, -1)
			if err != nil {
				return err
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if string(got) != "o" {
				t.Errorf("inside: %q was read, want half of it", got)
			}
			return err
		}, [4]string{"old", "old", "old", "old"}},
		{"list", func(f *storagetest.Faulty) error {
			var last error
			for _, err := range f.List(t.Context(), "") {
				last = err
			}
			return last
		}, [4]string{"old", "old", "old", "old"}},
	} {
		for i, mode := range storagetest.Modes {
			t.Run(test.verb+" "+mode.String(), func(t *testing.T) {
				f := storagetest.NewFaulty(mem.New())
				if test.verb != "create" {
					must(t, f.Put(t.Context(), "key", strings.NewReader("old")))
				}
				must(t, f.Put(t.Context(), "other", strings.NewReader("")))
				at := f.Ops() + 1
				f.FailAt(at, mode)
				if err := test.call(f); !errors.Is(err, storagetest.ErrInjected) {
					t.Errorf("%v, want ErrInjected", err)
				}
				if f.Ops() != at || len(f.Log()) != at || !strings.Contains(f.Log()[at-1], test.verb) {
					t.Errorf("%d operations, log %q", f.Ops(), f.Log())
				}
				_, err := f.Stat(t.Context(), "other")
				if dead := errors.Is(err, storagetest.ErrInjected); dead != (mode == storagetest.Dead) {
					t.Errorf("the next operation: %v", err)
				}
				if mode != storagetest.Dead && contentOf(t, f) != test.after[i] {
					t.Errorf("%q is there, want %q", contentOf(t, f), test.after[i])
				}
			})
		}
	}
}

// Death reaches what other goroutines have begun: an open reader, a write under way.
func TestFaultyDeath(t *testing.T) {
	inner := mem.New()
	f := storagetest.NewFaulty(inner)
	must(t, f.Put(t.Context(), "key", strings.NewReader("old")))
	r, err := f.Get(t.Context(), "key", 0, -1)
	must(t, err)
	defer r.Close()
	f.FailAt(4, storagetest.Dead)
	err = f.Put(t.Context(), "new", readerFunc(func([]byte) (int, error) {
		if _, err := f.Stat(t.Context(), "key"); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("operation 4: %v", err)
		}
		return 1, nil
	}))
	if !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("put: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "new"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a dead process has written: %v", err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("read: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func contentOf(t *testing.T, f *storagetest.Faulty) string {
	t.Helper()
	r, err := f.Get(context.Background(), "key", 0, -1)
	if errors.Is(err, storage.ErrNotFound) {
		return ""
	}
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	must(t, err)
	return string(got)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
