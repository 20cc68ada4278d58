package rsync

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server with a module "module" of a new directory, which it returns.
func serve(t testing.TB, settings ...string) (s *rsynctest.Server, dir string) {
	t.Helper()
	dir = t.TempDir()
	return serveModules(t, rsynctest.Module{Name: "module", Path: dir, Settings: settings}), dir
}

func serveModules(t testing.TB, modules ...rsynctest.Module) *rsynctest.Server {
	t.Helper()
	s, err := rsynctest.Start(t.TempDir(), modules...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// openStore opens a URL, with a spool that has to be empty in the end.
func openStore(t testing.TB, url string, change ...func(*Options)) *Store {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Spool = t.TempDir()
	o.Backoff = 1e6 // a millisecond
	for _, c := range change {
		c(&o)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(o.Spool); err != nil || len(left) > 0 {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
	})
	return s
}

var every = flag.Bool("every", false, "TestStore runs the whole suite, which starts some thousand processes")

func TestStore(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	server, dir := serve(t)
	var opened atomic.Int64
	storagetest.Run(t, storagetest.Harness{
		Open: func(t *testing.T) storagetest.Target {
			// With what means something to rsync in the path of all keys.
			prefix := fmt.Sprintf("a [b]*/c%d", opened.Add(1))
			url := server.URL("module/" + strings.NewReplacer(" ", "%20", "[", "%5B", "]", "%5D", "*", "%2A").Replace(prefix))
			return storagetest.Target{
				A: openStore(t, url), B: openStore(t, url),
				Leftovers: func(t *testing.T) []string { return leftovers(t, filepath.Join(dir, prefix)) },
			}
		},
		Conflicts: true,
		Large:     3<<20 + 1, // larger than what goes together with others
		Many:      1100,
		Slow:      true,
		Brief:     !*every,
	})
}

// leftovers returns what lies in a directory that is no object.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && strings.HasPrefix(d.Name(), ".") {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return left
}
