package rsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// proxied starts a server behind a proxy.
func proxied(t testing.TB) (p *rsynctest.Proxy, dir string) {
	t.Helper()
	server, dir := serve(t)
	p, err := rsynctest.NewProxy(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, dir
}

// TestFigure proves what a second push costs, whose top layer of 1 MB is another: all
// bytes of all runs, in both directions.
func TestFigure(t *testing.T) {
	t.Parallel()
	proxy, _ := proxied(t)
	to, err := repo.Open(t.Context(), openStore(t, proxy.URL("module/images")), repo.Options{Name: "there", Codec: codec.LZ4})
	if err != nil {
		t.Fatal(err)
	}
	var base [][]byte
	for i := range 8 {
		base = append(base, remotetest.FileLayer(t, fmt.Sprintf("base%d", i), string(remotetest.Noise(fmt.Sprint(i), 1<<20))))
	}
	for _, tag := range []string{"app:1", "app:2"} {
		img := remotetest.NewImage(t, tag, append(base[:8:8], remotetest.FileLayer(t, tag, string(remotetest.Noise(tag, 1e6))))...)
		proxy.Forget()
		if _, err := remotetest.Push(t.Context(), to, remotetest.Ref(t, tag), img); err != nil {
			t.Fatal(err)
		}
		up, down := proxy.Bytes()
		t.Logf("%s: %d bytes up, %d down, %d runs", tag, up, down, proxy.Connections())
		if tag == "app:2" && up+down > 1_200_000 {
			t.Errorf("the second push took %d bytes", up+down)
		}
		if tag == "app:2" && proxy.Connections() > 60 {
			t.Errorf("the second push took %d runs", proxy.Connections())
		}
	}
}

// TestTogether proves that what is asked at the same time goes in few runs, and that each gets its own answer.
func TestTogether(t *testing.T) {
	t.Parallel()
	proxy, _ := proxied(t)
	s := openStore(t, proxy.URL("module/prefix"))
	const n = 100
	at := func(i int) string { return fmt.Sprintf("images/%03d/json", i) }
	each := func(what string, do func(i int) error) {
		t.Helper()
		proxy.Forget()
		var group errgroup.Group
		for i := range n {
			group.Go(func() error { return do(i) })
		}
		if err := group.Wait(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// The first goes by itself, and under load some come late.
		if runs := proxy.Connections(); runs > n/4 {
			t.Errorf("%s: %d took %d runs", what, n, runs)
		}
	}
	each("put", func(i int) error { return s.Put(t.Context(), at(i), strings.NewReader(fmt.Sprint(i))) })
	each("read", func(i int) error {
		b, err := storage.Read(t.Context(), s, at(i), 100)
		if string(b) != fmt.Sprint(i) {
			return fmt.Errorf("%s has %q, %w", at(i), b, err)
		}
		_, err = storage.Read(t.Context(), s, at(i), 0)
		if !errors.Is(err, storage.ErrTooLarge) {
			return fmt.Errorf("%s is not too large: %w", at(i), err)
		}
		if _, err := storage.Read(t.Context(), s, at(i+n), 100); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("%s: %w", at(i+n), err)
		}
		return nil
	})
	each("stat", func(i int) error {
		info, err := s.Stat(t.Context(), at(i))
		if err != nil || info.Size != int64(len(fmt.Sprint(i))) {
			return fmt.Errorf("%+v, %w", info, err)
		}
		return nil
	})
	each("list", func(i int) error {
		var keys []string
		for info, err := range s.List(t.Context(), fmt.Sprintf("images/%03d/", i)) {
			if err != nil {
				return err
			}
			keys = append(keys, info.Key)
		}
		if fmt.Sprint(keys) != "["+at(i)+"]" {
			return fmt.Errorf("listed %q", keys)
		}
		return nil
	})
	each("delete", func(i int) error {
		if i%2 == 0 {
			return nil
		}
		return s.Delete(t.Context(), at(i))
	})
	left := 0
	for _, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left++
	}
	if left != n/2 {
		t.Errorf("%d are left, want %d", left, n/2)
	}
}

// TestOneOfMany proves that what fails of several that go together fails alone.
func TestOneOfMany(t *testing.T) {
	t.Parallel()
	server, dir := serve(t)
	s := openStore(t, server.URL("module"))
	if err := s.Put(t.Context(), "in/the/way", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if i%5 == 0 {
				key := []string{"in/the", "in/the/way/below"}[i/5%2]
				if err := s.Put(t.Context(), key, strings.NewReader("y")); !errors.Is(err, storage.ErrConflict) {
					t.Errorf("%s: %v", key, err)
				}
				return
			}
			if err := s.Put(t.Context(), fmt.Sprintf("beside/%d", i), strings.NewReader("y")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if b, err := os.ReadFile(filepath.Join(dir, "in/the/way")); string(b) != "x" {
		t.Errorf("there is %q, %v", b, err)
	}
	if found, err := os.ReadDir(filepath.Join(dir, "beside")); len(found) != 16 || err != nil {
		t.Errorf("%d objects, %v", len(found), err)
	}
}

// TestResume proves that an upload whose connection breaks publishes nothing, and goes on where it broke off.
func TestResume(t *testing.T) {
	t.Parallel()
	proxy, dir := proxied(t)
	body := remotetest.Noise("layer", 8<<20)
	once := openStore(t, proxy.URL("module"), func(o *Options) { o.Attempts = 1 })
	proxy.CutAfter(6 << 20)
	err := once.Put(t.Context(), "images/x/layer.tar", bytes.NewReader(body))
	if err == nil || !strings.Contains(err.Error(), "the connection broke") {
		t.Fatalf("broken off: %v", err)
	}
	proxy.CutAfter(-1)
	if _, err := once.Stat(t.Context(), "images/x/layer.tar"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("something is there: %v", err)
	}
	// The server notices the end of its connection by itself.
	waitFor(t, "the server to keep what came", func() bool {
		info, err := os.Stat(filepath.Join(dir, "images/x", partialDir, "layer.tar"))
		return err == nil && info.Size() > 4<<20
	})
	if keys := list(t, once); len(keys) != 0 {
		t.Errorf("listed: %q", keys)
	}
	proxy.Forget()
	if err := once.Put(t.Context(), "images/x/layer.tar", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if up, down := proxy.Bytes(); up+down > 4<<20 {
		t.Errorf("the second attempt took %d bytes", up+down)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "images/x/layer.tar")); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes there, %v", len(got), err)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// What is left of an upload that nobody goes on with is removed, and nothing else.
	proxy.CutAfter(6 << 20)
	if err := once.Put(t.Context(), "images/y/layer.tar", bytes.NewReader(body)); err == nil {
		t.Fatal("it was not broken off")
	}
	proxy.CutAfter(-1)
	waitFor(t, "the server to keep what came", func() bool {
		_, err := os.Stat(filepath.Join(dir, "images/y", partialDir, "layer.tar"))
		return err == nil
	})
	if err := os.MkdirAll(filepath.Join(dir, "images/z/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if n, err := once.Sweep(t.Context(), "", time.Hour); n != 0 || err != nil {
		t.Errorf("swept %d young ones, %v", n, err)
	}
	if n, err := once.Sweep(t.Context(), "", 0); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if keys := list(t, once); fmt.Sprint(keys) != "[images/x/layer.tar]" {
		t.Errorf("after the sweep: %q", keys)
	}
	if found, err := os.ReadDir(filepath.Join(dir, "images")); len(found) != 1 || err != nil {
		t.Errorf("directories after the sweep: %v, %v", found, err)
	}
}

// TestTriedAgain proves that one broken connection is not noticed, up and down.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	proxy, _ := proxied(t)
	told := make(chan string, 100)
	s := openStore(t, proxy.URL("module"), func(o *Options) {
		o.Notify = func(line string) {
			proxy.CutAfter(-1)
			told <- line
		}
	})
	body := remotetest.Noise("layer", 3<<20)
	proxy.CutAfter(1 << 20)
	if err := s.Put(t.Context(), "layer", bytes.NewReader(body)); err != nil || len(told) == 0 {
		t.Errorf("put: %v, %d retries", err, len(told))
	}
	if got, err := get(t.Context(), s, "layer"); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	before := len(told)
	proxy.CutAfter(20)
	if got, err := get(t.Context(), s, "layer"); err != nil || !bytes.Equal(got, body) || len(told) == before {
		t.Errorf("%d bytes, %v, %d retries", len(got), err, len(told)-before)
	}
}

func get(ctx context.Context, s *Store, key string) ([]byte, error) {
	r, err := storage.Part(ctx, s, key, 0, 1<<40)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

func list(t *testing.T, s *Store) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// waitFor waits for what comes by itself.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
