package transfer

import (
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// TestCrossing: an image with compressed layers, pushed by an engine with the containerd image store, is pulled by engines of
// the other kinds by its config, and comes back as it was made.
func TestCrossing(t *testing.T) {
	eachContainerd(t, func(t *testing.T, e *enginetest.Engine, from *counted) {
		m := layered("crossed", "cross-a", "cross-b", "cross-c")
		var l enginetest.Layout
		n := l.Image(m, enginetest.Gzip, enginetest.Zstd, enginetest.Raw)
		loadLayout(t, e, &l, n, "much:crossed")
		r := remoteIn(t, t.TempDir())
		mustPush(t, from, r, "much:crossed")
		crossed := func(t *testing.T, e *enginetest.Engine, client *counted) {
			defer removeAll(t, e, "much:crossed")
			got := mustPull(t, r, client, "much:crossed")[0]
			if id, _, err := e.ImageID(t.Context(), "much:crossed"); err != nil || id != m.ID() || got.ID.String() != id || len(moved(got)) != 3 {
				t.Errorf("%+v, the engine has %s, want %s, error %v", got, id, m.ID(), err)
			}
			if again := moved(mustPush(t, client, r, "much:crossed")[0]); len(again) > 0 {
				t.Errorf("back to where it came from, %q move", again)
			}
			checkWhole(t, r, "much:crossed", m)
			saved, err := e.Saved(t.Context(), "much:crossed")
			if err == nil {
				err = saved.Check(m)
			}
			if err != nil {
				t.Error(err)
			}
		}
		eachEngine(t, crossed)
		eachPodman(t, crossed)
		// By now the tag names the config. The engine that pushed the manifest pulls what the remote's format makes of it.
		mustPull(t, r, from, "much:crossed")
	})
}
