// Package internal_test makes sure that the packages of this module import each
// other as docs/architecture.md says.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dogestry/dogestry/"

// rule is a row of the table in docs/architecture.md, "Import direction". Names
// are relative to internal/; one that ends with /* stands for all that is right
// below. What is here and what is there are changed together.
type rule struct {
	pkg string
	may []string
}

var rules = []rule{
	{"../cmd/dogestry", []string{"cli"}},
	{"../release", []string{"cli"}},
	{"cli", []string{
		"cli/progress", "config", "compose", "agent", "fleet", "transfer", "catalog", "names", "retention", "trust", "signature", "verify", "original", "readthrough", "repo", "registry/client", "registry/server", "registry/front", "registry/page", "layout", "dockerarchive", "engine", "remote", "codec", "storage", "storage/*", "sealed", "lockfile", "image", "fault",
	}},
	{"agent", []string{"fleet", "transfer", "remote", "sealed", "image", "fault"}},
	{"cli/progress", []string{"transfer"}},
	{"config", []string{"fault"}},
	{"compose", []string{"fault"}},
	{"fleet", []string{"transfer", "engine", "remote", "image", "fault"}},
	{"transfer", []string{"remote", "engine", "delta", "chunk", "codec", "cache", "image", "fault"}},
	{"catalog", []string{"cache", "original", "remote", "image", "fault"}},
	{"verify", []string{"original", "remote", "chunk", "codec", "image", "fault"}},
	{"original", []string{"cache", "remote", "image", "fault"}},
	{"names", []string{"retention", "remote", "image", "fault"}},
	{"retention", nil},
	{"trust", []string{"remote", "signature", "lockfile", "image", "fault"}},
	{"signature", []string{"image"}},
	{"repo", []string{"lease", "original", "remote", "storage", "chunk", "codec", "image", "fault"}},
	{"readthrough", []string{"repo", "remote", "storage", "codec", "image", "fault"}},
	{"registry/server", []string{"remote", "image", "fault"}},
	{"registry/client", []string{"remote", "cache", "chunk", "codec", "throttle", "sealed", "image", "fault"}},
	{"chunk", []string{"codec"}},
	{"delta", []string{"chunk", "codec", "image", "fault"}},
	{"layout", []string{"remote", "storage", "codec", "image", "fault"}},
	{"dockerarchive", []string{"layout", "remote", "storage", "codec", "lockfile", "image", "fault"}},
	{"lease", []string{"storage", "image"}},
	{"engine", []string{"engine/layerstore", "engine/contentstore", "sealed", "image", "fault"}},
	{"engine/*", []string{"image"}},
	{"remote", []string{"image", "fault"}},
	{"registry/front", []string{"image", "fault"}},
	{"registry/page", []string{"catalog", "remote", "image", "fault"}},
	{"storage/probe", []string{"storage"}},
	{"throttle", nil},
	{"storage/*", []string{"storage", "throttle", "sealed", "fault"}},
	{"storage", nil},
	{"codec", nil},
	{"cache", []string{"image"}},
	{"lockfile", nil},
	{"sealed", []string{"fault"}},
	{"image", nil},
	{"fault", nil},

	// What tests, benchmarks and the soak are made of. Only these may import it; testOnly says so.
	{"storage/storagetest", []string{"storage"}},
	{"storage/s3/s3test", nil},
	{"storage/ssh/sshtest", nil},
	{"storage/web/webtest", nil},
	{"storage/rsync/rsynctest", nil},
	{"remote/remotetest", []string{"remote", "image", "fault"}},
	{"original/originaltest", nil},
	{"registry/registrytest", []string{"image"}},
	{"lease/model", nil},
	{"enginetest", nil},
	{"enginetest/hello", nil},
	{"../bench", []string{"enginetest", "storage/s3/s3test", "storage/rsync/rsynctest"}},
	{"../soak", []string{
		"transfer", "names", "retention", "repo", "lease", "remote", "codec", "storage", "storage/file", "storage/s3", "storage/mem", "image", "fault",
		"enginetest", "remote/remotetest", "storage/s3/s3test", "storage/storagetest",
	}},
}

var testOnly = []string{"enginetest", "storage/storagetest", "storage/s3/s3test", "storage/ssh/sshtest", "storage/rsync/rsynctest", "storage/web/webtest", "remote/remotetest", "original/originaltest", "registry/registrytest", "lease/model"}

// TestImportDirection asks the go command what imports what, tests apart.
func TestImportDirection(t *testing.T) {
	imports := importsOfModule(t)
	for pkg, imported := range imports {
		r, ok := ruleFor(pkg)
		if !ok {
			t.Errorf("%s has no row in the table of imports: add it here and to docs/architecture.md", pkg)
			continue
		}
		for _, i := range imported {
			if !slices.ContainsFunc(r.may, func(pattern string) bool { return matches(pattern, i) }) {
				t.Errorf("%s imports %s: docs/architecture.md does not allow it", pkg, i)
			}
			if slices.Contains(testOnly, i) && pkg != "../bench" && pkg != "../soak" {
				t.Errorf("%s imports %s, which is for tests and benchmarks", pkg, i)
			}
			if matches("storage/*", i) && pkg != "cli" && pkg != "../soak" {
				t.Errorf("%s imports %s: only cli names concrete transports", pkg, i)
			}
		}
	}
	for _, r := range rules {
		found := false
		for pkg := range imports {
			got, ok := ruleFor(pkg)
			found = found || ok && got.pkg == r.pkg
		}
		if !found {
			t.Errorf("the table has a row for %s, which is no package", r.pkg)
		}
	}
}

// importsOfModule returns the packages of this module, and what each imports of
// it outside its tests.
func importsOfModule(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,GoFiles", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	imports := map[string][]string{}
	for list := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
			GoFiles    []string
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !ours(p.ImportPath) || len(p.GoFiles) == 0 {
			continue
		}
		own := []string{}
		for _, i := range p.Imports {
			if ours(i) {
				own = append(own, short(i))
			}
		}
		imports[short(p.ImportPath)] = own
	}
	if len(imports) < 10 {
		t.Fatalf("go list found only %d packages of this module", len(imports))
	}
	return imports
}

func ours(importPath string) bool { return strings.HasPrefix(importPath+"/", module) }

// short is a package's path relative to internal/.
func short(importPath string) string {
	p := strings.TrimPrefix(importPath, module)
	if inner, ok := strings.CutPrefix(p, "internal/"); ok {
		return inner
	}
	return "../" + p
}

// ruleFor returns the row of a package; its own goes before one that ends with /*.
func ruleFor(pkg string) (rule, bool) {
	for _, r := range rules {
		if r.pkg == pkg {
			return r, true
		}
	}
	for _, r := range rules {
		if matches(r.pkg, pkg) {
			return r, true
		}
	}
	return rule{}, false
}

func matches(pattern, pkg string) bool {
	ok, err := path.Match(pattern, pkg)
	return err == nil && ok
}
