//go:build unix

package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// TestEngines: an image that one engine pushed is pulled by any other.
func TestEngines(t *testing.T) {
	const ref = enginetest.Repository + "/anywhere:1"
	var all []*enginetest.Engine
	collect := func(_ *testing.T, e *enginetest.Engine) { all = append(all, e) }
	enginetest.Each(t, collect)
	enginetest.EachContainerd(t, collect)
	for i, from := range all {
		if err := from.LoadImage(t.Context(), wordsImage(ref, []string{"anywhere"})); err != nil {
			t.Fatal(err)
		}
		remote := filepath.Join(t.TempDir(), "remote")
		run(t, from.Host, "push", remote, ref)
		pushed := inspectID(t, from, ref)
		for j, to := range all {
			if _, err := to.Docker(t.Context(), nil, "rmi", "-f", ref); err != nil && !strings.Contains(err.Error(), "No such image") {
				t.Fatal(err)
			}
			run(t, to.Host, "pull", remote, ref)
			if got := inspectID(t, to, ref); i == j && got != pushed {
				t.Errorf("engine %d pushed %s and pulled %s", i, pushed, got)
			}
			if moved := run(t, to.Host, "pull", "--json", remote, ref); !strings.Contains(moved, `"moved": false`) || strings.Contains(moved, `"moved": true`) {
				t.Errorf("engine %d, pushed by %d: a second pull says %s", j, i, moved)
			}
		}
		if err := from.LoadImage(t.Context(), wordsImage(ref, []string{"anywhere"})); err != nil {
			t.Fatal(err)
		}
	}
}

func inspectID(t *testing.T, e *enginetest.Engine, ref string) string {
	t.Helper()
	id, err := e.Docker(t.Context(), nil, "inspect", "--format", "{{.Id}}", ref)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(id))
}
