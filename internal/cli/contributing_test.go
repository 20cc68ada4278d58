package cli

import (
	"os"
	"strings"
	"testing"
)

// TestContributingShowsTheTable: the diff of CONTRIBUTING.md that adds a transport
// still fits.
func TestContributingShowsTheTable(t *testing.T) {
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("open.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "the table of transports in `internal/cli/open.go`")
	_, diff, _ := strings.Cut(section, "```diff\n")
	diff, _, ok := strings.Cut(diff, "```\n")
	if !ok {
		t.Fatal("CONTRIBUTING.md has no diff of the table")
	}
	var context string
	for line := range strings.Lines(diff) {
		if kept, ok := strings.CutPrefix(line, "  "); ok {
			context += kept
		}
	}
	if context == "" || !strings.Contains(string(table), context) {
		t.Errorf("open.go has not\n%s", context)
	}
}

// TestTransports: each is found by its scheme, and its names are its own.
func TestTransports(t *testing.T) {
	for scheme := range transports() {
		name := scheme + "://localhost/such/place"
		if err := checkRemote(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id := canonical(name); !strings.HasPrefix(id, scheme+"\n") {
			t.Errorf("%s is %q in caches: another transport could have that name too", name, id)
		}
	}
}
