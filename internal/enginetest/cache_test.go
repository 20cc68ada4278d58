package enginetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestOnce makes a folder, finds it again, and makes it anew by another recipe.
func TestOnce(t *testing.T) {
	t.Setenv(CacheVariable, t.TempDir())
	built := 0
	for _, step := range []struct {
		recipe string
		built  int
	}{{"one", 1}, {"one", 1}, {"another", 2}, {"another", 2}} {
		dir, err := once(t.Context(), "folder", step.recipe, func(_ context.Context, path string) error {
			built++
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(path, "recipe"), []byte(step.recipe), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, "recipe"))
		if err != nil || string(content) != step.recipe || built != step.built {
			t.Errorf("by recipe %q: %q (%v), built %d times", step.recipe, content, err, built)
		}
	}
}
