package web

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage/storagetest"
	"github.com/dogestry/dogestry/internal/storage/web/webtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStore reads what real and poor servers publish.
func TestStore(t *testing.T) {
	nginx := func(o webtest.Options) func(*testing.T, string) string {
		return func(t *testing.T, dir string) string { return webtest.Start(t, dir, o).URL() }
	}
	for name, c := range map[string]struct {
		serve    func(t *testing.T, dir string) (url string)
		unlisted bool
	}{
		"nginx with lists": {nginx(webtest.Options{Lists: true}), false},
		"nginx":            {nginx(webtest.Options{}), true},
		"nginx with HTML":  {nginx(webtest.Options{Lines: "autoindex on;"}), true},
		"without ranges":   {nginx(webtest.Options{Lines: "max_ranges 0;"}), true},
		"Go": {func(t *testing.T, dir string) string {
			return serve(t, http.FileServer(http.Dir(dir)))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, storagetest.Harness{
				ReadOnly: true, Unlisted: c.unlisted, Ranges: true,
				Open: func(t *testing.T) storagetest.Target {
					dir := t.TempDir()
					url := c.serve(t, dir)
					return storagetest.Target{A: open(t, url), B: open(t, url), Fill: func(t *testing.T, key string, body []byte) { fill(t, dir, key, body) }}
				},
			})
		})
	}
}

// TestGetExact: of a server without ranges no part comes, where it would send more than that.
func TestGetExact(t *testing.T) {
	for name, lines := range map[string]string{"ranges": "", "none": "max_ranges 0;"} {
		dir := t.TempDir()
		fill(t, dir, "key", []byte("0123456789"))
		s := open(t, webtest.Start(t, dir, webtest.Options{Lines: lines}).URL())
		for _, c := range []struct {
			offset, length int64
			want           string
			whole          bool
		}{{0, -1, "0123456789", true}, {0, 10, "0123456789", true}, {0, 99, "0123456789", true}, {0, 9, "012345678", false}, {1, -1, "123456789", false}, {4, 2, "45", false}} {
			r, err := s.GetExact(t.Context(), "key", c.offset, c.length)
			if name == "none" && !c.whole {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("%s, from %d on %d: %v", name, c.offset, c.length, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, from %d on %d: %v", name, c.offset, c.length, err)
				continue
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != c.want || r.Close() != nil {
				t.Errorf("%s, from %d on %d: %q, %v", name, c.offset, c.length, got, err)
			}
		}
	}
}

// serve answers requests until the test ends.
func serve(t *testing.T, handler http.Handler) (url string) {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	return openWith(t, url, func(*Options) {})
}

func openWith(t *testing.T, url string, change func(*Options)) *Store {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.NetRC = filepath.Join(t.TempDir(), "none")
	o.Backoff = 1
	change(&o)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fill(t *testing.T, dir, key string, body []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatal(err)
	}
}
