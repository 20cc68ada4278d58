//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestCacheOfBucket pulls an image from a bucket twice: the second time no layer and
// no document is read there, and by its digest it comes when nobody answers any more.
func TestCacheOfBucket(t *testing.T) {
	engine := enginetest.For(t)
	if err := engine.LoadImage(t.Context(), wordsImage("cached/app:1", []string{"cached-base", "cached-app"})); err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	setAccount(t, server.Account)
	t.Setenv("DOCKER_HOST", engine.Host)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	remote := "s3://" + bucket + "/images?endpoint=" + proxy.Endpoint
	cache := filepath.Join(t.TempDir(), "cache")
	mainWants(t, 0, "push", remote, "cached/app:1", "--engine-store=off")
	id, err := os.ReadFile(filepath.Join(server.Dir(bucket), "images", "repositories", "cached", "app", "1"))
	if err != nil {
		t.Fatal(err)
	}
	digest := "cached/app@sha256:" + strings.TrimSpace(string(id))
	remove := func() {
		t.Helper()
		if out, err := engine.Docker(t.Context(), nil, "rmi", "cached/app:1"); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	// entries counts the requests for what is in images/.
	entries := func() (n int) {
		for _, r := range proxy.Requests() {
			if strings.Contains(r.Path, "/images/images/") || strings.HasPrefix(r.Query.Get("prefix"), "images/images/") {
				n++
			}
		}
		return n
	}
	for _, warm := range []bool{false, true} {
		remove()
		proxy.Reset()
		mainWants(t, 0, "pull", remote, "cached/app:1", "--cache", cache)
		if n := entries(); (n == 0) != warm {
			t.Errorf("with a cache that has it (%t): %d requests for layers and documents", warm, n)
		}
	}
	remove()
	proxy.Close()
	_, stderr := mainWants(t, 1, "pull", remote, "cached/app:1", "--cache", cache)
	if !strings.Contains(stderr, "cannot ask what cached/app:1 names") || !strings.Contains(stderr, "cached/app@sha256:") {
		t.Errorf("a tag that nobody can be asked for:\n%s", stderr)
	}
	mainWants(t, 0, "pull", remote, digest, "--as", "cached/app:1", "--cache", cache)
	if _, ok, err := engine.ImageID(t.Context(), "cached/app:1"); !ok || err != nil {
		t.Errorf("the engine has no image, %v", err)
	}
}

// TestCacheOfTwo lets two processes copy through one cache at once, which is too small
// for what they copy.
func TestCacheOfTwo(t *testing.T) {
	dir := t.TempDir()
	golden := filepath.Join("..", "..", "testdata", "golden", "2.0")
	cache := filepath.Join(dir, "cache")
	var all []*process
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, start(t, "unix:///nowhere.sock", "copy", golden, filepath.Join(dir, name), "--all", "--cache", cache, "--cache-size", "6kB"))
	}
	for _, p := range all {
		p.mustSucceed()
		if told := p.stderr.String(); strings.Contains(told, "cache") {
			t.Errorf("it tells\n%s", told)
		}
	}
	want := files(t, filepath.Join(dir, "a"))
	if len(want) == 0 {
		t.Error("nothing was copied")
	}
	for _, name := range []string{"b", "c"} {
		for i, f := range files(t, filepath.Join(dir, name)) {
			if rel, _ := filepath.Rel(filepath.Join(dir, name), f); !slices.Contains(want, filepath.Join(dir, "a", rel)) {
				t.Errorf("file %d of %s, %s, is not in the other copy", i, name, rel)
			}
		}
	}
}

// TestKilledWithCache kills a pull while a layer is on its way into the cache: what is
// left there is swept by the next one, which goes through.
func TestKilledWithCache(t *testing.T) {
	engine := enginetest.For(t)
	ref := oneLayer(t, engine, 30<<20)
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	remote := "s3://" + bucket + "/images?endpoint="
	cache := filepath.Join(t.TempDir(), "cache")
	run(t, engine.Host, "push", "--engine-store=off", "--compression=none", remote+server.Endpoint, ref)
	remove := func() {
		t.Helper()
		if out, err := engine.Docker(t.Context(), nil, "rmi", ref); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	remove()
	proxy.SetFault(s3test.Between(12, -1, s3test.Is("GetObject"), s3test.Stall()))
	p := start(t, engine.Host, "pull", remote+proxy.Endpoint, ref, "--cache", cache)
	p.until("the cache has part of it", func() bool { return len(temporaryFiles(t, filepath.Join(cache, "images"))) > 0 })
	p.end(syscall.SIGKILL, -1, "")
	if left := temporaryFiles(t, filepath.Join(cache, "images")); len(left) != 1 {
		t.Errorf("a killed pull left %q", left)
	}
	run(t, engine.Host, "pull", remote+server.Endpoint, ref, "--cache", cache)
	if left := temporaryFiles(t, filepath.Join(cache, "images")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}

	// A signal that can be caught leaves nothing.
	remove()
	if err := os.RemoveAll(filepath.Join(cache, "images")); err != nil {
		t.Fatal(err)
	}
	proxy.SetFault(s3test.Between(12, -1, s3test.Is("GetObject"), s3test.Stall()))
	p = start(t, engine.Host, "pull", remote+proxy.Endpoint, ref, "--cache", cache)
	p.until("the cache has part of it", func() bool { return len(temporaryFiles(t, filepath.Join(cache, "images"))) > 0 })
	p.end(syscall.SIGINT, 130, "dogestry: interrupted\n")
	if left := temporaryFiles(t, filepath.Join(cache, "images")); len(left) > 0 {
		t.Errorf("an interrupted pull left %q", left)
	}
}
