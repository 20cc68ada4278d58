//go:build unix

package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
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
	// A document on its way has a temporary file too, and that is renamed in a moment. The layer's stays while the bucket stalls.
	half := func() []string { return named(files(t, filepath.Join(cache, "images")), ".layer.tar") }
	proxy.SetFault(s3test.Between(12, -1, s3test.Is("GetObject"), s3test.Stall()))
	p := start(t, engine.Host, "pull", remote+proxy.Endpoint, ref, "--cache", cache)
	p.until("the cache has part of the layer", func() bool { return len(half()) > 0 })
	p.end(syscall.SIGKILL, -1, "")
	if left := half(); len(left) != 1 {
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
	p.until("the cache has part of the layer", func() bool { return len(half()) > 0 })
	p.end(syscall.SIGINT, 130, "dogestry: interrupted\n")
	if left := temporaryFiles(t, filepath.Join(cache, "images")); len(left) > 0 {
		t.Errorf("an interrupted pull left %q", left)
	}
}

// TestServeCache: clients who ask a server for one layer at once make the bucket send
// it once, and later ones not at all, also for a part of it. A server that is written to
// asks the bucket what is there.
func TestServeCache(t *testing.T) {
	engine := enginetest.For(t)
	img := wordsImage("served/app:1", []string{"served-one"})
	if err := engine.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	remote := "s3://" + bucket + "/images?endpoint="
	run(t, engine.Host, "push", remote+server.Endpoint, "served/app:1")
	var layer string // its digest
	for _, f := range files(t, server.Dir(bucket)) {
		if filepath.Base(f) == "layer.tar.lz4" {
			layer = filepath.Base(filepath.Dir(f))
		}
	}
	sent := func() (n int) {
		for _, r := range proxy.Requests() {
			if r.Op == "GetObject" && strings.HasSuffix(r.Path, "/layer.tar.lz4") {
				n++
			}
		}
		return n
	}
	cache := filepath.Join(t.TempDir(), "cache")
	for round, want := range []int{1, 0} {
		p, address := startServe(t, remote+proxy.Endpoint, "--cache", cache)
		blob := "http://" + address + "/v2/served/app/blobs/sha256:" + layer
		proxy.Reset()
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				got, err := httpGet(t.Context(), blob, "")
				if err == nil && image.DigestOf(got).Hex() != layer {
					err = fmt.Errorf("%d bytes came, and they are others", len(got))
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		part, err := httpGet(t.Context(), blob, "bytes=600-699")
		if err != nil || len(part) != 100 {
			t.Errorf("a part has %d bytes, %v", len(part), err)
		}
		if n := sent(); n != want {
			t.Errorf("round %d: the bucket sends the layer %d times, not %d", round, n, want)
		}
		p.end(syscall.SIGTERM, 0, "")
	}
	p, address := startServe(t, remote+proxy.Endpoint, "--cache", cache, "--writable")
	blob := "http://" + address + "/v2/served/app/blobs/sha256:" + layer
	proxy.Reset()
	if _, err := httpGet(t.Context(), blob, ""); err != nil || sent() != 0 {
		t.Errorf("%v; the bucket sends the layer %d times", err, sent())
	}
	if err := os.RemoveAll(filepath.Join(server.Dir(bucket), "images", "images", layer)); err != nil {
		t.Fatal(err)
	}
	if _, err := httpGet(t.Context(), blob, ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the bucket has lost it: %v", err)
	}
	p.end(syscall.SIGTERM, 0, "")
}

// httpGet reads an answer, or a part of it.
func httpGet(ctx context.Context, url, part string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, */*")
	if part != "" {
		r.Header.Set("Range", part)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}
