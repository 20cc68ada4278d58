package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/trust"
)

// TestRequests counts what commands ask of a bucket, which is what S3 charges
// for, and looks that docs/s3.md says so.
func TestRequests(t *testing.T) {
	engine := enginetest.For(t)
	for name, layers := range map[string][]string{
		"requests/app:1": {"requests-base", "requests-app", "requests-one"}, "requests/app:2": {"requests-base", "requests-app", "requests-two"},
	} {
		if err := engine.LoadImage(t.Context(), wordsImage(name, layers)); err != nil {
			t.Fatal(err)
		}
	}
	server := s3test.For(t)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	for _, v := range append(server.Environment(), "DOCKER_HOST="+engine.Host, "XDG_CACHE_HOME="+t.TempDir()) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	remote := "s3://" + bucket + "/images?endpoint=" + proxy.Endpoint
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "s3.md"))
	if err != nil {
		t.Fatal(err)
	}
	count := func(row string, args ...string) {
		t.Helper()
		proxy.Reset()
		var stdout, stderr strings.Builder
		if code := Main(args, &stdout, &stderr); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, stderr.String())
		}
		kinds := [][]string{{"PutObject"}, {"ListObjectsV2"}, {"GetObject", "HeadObject"}, {"DeleteObject"}}
		measured, all := fmt.Sprintf("| %s |", row), 0
		for _, ops := range kinds {
			n := proxy.Count(ops...)
			measured += fmt.Sprintf(" %d |", n)
			all += n
		}
		if !strings.Contains(string(text), measured+"\n") {
			t.Errorf("docs/s3.md does not say\n%s", measured)
		}
		if all != proxy.Count() {
			t.Errorf("%s: %d requests of other kinds", row, proxy.Count()-all)
		}
	}
	count("first push of the image", "push", remote, "requests/app:1")
	count("push again, nothing changed", "push", remote, "requests/app:1")
	count("push with a new top layer", "push", remote, "requests/app:2")
	count("the same with `--if-absent`, as another tag", "push", remote, "requests/app:2", "--as", "requests/app:3", "--if-absent")
	for _, name := range []string{"requests/app:1", "requests/app:2"} {
		if out, err := engine.Docker(t.Context(), nil, "rmi", name); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	count("pull into an engine without it", "pull", remote, "requests/app:1")
	count("pull again", "pull", remote, "requests/app:1")
	cache := filepath.Join(t.TempDir(), "cache")
	for _, row := range []string{"pull into an engine without it, with `--cache`", "the same when the cache has it"} {
		if out, err := engine.Docker(t.Context(), nil, "rmi", "requests/app:1"); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		count(row, "pull", remote, "requests/app:1", "--cache", cache)
	}
	key := filepath.Join(t.TempDir(), "key")
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	if _, err := trust.WriteKeys(key); err != nil {
		t.Fatal(err)
	}
	count("push again with `--sign-key`", "push", remote, "requests/app:1", "--sign-key", key)
	count("pull again with `--verify-key`", "pull", remote, "requests/app:1", "--verify-key", key+".pub")
	count("`list` of two images", "list", remote)
}
