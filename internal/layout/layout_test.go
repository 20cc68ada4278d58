package layout_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRemote is what every remote promises, of a layout in a directory.
func TestRemote(t *testing.T) {
	remotetest.Run(t, remotetest.Harness{
		Open: func(t *testing.T) remotetest.Target {
			dir := t.TempDir()
			return remotetest.Target{
				A: create(t, dir),
				B: create(t, dir),
				Forge: func(t *testing.T, l remote.Layer, tar []byte) {
					t.Helper()
					if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(l.Object)), tar, 0o644); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	})
}

func store(t testing.TB, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// create opens a layout, which may be new.
func create(t testing.TB, dir string) *layout.Target {
	t.Helper()
	l, err := layout.Create(t.Context(), store(t, dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
