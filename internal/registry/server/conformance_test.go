package server_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/storage/mem"
)

// conformance is the tool of the OCI distribution specification; script/bootstrap
// test puts it there.
const conformance = "../../../.cache/bin/conformance"

// TestConformance runs all workflows of the tool. What is not taken here is turned
// off, and docs/serve.md says why: then nothing fails. That as many pass as have to,
// is asked too: the tool calls it a success when it has tested nothing.
func TestConformance(t *testing.T) {
	r := open(t, mem.New())
	got := r.conform("OCI_DATA_INDEX_LIST=false", "OCI_DATA_NONDISTRIBUTABLE=false", "OCI_API_BLOBS_DELETE=false",
		"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true")
	if want := (counts{"Pass": 471, "Skip": 0, "FAIL": 0, "Error": 0}); got.wrong(want) || got.exit != 0 {
		t.Errorf("conformance: %v, exit %d, want %v\n%s", got.counts, got.exit, want, got.failures())
	}
}

// TestConformanceOfAll runs it with what is not taken. Nothing else fails.
func TestConformanceOfAll(t *testing.T) {
	r := open(t, mem.New())
	got := r.conform()
	for _, failed := range got.failed {
		if group, _, _ := strings.Cut(failed, "/"); group != "nested-index" && group != "non-distributable-layers" {
			t.Errorf("%s fails", failed)
		}
	}
	if want := (counts{"FAIL": 14, "Error": 0}); got.wrong(want) {
		t.Errorf("conformance: %v, want %v", got.counts, want)
	}
}

// TestConformanceReadOnly runs it against a server that takes nothing, with what
// dogestry has pushed.
func TestConformanceReadOnly(t *testing.T) {
	img := testImage(t, "app")
	writer := open(t, mem.New())
	writer.push("a/b:1", img)
	r := open(t, writer.store, func(s *settings) { s.readOnly = true })
	got := r.conform("OCI_API_PUSH=false", "OCI_RO_DATA_TAGS=1", "OCI_RO_DATA_MANIFESTS="+digestOf(img.Manifest()),
		"OCI_RO_DATA_BLOBS="+digestOf(img.Config)+" "+digestOf(img.Layers[0]), "OCI_RO_DATA_REFERRERS="+digestOf(img.Manifest()))
	if want := (counts{"Pass": 16, "FAIL": 0, "Error": 0}); got.wrong(want) {
		t.Errorf("conformance: %v, exit %d, want %v\n%s", got.counts, got.exit, want, got.out)
	}
}

// counts are how many tests ended how.
type counts map[string]int

// conformed is what the tool says.
type conformed struct {
	counts
	exit   int
	failed []string // tests, by their path, without groups of them
	out    string
}

func (c conformed) wrong(want counts) bool {
	for name, n := range want {
		if got, ok := c.counts[name]; !ok || got != n {
			return true
		}
	}
	return false
}

// failures are the lines about what has failed.
func (c conformed) failures() string {
	var b strings.Builder
	for line := range strings.Lines(c.out) {
		if strings.Contains(line, "level=WARN") {
			b.WriteString(line)
		}
	}
	return b.String()
}

var (
	counted    = regexp.MustCompile(`(?m)^  (Disabled|Skip|Pass|FAIL|Error)\.*: +([0-9]+)$`)
	failedTest = regexp.MustCompile(`msg="failed test" name="OCI Conformance Test/([^"]+)"`)
)

// conform runs the tool in an environment that is nothing but what is said here.
func (r *registry) conform(env ...string) conformed {
	r.Helper()
	if testing.Short() {
		r.Skip("it takes seconds, and a minute with the race detector")
	}
	program, err := filepath.Abs(conformance)
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.CommandContext(r.Context(), program)
	cmd.Dir = r.TempDir()
	cmd.Env = append([]string{
		"OCI_REGISTRY=" + strings.TrimPrefix(r.url, "http://"), "OCI_TLS=disabled", "OCI_VERSION=1.1", "OCI_DATA_SHA512=false",
		"OCI_REPO1=a/b", "OCI_REPO2=a/c", "OCI_RESULTS_DIR=" + filepath.Join(cmd.Dir, "results"),
	}, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.Is(err, os.ErrNotExist) {
		r.Fatal("no conformance tool: run script/bootstrap test")
	} else if err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	c := conformed{counts: counts{}, exit: cmd.ProcessState.ExitCode(), out: out.String()}
	for _, m := range counted.FindAllStringSubmatch(c.out, -1) {
		if c.counts[m[1]], err = strconv.Atoi(m[2]); err != nil {
			r.Fatal(err)
		}
	}
	for _, m := range failedTest.FindAllStringSubmatch(c.out, -1) {
		c.failed = append(c.failed, m[1])
	}
	if len(c.counts) == 0 {
		r.Fatalf("the tool says nothing: %s", c.out)
	}
	return c
}
