//go:build unix

package repo_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// recipe is the code of docs/format.md, "Getting an image out by hand".
func recipe(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"bash", "tar", "sed", "find", "sha256sum", "od", "lz4", "zstd", "gzip"} {
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

// byRecipe runs the recipe and returns the tree it makes, or what it says. What
// is set besides are lines of the shell.
func byRecipe(t *testing.T, dir, name string, set ...string) (map[string]string, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "root")
	script := fmt.Sprintf("remote='%s'\nimage='%s'\nout='%s'\n%s\n%s\n", dir, name, out, strings.Join(set, "\n"), recipe(t))
	said, err := exec.CommandContext(t.Context(), "bash", "-c", script).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return files(t, out), nil
}

// files describes all that is below dir: type, rights, owner, content, numbers of
// devices, extended attributes, and the first name of a file that has several.
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
		what += attributes(t, path)
		if system, ok := fi.Sys().(*syscall.Stat_t); ok {
			if os.Geteuid() == 0 { // others cannot give files away
				what += fmt.Sprintf(" %d:%d", system.Uid, system.Gid)
			}
			if fi.Mode().Type()&fs.ModeDevice != 0 {
				what += fmt.Sprintf(" %d,%d", unix.Major(uint64(system.Rdev)), unix.Minor(uint64(system.Rdev)))
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

// attributes are the extended attributes that a layer can have of a file.
func attributes(t *testing.T, path string) (all string) {
	t.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.Trim(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue // the system's own
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return all
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

// netRaw is what setcap writes for cap_net_raw+ep (linux/capability.h, vfs_cap_data).
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func entryWith(name, content string, attributes map[string]string) remotetest.Entry {
	e := entryFile(name, content)
	e.PAXRecords = map[string]string{}
	for k, v := range attributes {
		e.PAXRecords["SCHILY.xattr."+k] = v
	}
	return e
}

func entryDevice(name string, typeflag byte, major, minor int64) remotetest.Entry {
	return remotetest.Entry{Header: tar.Header{Name: name, Typeflag: typeflag, Mode: 0o666, Devmajor: major, Devminor: minor}}
}

// TestRecipeAsRoot takes out what only root can: capabilities and other extended
// attributes, devices, and what becomes of them in a layer above.
func TestRecipeAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make such files, as the recipe says")
	}
	able := map[string]string{"security.capability": netRaw, "user.much": "such\nattribute"}
	layers := [][]byte{
		remotetest.Tar(
			t,
			entryDir("bin/"), entryWith("bin/ping", "ping", able), entryLink("bin/ping6", "bin/ping", tar.TypeLink),
			entryWith("bin/replaced", "old", able), entryWith("bin/deleted", "old", able), entryWith("bin/kept", "old", able),
			entryDir("dev/"), entryDevice("dev/null", tar.TypeChar, 1, 3), entryDevice("dev/disk", tar.TypeBlock, 8, 300),
			entryDevice("dev/gone", tar.TypeChar, 1, 5), entryDevice("dev/pipe", tar.TypeFifo, 0, 0), entryDevice("dev/becomes-file", tar.TypeChar, 1, 5),
			entryDir("opaque/"), entryDevice("opaque/null", tar.TypeChar, 1, 3), entryWith("opaque/able", "old", able),
		),
		remotetest.Tar(
			t,
			entryDir("bin/"), entryFile("bin/replaced", "new"), entryFile("bin/.wh.deleted", ""),
			entryDir("dev/"), entryFile("dev/.wh.gone", ""), entryFile("dev/becomes-file", "file"), entryLink("dev/null2", "dev/becomes-file", tar.TypeLink),
			entryDir("opaque/"), entryFile("opaque/.wh..wh..opq", ""), entryWith("opaque/new", "new", able),
		),
	}
	attributes := fmt.Sprintf(" security.capability=%q user.much=%q", netRaw, able["user.much"])
	want := map[string]string{
		"bin":              "drwxr-xr-x 0:0",
		"bin/kept":         "-rw-r--r-- old" + attributes + " 0:0",
		"bin/ping":         "-rw-r--r-- ping" + attributes + " 0:0",
		"bin/ping6":        "-rw-r--r-- ping" + attributes + " 0:0 = bin/ping",
		"bin/replaced":     "-rw-r--r-- new 0:0",
		"dev":              "drwxr-xr-x 0:0",
		"dev/becomes-file": "-rw-r--r-- file 0:0",
		"dev/disk":         "Drw-rw-rw- 0:0 8,300",
		"dev/null":         "Dcrw-rw-rw- 0:0 1,3",
		"dev/null2":        "-rw-r--r-- file 0:0 = dev/becomes-file",
		"dev/pipe":         "prw-rw-rw- 0:0",
		"opaque":           "drwxr-xr-x 0:0",
		"opaque/new":       "-rw-r--r-- new" + attributes + " 0:0",
	}
	dir := t.TempDir()
	img := remotetest.NewImage(t, "as root", layers...)
	if _, err := remotetest.Push(t.Context(), open(t, openDir(t, dir), codec.Zstd), remotetest.Ref(t, "root:1"), img); err != nil {
		t.Fatal(err)
	}
	got, err := byRecipe(t, dir, "root/1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what comes out (-want +got):\n%s", diff)
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

// TestRecipeBlobs takes out what came from a containerd image store: layers as
// blobs, which aliases name, below a manifest and below an index.
func TestRecipeBlobs(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	r := open(t, s, codec.LZ4)
	img := remotetest.NewImage(t, "blobs", recipeLayers(t)...)
	packed := [][]byte{gzipped(t, img.Layers[0]), all(t, codec.Zstd.Encode(bytes.NewReader(img.Layers[1]))), img.Layers[2]}
	types := []string{"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar"}
	layers := make([]image.Descriptor, len(packed))
	for i, b := range packed {
		layers[i] = image.Descriptor{MediaType: types[i], Digest: image.DigestOf(b), Size: int64(len(b))}
		if _, err := r.PutLayer(t.Context(), layers[i], bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	manifest := image.StackManifest(img.Config, layers)
	id := image.DigestOf(manifest)
	index := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + id.String() + `","size":1}]}`)
	for _, doc := range [][]byte{img.Config, manifest, index} {
		if err := r.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Hold(t.Context(), image.DigestOf(index), []image.Digest{id}); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]image.Digest{"blobs:manifest": id, "blobs:index": image.DigestOf(index)} {
		if err := r.Tag(t.Context(), remotetest.Ref(t, name), of); err != nil {
			t.Fatal(err)
		}
	}
	takesOut := func(what, name string, set ...string) {
		t.Helper()
		got, err := byRecipe(t, dir, name, set...)
		if err != nil || len(got) != 18 || !strings.HasPrefix(got["link/inner"], "-rw-r--r-- no link any more") || got["a/gone"] != "" {
			t.Errorf("%s: %d files, %v", what, len(got), err)
		}
	}
	takesOut("manifest", "blobs/manifest")
	takesOut("index", "blobs/index", "manifest="+id.Hex())
	if _, err := byRecipe(t, dir, "blobs/index"); err == nil || !strings.Contains(err.Error(), "Set manifest to one of: "+id.Hex()+" ") {
		t.Errorf("an index: %v", err)
	}

	// The file that json names is taken, whatever lies beside it.
	entry := "images/" + img.DiffIDs()[2].Hex() + "/"
	put(t, s, entry+"layer.tar", img.Layers[2])
	put(t, s, entry+"layer.tar.lz4", []byte("half of what another push is writing"))
	put(t, s, entry+"json", []byte(`{"diffID":"`+img.DiffIDs()[2].String()+`","size":1,"file":"layer.tar"}`))
	takesOut("a file beside that of json", "blobs/manifest")
	// So is the blob of an alias, and where it is missing a file beside the alias.
	alias := "images/" + img.DiffIDs()[0].Hex() + "/"
	put(t, s, alias+"layer.tar.lz4", []byte("half of what another push is writing"))
	takesOut("a file beside an alias", "blobs/manifest")
	remove(t, s, alias+"layer.tar.lz4")
	blob := "images/" + layers[0].Digest.Hex() + "/blob"
	remove(t, s, blob)
	if _, err := byRecipe(t, dir, "blobs/manifest"); err == nil || !strings.Contains(err.Error(), "incomplete copy: entry "+img.DiffIDs()[0].Hex()+" is missing") {
		t.Errorf("an alias of nothing: %v", err)
	}
	put(t, s, alias+"layer.tar", img.Layers[0])
	takesOut("a file instead of the blob", "blobs/manifest")
	remove(t, s, alias+"layer.tar")
	put(t, s, blob, gzipped(t, img.Layers[1]))
	if _, err := byRecipe(t, dir, "blobs/manifest"); err == nil || !strings.Contains(err.Error(), "damaged: layer "+img.DiffIDs()[0].Hex()) {
		t.Errorf("another blob: %v", err)
	}
	remove(t, s, entry+"json")
	put(t, s, blob, packed[0])
	if _, err := byRecipe(t, dir, "blobs/manifest"); err == nil || !strings.Contains(err.Error(), "incomplete copy: entry "+img.DiffIDs()[2].Hex()+" is missing") {
		t.Errorf("a layer without json: %v", err)
	}
}
