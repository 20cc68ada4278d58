package repo_test

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// recipe is the code of docs/format.md, "Getting an image out by hand".
func recipe(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"bash", "tar", "sed", "find", "sha256sum", "lz4", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: run script/bootstrap test", tool)
		}
	}
	doc, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Getting an image out by hand\n")
	if !ok {
		t.Fatal("docs/format.md has no section for it")
	}
	_, code, ok := strings.Cut(section, "\n```bash\n")
	code, _, end := strings.Cut(code, "\n```\n")
	if !ok || !end {
		t.Fatal("the section has no ```bash block")
	}
	return code
}

// byRecipe runs the recipe and returns the tree it makes, or what it says.
func byRecipe(t *testing.T, dir, name string) (map[string]string, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "root")
	script := fmt.Sprintf("remote='%s'\nimage='%s'\nout='%s'\n%s\n", dir, name, out, recipe(t))
	said, err := exec.CommandContext(t.Context(), "bash", "-c", script).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return files(t, out), nil
}

// files describes all that is below dir: type, rights, owner, content, and the
// first name of a file that has several.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		what := fi.Mode().String()
		switch {
		case fi.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what = "-> " + target
		case fi.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += " " + string(content)
		}
		if system, ok := fi.Sys().(*syscall.Stat_t); ok {
			if os.Geteuid() == 0 { // others cannot give files away
				what += fmt.Sprintf(" %d:%d", system.Uid, system.Gid)
			}
			if other, ok := first[system.Ino]; ok && fi.Mode().IsRegular() {
				what += " = " + other
			}
			first[system.Ino] = name
		}
		found[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func entryFile(name, content string) remotetest.Entry {
	return remotetest.Entry{Header: tar.Header{Name: name}, Content: content}
}

func entryDir(name string) remotetest.Entry {
	return remotetest.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func entryLink(name, target string, typeflag byte) remotetest.Entry {
	return remotetest.Entry{Header: tar.Header{Name: name, Linkname: target, Typeflag: typeflag, Mode: 0o777}}
}

// recipeLayers is a base, and what can be done to it.
func recipeLayers(t *testing.T) [][]byte {
	return [][]byte{
		remotetest.Tar(
			t,
			entryDir("a/"), entryFile("a/kept", "kept"), entryFile("a/gone", "gone"), entryFile("a/name with\nnewline", "odd"),
			entryDir("opaque/"), entryFile("opaque/old", "old"), entryDir("opaque/sub/"), entryFile("opaque/sub/old", "old"),
			entryDir("hard/"), entryFile("hard/one", "hard"), entryLink("hard/two", "hard/one", tar.TypeLink),
			entryLink("link", "a", tar.TypeSymlink), entryLink("absolute", "/etc", tar.TypeSymlink),
			entryFile("becomes-dir", "file"), entryDir("becomes-file/"), entryFile("becomes-file/inner", "inner"),
			entryDir("deleted/"), entryFile("deleted/inner", "inner"),
			remotetest.Entry{Header: tar.Header{Name: "owned", Uid: 1234, Gid: 4321, Mode: 0o4755}, Content: "owned"},
		),
		remotetest.Tar(
			t,
			entryDir("a/"), entryFile("a/.wh.gone", ""), entryFile("a/kept", "kept, again"),
			entryDir("opaque/"), entryFile("opaque/new", "new"), entryFile("opaque/.wh..wh..opq", ""), // not first
			entryFile(".wh.deleted", ""), entryFile(".wh.never-was", ""), entryFile(".wh..wh.plnk", ""),
			entryDir("becomes-dir/"), entryFile("becomes-dir/inner", "inner"), entryFile("becomes-file", "file"),
		),
		remotetest.Tar(
			t,
			entryDir("link/"), entryFile("link/inner", "no link any more"), entryFile("absolute", "no link any more"),
			entryFile("hard/two", "on its own"),
			entryDir("new/"), entryFile("new/one", "both"), entryLink("new/two", "new/one", tar.TypeLink),
		),
	}
}

func TestRecipe(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	layers := recipeLayers(t)
	img := remotetest.NewImage(t, "by hand", layers...)
	for i, c := range []codec.Codec{codec.LZ4, codec.Zstd, codec.None} {
		missing := img.Closure()
		missing.Documents, missing.Layers = nil, missing.Layers[i:i+1]
		if err := remotetest.Put(t.Context(), open(t, s, c), img, missing); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, s, codec.LZ4)
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "localhost:5000/myapp:1"), img); err != nil {
		t.Fatal(err)
	}
	owner, other := "", ""
	if os.Geteuid() == 0 {
		owner, other = " 0:0", " 1234:4321"
	}
	want := map[string]string{
		"a":                    "drwxr-xr-x" + owner,
		"a/kept":               "-rw-r--r-- kept, again" + owner,
		"a/name with\nnewline": "-rw-r--r-- odd" + owner,
		"absolute":             "-rw-r--r-- no link any more" + owner,
		"becomes-dir":          "drwxr-xr-x" + owner,
		"becomes-dir/inner":    "-rw-r--r-- inner" + owner,
		"becomes-file":         "-rw-r--r-- file" + owner,
		"hard":                 "drwxr-xr-x" + owner,
		"hard/one":             "-rw-r--r-- hard" + owner,
		"hard/two":             "-rw-r--r-- on its own" + owner,
		"link":                 "drwxr-xr-x" + owner,
		"link/inner":           "-rw-r--r-- no link any more" + owner,
		"new":                  "drwxr-xr-x" + owner,
		"new/one":              "-rw-r--r-- both" + owner,
		"new/two":              "-rw-r--r-- both" + owner + " = new/one",
		"opaque":               "drwxr-xr-x" + owner,
		"opaque/new":           "-rw-r--r-- new" + owner,
		"owned":                "urwxr-xr-x owned" + other,
	}
	got, err := byRecipe(t, dir, "localhost%3A5000/myapp/1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what comes out (-want +got):\n%s", diff)
	}

	// A layer that occurs again brings back what was deleted in between.
	again := remotetest.NewImage(t, "again", layers[0], layers[1], layers[0])
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "again:1"), again); err != nil {
		t.Fatal(err)
	}
	got, err = byRecipe(t, dir, "again/1")
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string]string{
		"a/gone": "-rw-r--r-- gone" + owner, "a/kept": "-rw-r--r-- kept" + owner, "opaque/new": "-rw-r--r-- new" + owner,
		"deleted/inner": "-rw-r--r-- inner" + owner, "hard/two": "-rw-r--r-- hard" + owner + " = hard/one", "link": "-> a" + owner, "becomes-dir": "-rw-r--r-- file" + owner,
	} {
		if got[name] != what {
			t.Errorf("%s is %q, want %q", name, got[name], what)
		}
	}

	// It unpacks nothing that is not what its name says.
	id := img.DiffIDs()[2].Hex()
	key := "images/" + id + "/layer.tar"
	tarball := get(t, s, key)
	tarball[600] ^= 1
	put(t, s, key, tarball)
	if _, err := byRecipe(t, dir, "localhost%3A5000/myapp/1"); err == nil || !strings.Contains(err.Error(), "damaged: layer "+id) {
		t.Errorf("a damaged layer: %v", err)
	}
	remove(t, s, key)
	if _, err := byRecipe(t, dir, "localhost%3A5000/myapp/1"); err == nil || !strings.Contains(err.Error(), "incomplete copy: entry "+id+" is missing") {
		t.Errorf("a missing layer: %v", err)
	}
	put(t, s, "images/"+img.ID.Hex()+"/json", append(img.Config, ' '))
	if _, err := byRecipe(t, dir, "localhost%3A5000/myapp/1"); err == nil || !strings.Contains(err.Error(), "damaged: ") {
		t.Errorf("a damaged config: %v", err)
	}
}

// TestRecipeGolden takes the golden images out by hand, the one whose layers are all tars.
func TestRecipeGolden(t *testing.T) {
	dir, err := filepath.Abs(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := byRecipe(t, dir, "myapp/by-hand")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 7 || !strings.HasPrefix(got["etc/issue"], "-> motd") {
		t.Errorf("what comes out: %v", got)
	}
}
