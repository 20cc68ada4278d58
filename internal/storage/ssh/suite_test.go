package ssh

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

var every = flag.Bool("every", false, "TestStore runs the whole suite")

func TestStore(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	h := storagetest.Harness{
		Open: func(t *testing.T) storagetest.Target {
			dir := t.TempDir()
			return storagetest.Target{A: openAt(t, server, dir), B: openAt(t, server, dir), Leftovers: func(t *testing.T) []string { return leftovers(t, dir) }}
		},
		Create:    true,
		Ranges:    true,
		Conflicts: true,
		Large:     5<<20 + 1, // more than the pieces that are on their way
		Many:      300,
		Brief:     !*every,
	}
	storagetest.Run(t, h)
}

func openAt(t *testing.T, server *sshtest.Server, dir string) *Store {
	t.Helper()
	return openURL(t, server.URL(dir))
}

func openURL(t *testing.T, url string) *Store {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// leftovers returns what is below dir that is no object: names that begin with a dot, and empty directories.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if strings.HasPrefix(entry.Name(), ".") {
			left = append(left, path)
		}
		if entry.IsDir() {
			entries, err := os.ReadDir(path)
			if err == nil && len(entries) == 0 {
				left = append(left, path+"/")
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}
