package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestListsAtOnce runs several with one cache, while tags move.
func TestListsAtOnce(t *testing.T) {
	s, dir := &far{Store: mem.New()}, t.TempDir()
	images := fill(t, s, "app", 40)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 5 {
				put(t, s, fmt.Sprintf("repositories/moving/%d", i), images[j].ID.Hex())
				rows, err := catalog.Cached(open(t, s), dir, remoteName, nil).List(t.Context(), []string{"", "app", "moving"}[j%3])
				if err != nil || len(damaged(rows)) > 0 {
					t.Errorf("%v, damaged: %q", err, damaged(rows))
				}
				for _, r := range rows {
					if r.Reference.String() == fmt.Sprintf("moving:%d", i) && r.ID != images[j].ID {
						t.Errorf("%s names %s, want %s", r.Reference, r.ID.Short(), images[j].ID.Short())
					}
				}
			}
		})
	}
	group.Wait()
	list(t, s, dir, "")
	if _, n := list(t, s, dir, ""); n != 1+40*3 {
		t.Errorf("%d requests after all, want %d", n, 1+40*3)
	}
	cacheFile(t, dir) // no temporary file is left
}

// TestListCancelled proves that a list that was stopped at any request says so,
// and that the cache is then as it was.
func TestListCancelled(t *testing.T) {
	s := &far{Store: mem.New()}
	fill(t, s, "app", 3)
	for _, key := range []string{"repositories/app/2", "json"} {
		for _, cached := range []bool{false, true} {
			dir := t.TempDir()
			want := ""
			if cached {
				list(t, s, dir, "")
				b, err := os.ReadFile(cacheFile(t, dir))
				if err != nil {
					t.Fatal(err)
				}
				want = string(b)
				fill(t, s, fmt.Sprintf("new-%t-%d", cached, len(key)), 1)
			}
			r := open(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			s.before = func(ctx context.Context, k string) error {
				if cached || strings.HasSuffix(k, key) {
					cancel()
					<-ctx.Done()
				}
				return ctx.Err()
			}
			rows, err := catalog.Cached(r, dir, remoteName, nil).List(ctx, "")
			s.before = nil
			cancel()
			if !errors.Is(err, context.Canceled) || rows != nil {
				t.Errorf("stopped at %s: %v, %v", key, names(rows), err)
			}
			got := ""
			if path := cacheFile(t, dir); path != "" {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				got = string(b)
			}
			if got != want {
				t.Errorf("stopped at %s: the cache has changed", key)
			}
		}
	}
}

// TestListFails proves that one request that fails is told, and that nothing
// is remembered of such a list.
func TestListFails(t *testing.T) {
	s, lost := &far{Store: mem.New()}, errors.New("the network is gone")
	images := fill(t, s, "app", 5)
	for _, key := range []string{
		"repositories/app/3",
		"images/" + images[3].ID.Hex() + "/json",
		"images/" + images[3].DiffIDs()[1].Hex() + "/json",
	} {
		dir := t.TempDir()
		r := open(t, s)
		s.before = func(_ context.Context, k string) error {
			if k == key {
				return lost
			}
			return nil
		}
		rows, err := catalog.Cached(r, dir, remoteName, nil).List(t.Context(), "")
		s.before = nil
		if !errors.Is(err, lost) || rows != nil {
			t.Errorf("%s: %v, %v", key, err, names(rows))
		}
		if cacheFile(t, dir) != "" {
			t.Errorf("%s: there is a cache", key)
		}
	}
}

// BenchmarkList is a remote far away: 10,000 tags of 10,000 images of two
// layers. It reports the first list and the second.
func BenchmarkList(b *testing.B) {
	s := mem.New()
	fill(b, s, "app", 10_000)
	for b.Loop() {
		dir := b.TempDir()
		f := &far{Store: s, latency: 5 * time.Millisecond}
		for _, which := range []string{"first", "second"} {
			r, err := openBench(b.Context(), f)
			if err != nil {
				b.Fatal(err)
			}
			begun := time.Now()
			n := f.count(func() {
				rows, err := catalog.Cached(r, dir, remoteName, nil).List(b.Context(), "")
				if err != nil || len(rows) != 10_000 || len(damaged(rows)) > 0 {
					b.Errorf("%d rows, %v", len(rows), err)
				}
			})
			b.ReportMetric(time.Since(begun).Seconds(), which+"-s")
			b.ReportMetric(float64(n), which+"-requests")
		}
		files, _ := filepath.Glob(filepath.Join(dir, "catalog", "*"))
		if len(files) == 1 {
			if fi, err := os.Stat(files[0]); err == nil {
				b.ReportMetric(float64(fi.Size()), "cache-bytes")
			}
		}
	}
}
