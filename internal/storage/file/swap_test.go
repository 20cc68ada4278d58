package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

// A swap waits for the one that runs, and no longer than its context.
func TestSwapWaits(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	put(t, s, "dir/key", "old")
	d, err := other.descend([]string{"dir"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	held, err := other.lock(t.Context(), d, "key")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Swap(ctx, "dir/key", []byte("old"), []byte("new")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside a running swap: %v, want context.DeadlineExceeded", err)
	}
	if n, err := s.Sweep(t.Context(), "", 0); n != 0 || err != nil {
		t.Errorf("the lock of a running swap was swept: %d, %v", n, err)
	}
	put(t, s, "dir/beside", "x") // sweeps, too
	if n := len(leftovers(t, dir)); n != 1 {
		t.Errorf("%d files beside a running swap, want its lock", n)
	}
	done := make(chan error)
	go func() { done <- s.Swap(t.Context(), "dir/key", []byte("old"), []byte("new")) }()
	select {
	case err := <-done:
		t.Errorf("a swap did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	held.close()
	if err := <-done; err != nil || get(t, s, "dir/key") != "new" {
		t.Error(err)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// What a killed swap left is no lock any more.
func TestSwapAfterAKilledOne(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "dir/key", "old")
	write(t, filepath.Join(dir, "dir", lockName("key")), "")
	write(t, filepath.Join(dir, "dir", temporaryName("key")), "half")
	if err := s.Swap(t.Context(), "dir/key", []byte("old"), []byte("new")); err != nil {
		t.Error(err)
	}
	put(t, s, "dir/beside", "x")
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// Sweepers remove locks that nobody holds, and never one that somebody took in the meantime.
func TestSwapBesideSweepers(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir), "number", "0")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sweepers, workers errgroup.Group
	for range 2 {
		s := open(t, dir)
		sweepers.Go(func() error {
			for ctx.Err() == nil {
				if _, err := s.Sweep(ctx, "", 0); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	const counters = 4
	counts := 100 // a lock that is swept while it is held costs one count in a few hundred
	if testing.Short() {
		counts = 25
	}
	for range counters {
		s := open(t, dir)
		workers.Go(func() error {
			for done := 0; done < counts; {
				old, err := os.ReadFile(filepath.Join(dir, "number"))
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(string(old))
				if err != nil {
					return err
				}
				switch err := s.Swap(t.Context(), "number", old, []byte(strconv.Itoa(n+1))); {
				case err == nil:
					done++
				case !errors.Is(err, storage.ErrChanged):
					return err
				}
			}
			return nil
		})
	}
	if err := workers.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if err := sweepers.Wait(); err != nil {
		t.Error(err)
	}
	if got := get(t, open(t, dir), "number"); got != strconv.Itoa(counters*counts) {
		t.Errorf("counted to %s, want %d", got, counters*counts)
	}
}

func TestSweepPrefixAndAge(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old := time.Now().Add(-2 * time.Hour)
	all := []string{"a/one", "a/two", "ab/one", "b/c/one", "b/c/d/one", "b/cc/one", "one"}
	lay := func() {
		for _, key := range all {
			elements, name := split(key)
			at := filepath.Join(append([]string{dir}, elements...)...)
			for _, aged := range []bool{true, false} {
				path := filepath.Join(at, temporaryName(name))
				write(t, path, "half")
				if aged {
					if err := os.Chtimes(path, old, old); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	for _, test := range []struct {
		prefix string
		age    time.Duration
		want   []string // one old and one young file each
	}{
		{"", 0, all},
		{"", time.Hour, all},
		{"", 3 * time.Hour, nil},
		{"a", 0, []string{"a/one", "a/two", "ab/one"}},
		{"a/", 0, []string{"a/one", "a/two"}},
		{"a/t", time.Hour, []string{"a/two"}},
		{"b/c", 0, []string{"b/c/one", "b/c/d/one", "b/cc/one"}},
		{"b/c/", 0, []string{"b/c/one", "b/c/d/one"}},
		{"b/c/d/one/more", 0, nil},
		{"o", 0, []string{"one"}},
		{"x/", 0, nil},
		{"../", 0, nil},
	} {
		lay()
		before := leftovers(t, dir)
		n, err := s.Sweep(t.Context(), test.prefix, test.age)
		perKey := 2
		switch {
		case test.age > 2*time.Hour:
			perKey = 0
		case test.age > 0:
			perKey = 1
		}
		if want := perKey * len(test.want); n != want || err != nil {
			t.Errorf("sweep %q %v: %d, %v, want %d", test.prefix, test.age, n, err, want)
		}
		after := strings.Join(leftovers(t, dir), "\n")
		for _, path := range before {
			key := strings.TrimPrefix(path, dir+"/")
			if i := strings.Index(key, "."); i >= 0 {
				key = key[:i] + key[i+1:len(key)-len(".0123456789abcdef.tmp")]
			}
			in := false
			for _, w := range test.want {
				in = in || key == w
			}
			if there := strings.Contains(after, path); in && perKey == 2 && there || !in && !there {
				t.Errorf("sweep %q %v: %s there: %v", test.prefix, test.age, path, there)
			}
		}
		if _, err := s.Sweep(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		for _, path := range leftovers(t, dir) {
			if !strings.HasSuffix(path, "/") { // a directory that was emptied just now stays
				t.Fatalf("left over: %s", path)
			}
		}
	}
}

// An empty directory goes once nobody can be about to use it.
func TestSweepEmptyDirectories(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"old/deep", "young"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"old/deep", "old"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the removal of a directory changes the one above
		if n, err := s.Sweep(t.Context(), "", 0); n != 0 || err != nil {
			t.Error(n, err)
		}
		_ = os.Chtimes(filepath.Join(dir, "old"), old, old)
	}
	if left := leftovers(t, dir); len(left) != 1 || left[0] != filepath.Join(dir, "young")+"/" {
		t.Errorf("left is %q, want young alone", left)
	}
}
