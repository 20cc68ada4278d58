package enginetest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// debsDir is where script/bootstrap test puts Debian packages, below the module's root.
const debsDir = ".cache/debs"

// rebuilt is how long after the first release the second one is built.
const rebuilt = 7 * 24 * time.Hour

// tree is what is to become a layer: files and links by their names, without directories.
type tree map[string]Entry

// nodeReleases are an application's node_modules, out of Debian packages.
func nodeReleases(packages ...string) maker {
	return treeReleases("npm 1", packages, func(name string) (string, bool) {
		rest, ok := strings.CutPrefix(name, "usr/share/nodejs/")
		return "app/node_modules/" + rest, ok
	}, nil)
}

// gemReleases are gems with what was compiled of them.
func gemReleases(packages ...string) maker {
	return treeReleases("gem 1", packages, func(name string) (string, bool) {
		_, rest, ok := strings.Cut(name, "/rubygems-integration/") // all/ or the version of Ruby
		_, rest, _ = strings.Cut(rest, "/")
		return "usr/local/bundle/" + rest, ok
	}, nil)
}

// pipReleases are a site-packages with its bytecode.
func pipReleases(packages ...string) maker {
	return treeReleases("pip 1", packages, func(name string) (string, bool) {
		rest, ok := strings.CutPrefix(name, "usr/lib/python3/dist-packages/")
		return "usr/local/lib/python3/site-packages/" + rest, ok
	}, compile)
}

// treeReleases are a tree that is installed twice, and of which one file is another the second time. place says where a
// package's file comes to lie, and whether it does. finish, if given, does what an installer does once all files are there.
func treeReleases(recipe string, packages []string, place func(string) (string, bool), finish func(context.Context, tree) error) maker {
	return maker{recipe + strings.Join(packages, " "), func(ctx context.Context, first, second string) error {
		t := tree{}
		for _, p := range packages {
			if err := t.unpack(ctx, p, place); err != nil {
				return err
			}
		}
		for release, out := range []string{first, second} {
			if release > 0 {
				if err := t.change(); err != nil {
					return err
				}
			}
			t.install(created.Add(time.Duration(release) * rebuilt))
			installed := maps.Clone(t)
			if finish != nil {
				if err := finish(ctx, installed); err != nil {
					return err
				}
			}
			if err := installed.write(out); err != nil {
				return err
			}
		}
		return nil
	}}
}

// unpack adds files and links of a Debian package.
func (t tree) unpack(ctx context.Context, name string, place func(string) (string, bool)) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(root, debsDir, name+"_*.deb"))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("no package %s in %s: run script/bootstrap test", name, debsDir)
	}
	content, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", found[len(found)-1]).Output()
	if err != nil {
		return fmt.Errorf("dpkg-deb of %s: %w", name, err)
	}
	n := len(t)
	r := tar.NewReader(bytes.NewReader(content))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		to, ok := place(path.Clean(h.Name))
		if !ok || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink {
			continue
		}
		e := Entry{Header: &tar.Header{Typeflag: h.Typeflag, Name: to, Linkname: h.Linkname, Mode: h.Mode}}
		if e.Content, err = io.ReadAll(r); err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		t[to] = e
	}
	if len(t) == n {
		return fmt.Errorf("package %s has no files for this", name)
	}
	return nil
}

// names are those of a tree, as a walk through its directories finds them.
func (t tree) names() []string {
	return slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
}

// install sets all times, as if it took a second for a hundred files.
func (t tree) install(at time.Time) {
	for i, name := range t.names() {
		t[name].Header.ModTime = at.Add(time.Duration(i/100) * time.Second)
	}
}

// change makes another file of the first one of some length from the middle on.
func (t tree) change() error {
	names := t.names()
	for _, name := range names[len(names)/2:] {
		if e := t[name]; e.Header.Typeflag == tar.TypeReg && len(e.Content) >= 4<<10 && path.Ext(name) != ".so" {
			e.Content = changed(e.Content)
			t[name] = e
			return nil
		}
	}
	return errors.New("no file to change")
}

// changed is a text with a line more in its middle.
func changed(content []byte) []byte {
	at := len(content)/2 + bytes.IndexByte(content[len(content)/2:], '\n') + 1
	return slices.Concat(content[:at], []byte("\n"), content[at:])
}

// write writes the tar of a tree and its directories as engines do.
func (t tree) write(out string) error {
	all := maps.Clone(t)
	for name, e := range t {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if d, ok := all[dir]; !ok || d.Header.ModTime.Before(e.Header.ModTime) {
				made := Dir(dir)
				made.Header.ModTime = e.Header.ModTime
				all[dir] = made
			}
		}
	}
	entries := make([]Entry, 0, len(all))
	for _, name := range all.names() {
		e := all[name]
		e.Header.Format = tar.FormatPAX // as engines write it; it is plain where nothing is too long
		entries = append(entries, e)
	}
	return writeFile(out, func(w io.Writer) error {
		_, err := NewLayer(entries...).WriteTo(w)
		return err
	})
}

// compile adds the bytecode of all Python files.
func compile(ctx context.Context, t tree) error {
	dir, err := os.MkdirTemp("", "dogestry-pip-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var last time.Time
	for name, e := range t {
		if path.Ext(name) != ".py" || e.Header.Typeflag != tar.TypeReg {
			continue
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		at := e.Header.ModTime
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, e.Content, 0o644), os.Chtimes(file, at, at)); err != nil {
			return err
		}
		if at.After(last) {
			last = at
		}
	}
	// Not by SOURCE_DATE_EPOCH, which some builds set: installers name times.
	if err := run(ctx, "python3", "-m", "compileall", "-q", "--invalidation-mode", "timestamp", "-s", dir, "-p", "/", dir); err != nil {
		return fmt.Errorf("%w (not installed? run script/bootstrap test)", err)
	}
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".pyc" {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		t[name] = Entry{Header: &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: last}, Content: content}
		return nil
	})
}

// jarReleases are the jar of a Debian package, packed twice.
func jarReleases(name string) maker {
	return maker{"jar 2" + name, func(ctx context.Context, first, second string) error {
		t := tree{}
		if err := t.unpack(ctx, name, func(name string) (string, bool) { return path.Base(name), path.Ext(name) == ".jar" }); err != nil {
			return err
		}
		for of, e := range t {
			if e.Header.Typeflag != tar.TypeReg {
				continue
			}
			for release, out := range []string{first, second} {
				at := created.Add(time.Duration(release) * rebuilt)
				content, err := repack(e.Content, at, release > 0)
				if err != nil {
					return fmt.Errorf("%s: %w", of, err)
				}
				app := File("app/app.jar", 0o644, string(content))
				if err := (tree{"app/app.jar": app}).at(at).write(out); err != nil {
					return err
				}
			}
			return nil
		}
		return fmt.Errorf("package %s has no jar", name)
	}}
}

// at is the tree with all times set.
func (t tree) at(at time.Time) tree {
	t.install(at)
	return t
}

// repack writes a zip as a build does: all that is in it at one time. With another one file is changed.
func repack(content []byte, at time.Time, another bool) ([]byte, error) {
	r, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i, f := range r.File {
		h := zip.FileHeader{Name: f.Name, Method: f.Method, Modified: at}
		to, err := w.CreateHeader(&h)
		if err != nil {
			return nil, err
		}
		from, err := f.Open()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(from)
		if err := errors.Join(err, from.Close()); err != nil {
			return nil, err
		}
		if another && i >= len(r.File)/2 && len(content) > 0 {
			content, another = changed(content), false
		}
		if _, err := to.Write(content); err != nil {
			return nil, err
		}
	}
	err = w.Close() // it writes the directory
	return out.Bytes(), err
}

// binarySource is a server with as much of Go's library as servers have.
const binarySource = `package main

import (
	"encoding/json"
	"log"
	"net/http"
)

const release = "%d"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(map[string]string{"release": release, "path": r.URL.Path}); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}
`

// binaryReleases are builds of binarySource.
func binaryReleases() maker {
	return maker{binarySource, func(ctx context.Context, first, second string) error {
		dir, err := os.MkdirTemp("", "dogestry-binary-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "server")
		for release, out := range []string{first, second} {
			if err := os.WriteFile(source, fmt.Appendf(nil, binarySource, release+1), 0o644); err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, source)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("go build: %w: %s", err, out)
			}
			content, err := os.ReadFile(binary)
			if err != nil {
				return err
			}
			server := File("usr/local/bin/server", 0o755, string(content))
			if err := (tree{"usr/local/bin/server": server}).at(created.Add(time.Duration(release) * rebuilt)).write(out); err != nil {
				return err
			}
		}
		return nil
	}}
}
