//go:build !linux

package file

import (
	"runtime"
	"testing"
)

// foldingDirectory returns a directory where case is ignored, or "" and why there is none.
func foldingDirectory(t *testing.T) (dir, how string) {
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		return t.TempDir(), "as usual on " + runtime.GOOS
	}
	return "", "none is known on " + runtime.GOOS
}
