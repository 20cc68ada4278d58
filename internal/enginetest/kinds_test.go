package enginetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKindsOnThisMachine tells whoever reads `make test` which engines it runs on.
func TestKindsOnThisMachine(t *testing.T) {
	if err := Describe(os.Stdout); err != nil {
		t.Error(err)
	}
	if err := checkRequired(); err != nil {
		t.Error(err)
	}
}

// TestKindsAreWhatTheyPromise: each has the store that its name says.
func TestKindsAreWhatTheyPromise(t *testing.T) {
	look := func(containerd bool) func(t *testing.T, e *Engine) {
		return func(t *testing.T, e *Engine) {
			got, err := e.ContainerdStore(t.Context())
			if err != nil || got != containerd {
				t.Errorf("containerd image store: %v, want %v, error %v", got, containerd, err)
			}
			if err := e.LoadImage(t.Context(), oneFile("kinds").Tag(Repository+"/kinds:1")); err != nil {
				t.Error(err)
			}
			// Tests look into these folders, and would see nothing in others.
			_, err = os.Stat(filepath.Join(e.DataRoot(), "image/overlay2/layerdb/sha256"))
			if e.Private() && !containerd && err != nil {
				t.Errorf("it has no classic store: %v", err)
			}
		}
	}
	Each(t, look(false))
	EachContainerd(t, look(true))
}

func TestRequiredKinds(t *testing.T) {
	t.Setenv(RequiredVariable, "system,31x")
	if err := checkRequired(); err == nil || !strings.Contains(err.Error(), "31x") {
		t.Errorf("an unknown kind is required: %v", err)
	}
	t.Setenv(RequiredVariable, "system")
	if err := checkRequired(); err != nil {
		t.Error(err)
	}
	k := Kind{Name: "none", Options: Options{Bin: t.TempDir()}}
	if err := k.missing(); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("an engine without a dockerd is there: %v", err)
	}
}
