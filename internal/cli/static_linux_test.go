package cli

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What make runs to build the program.
var buildLine = regexp.MustCompile(`(?m)^build:.*\n\t(.*) -o bin/dogestry (\./cmd/dogestry)$`)

// TestStatic builds the program as make does, and looks that it runs anywhere:
// the system loads it without a loader or libraries that could be missing, or
// other ones, on another machine.
func TestStatic(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds the program")
	}
	const root = "../.."
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	line := buildLine.FindSubmatch(makefile)
	if line == nil {
		t.Fatal("the Makefile has no line that builds bin/dogestry")
	}
	program := filepath.Join(t.TempDir(), "dogestry")
	command := strings.NewReplacer("$(VERSION)", "such-version", "$(COMMIT)", "such-commit").Replace(string(line[1])) + " -o '" + program + "' " + string(line[2])
	build := exec.CommandContext(t.Context(), "sh", "-c", command)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it has a segment %s", p.Type)
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("it needs %q (error: %v)", libraries, err)
	}
	if out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), "dogestry such-version (commit such-commit, ") {
		t.Errorf("dogestry --version: %v\n%s", err, out)
	}
}
