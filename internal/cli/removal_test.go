//go:build unix

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// TestSignalDuringRemoval interrupts rm and prune among many tags: what is said to be
// removed is gone, all else is there, and that and the error are one document.
func TestSignalDuringRemoval(t *testing.T) {
	for name, args := range map[string][]string{
		"rm":    {"rm", "--json", "--yes", "REMOTE", "app:*"},
		"prune": {"prune", "--json", "--yes", "REMOTE", "--keep", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			const tags = 4_000 // take a while to be removed
			dir := t.TempDir()
			below := filepath.Join(dir, "repositories", "app")
			if err := os.MkdirAll(below, 0o777); err != nil {
				t.Fatal(err)
			}
			id := image.DigestOf([]byte("an image")).Hex()
			for i := range tags {
				if err := os.WriteFile(filepath.Join(below, fmt.Sprintf("v%04d", i)), []byte(id), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			for i, arg := range args {
				if arg == "REMOTE" {
					args[i] = dir
				}
			}
			p := start(t, "unix:///nowhere.sock", args...)
			p.until("some are removed", func() bool { return len(named(files(t, dir), "v")) < tags })
			p.end(syscall.SIGINT, exitInterrupted, "dogestry: interrupted\n")
			var result struct {
				Tags []struct {
					Reference string
					Removed   bool
					Fate      string
				}
				Error struct{ Message string }
			}
			p.oneDocument(&result)
			if result.Error.Message != "interrupted" || len(result.Tags) != tags {
				t.Errorf("the error is %q, of %d tags", result.Error.Message, len(result.Tags))
			}
			gone := 0
			for _, tag := range result.Tags {
				_, err := os.Lstat(filepath.Join(below, tag.Reference[len("app:"):]))
				told := tag.Removed || tag.Fate == "removed"
				if told && !os.IsNotExist(err) {
					t.Errorf("%s is said to be removed: %v", tag.Reference, err)
				}
				if told {
					gone++
				}
			}
			left := len(named(files(t, dir), "v"))
			if gone == 0 || left == 0 || left > tags-gone {
				t.Errorf("%d are said to be removed, %d are left", gone, left)
			}
			if temporary := temporaryFiles(t, dir); len(temporary) > 0 {
				t.Errorf("left over: %q", temporary)
			}
		})
	}
}
