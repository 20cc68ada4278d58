package transfer

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/verify"
)

// TestContainerdRepairs: whatever object of an index is damaged, in its right size or by being gone, a verification with
// the engine beside it writes it again, and what was stored of other platforms stays as it was.
func TestContainerdRepairs(t *testing.T) { eachContainerd(t, testContainerdRepairs) }

func testContainerdRepairs(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("repaired", "repair-a", "repair-b")
	var l enginetest.Layout
	n := l.Image(m, enginetest.Gzip).For("linux", runtime.GOARCH)
	index := l.Index(n)
	loadLayout(t, e, &l, index, "much:repaired")
	bothWays(t, e, func(t *testing.T, client *counted) {
		dir := t.TempDir()
		r := remoteIn(t, dir)
		mustPush(t, client, r, "much:repaired")
		objects, err := filepath.Glob(filepath.Join(dir, "images", "*", "*"))
		must(t, err)
		repaired := 0
		for _, object := range objects {
			name := filepath.Base(object)
			if name == "VERSION" || strings.HasPrefix(name, "held-") {
				continue
			}
			whole, err := os.ReadFile(object)
			must(t, err)
			for how, damage := range map[string]func() error{
				"flipped": func() error { return flipByte(object) },
				"removed": func() error { return os.Remove(object) },
			} {
				must(t, damage())
				report, err := verify.Run(t.Context(), r, verify.Options{Mender: &Mender{From: client, To: r}})
				must(t, err)
				if report.Left() > 0 {
					t.Errorf("%s is %s: %+v", object, how, report.Findings)
				}
				repaired += len(report.Findings)
				if report, err = verify.Run(t.Context(), r, verify.Options{}); err != nil || len(report.Findings) > 0 {
					t.Errorf("%s was %s: %+v, %v", object, how, report.Findings, err)
				}
				must(t, os.WriteFile(object, whole, 0o644))
			}
		}
		if repaired < 2*len(n.Blobs) {
			t.Errorf("only %d objects of %d were repaired", repaired, len(objects))
		}
		// Which platforms are here.
		for _, object := range objects {
			if strings.HasPrefix(filepath.Base(object), "held-") {
				must(t, os.Remove(object))
			}
		}
		report, err := verify.Run(t.Context(), r, verify.Options{Mender: &Mender{From: client, To: r}})
		if err != nil || report.Left() > 0 || len(report.Findings) != 1 || report.Findings[0].Problem != verify.Unmarked {
			t.Errorf("without marks: %+v, %v", report.Findings, err)
		}
		checkWhole(t, r, "much:repaired", m)
		noTemporary(t, dir)
	})
}
