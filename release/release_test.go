package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/cli"
)

var someTime = time.Date(2013, 12, 11, 10, 20, 30, 0, time.UTC)

// TestFlagsOfMake: a release is built as `make` builds the program, which other tests look at.
func TestFlagsOfMake(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	flags := buildFlags("$(VERSION)", "$(COMMIT)")
	want := fmt.Sprintf("CGO_ENABLED=0 go build %s %s %q -o bin/dogestry ./cmd/dogestry\n", flags[0], flags[1], flags[2])
	if !strings.Contains(string(makefile), want) {
		t.Errorf("the Makefile has no line %q", want)
	}
}

// TestArchives: both kinds hold the same files, with their modes and one time, and are made again byte for byte.
func TestArchives(t *testing.T) {
	files := []file{{"dogestry", []byte("a program"), 0o755}, {"man/man1/dogestry.1", []byte("its page"), 0o644}}
	want := []string{
		"top/dogestry -rwxr-xr-x 2013-12-11T10:20:30Z a program",
		"top/man/man1/dogestry.1 -rw-r--r-- 2013-12-11T10:20:30Z its page",
	}
	for name, kind := range map[string]struct {
		write func(io.Writer, string, []file, time.Time) error
		read  func(*testing.T, []byte) []string
	}{
		"tar": {writeTar, readTar},
		"zip": {writeZip, readZip},
	} {
		var first, second bytes.Buffer
		if err := errors.Join(kind.write(&first, "top", files, someTime), kind.write(&second, "top", files, someTime)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s: two archives of the same differ", name)
		}
		if diff := cmp.Diff(want, kind.read(t, first.Bytes())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func readTar(t *testing.T, archive []byte) (lines []string) {
	unpacked, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unpacked); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" {
			t.Errorf("%s belongs to %d:%d, %s:%s", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", h.Name, h.FileInfo().Mode(), h.ModTime.UTC().Format(time.RFC3339), content))
	}
}

func readZip(t *testing.T, archive []byte) (lines []string) {
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		member, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(member)
		if err := errors.Join(err, member.Close()); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", f.Name, f.Mode(), f.Modified.UTC().Format(time.RFC3339), content))
	}
	return lines
}

// TestSums are read by sha256sum, which finds a changed file.
func TestSums(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.zip", "a.tar.gz"} {
		if err := writeFile(filepath.Join(dir, name), []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time SHA256SUMS is there
		if err := run(t.Context(), []string{"-sums", "-o", dir}); err != nil {
			t.Fatal(err)
		}
	}
	check := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = dir
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := check(); err != nil || out != "a.tar.gz: OK\nb.zip: OK\n" {
		t.Errorf("sha256sum says %q, %v", out, err)
	}
	if err := writeFile(filepath.Join(dir, "b.zip"), []byte("other")); err != nil {
		t.Fatal(err)
	}
	if out, err := check(); err == nil {
		t.Errorf("sha256sum of a changed file says %q", out)
	}
}

// TestBill: what is linked into a program is listed, by names that others understand.
func TestBill(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8 X:some", Main: debug.Module{Path: "github.com/dogestry/dogestry"},
		Deps: []*debug.Module{
			{Path: "go.example/z", Version: "v1.2.3", Sum: "h1:abc="},
			{Path: "github.com/Microsoft/go-winio", Version: "v29.9.3+incompatible"},
		},
		Settings: []debug.BuildSetting{{Key: "-ldflags", Value: "-s"}, {Key: "GOOS", Value: "linux"}},
	}
	out, err := billOf(info, "1.0.0", "12ab", someTime, []byte("a program"))
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range b.Components {
		if c.Ref != c.PackageURL || c.Type != "library" {
			t.Errorf("%+v", c)
		}
		names = append(names, c.PackageURL)
	}
	want := []string{"pkg:golang/github.com/microsoft/go-winio@v29.9.3%2Bincompatible", "pkg:golang/go.example/z@v1.2.3", "pkg:golang/std@1.26.8"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.Serial) {
		t.Errorf("the serial number is %s", b.Serial)
	}
	app := b.Metadata.Component
	sum := sha256.Sum256([]byte("a program"))
	if diff := cmp.Diff([]hash{{"SHA-256", hex.EncodeToString(sum[:])}}, app.Hashes); diff != "" {
		t.Errorf("hashes of the program (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]property{{"go:GOOS", "linux"}, {"git:commit", "12ab"}}, app.Properties); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	other, err := billOf(info, "1.0.0", "12ab", someTime, []byte("another program"))
	if err != nil || bytes.Equal(out, other) {
		t.Errorf("another program has the same bill, or %v", err)
	}
	info.Deps[0].Replace = &debug.Module{Path: "../z"}
	if _, err := billOf(info, "1.0.0", "12ab", someTime, nil); err == nil {
		t.Error("a replaced module is listed as the one that it replaces")
	}
}

// TestPages: each command has a page, and mandoc finds nothing wrong with any.
func TestPages(t *testing.T) {
	root := cli.Tree()
	all := pages(root, "1.0.0", someTime)
	names := map[string]bool{}
	dir := t.TempDir()
	var written []string
	for _, p := range all {
		names[p.name] = true
		f := filepath.Join(dir, p.name+".1")
		if err := writeFile(f, []byte(p.source)); err != nil {
			t.Fatal(err)
		}
		written = append(written, f)
	}
	for _, c := range root.Commands() {
		if c.Name() != "help" && !c.Hidden && !names["dogestry-"+c.Name()] {
			t.Errorf("%s has no page", c.Name())
		}
	}
	if !names["dogestry"] || len(names) != len(all) {
		t.Errorf("pages: %v", names)
	}
	lint := lintPages(t, written...)
	if lint != "" {
		t.Errorf("mandoc:\n%s", lint)
	}
}

// lintPages is what mandoc complains of.
func lintPages(t *testing.T, files ...string) string {
	t.Helper()
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Fatal("no mandoc on this machine: run script/bootstrap test")
	}
	out, err := exec.CommandContext(t.Context(), "mandoc", append([]string{"-T", "lint", "-W", "warning"}, files...)...).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}

// TestPageIsText: whatever a command's texts have in them comes out as it is.
func TestPageIsText(t *testing.T) {
	const text = `.SH FAKE 'quoted' \fBbold\fR *.txt a_b_c ^~` + "`run`"
	c := &cobra.Command{
		Use: "some", Short: text, Long: "First.\n\n" + text + "\n\n  " + text + "\n    " + text, Example: "  " + text + "\n" + text,
		Run: func(*cobra.Command, []string) {},
	}
	c.Flags().String("flag", "it's", text)
	source := manual(c, "1", someTime)
	f := filepath.Join(t.TempDir(), "some.1")
	if err := writeFile(f, []byte(source)); err != nil {
		t.Fatal(err)
	}
	if lint := lintPages(t, f); lint != "" {
		t.Errorf("mandoc:\n%s\n%s", lint, source)
	}
	cmd := exec.CommandContext(t.Context(), "mandoc", "-T", "utf8", "-O", "width=1000", f)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(".\b").ReplaceAllString(string(out), "")
	// The usage of the flag names its value by the backquotes.
	if n := strings.Count(plain, text); n != 6 {
		t.Errorf("the text comes out %d times, not 6:\n%s", n, plain)
	}
	if !strings.Contains(plain, "(default it's)") {
		t.Errorf("the default is not there:\n%s", plain)
	}
}

// TestCompletions are scripts that their shells can read.
func TestCompletions(t *testing.T) {
	dir := t.TempDir()
	if err := writeDocuments(dir, "1.0.0", someTime); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `source "$1" && complete -p dogestry`, "bash", filepath.Join(dir, "completions/bash/dogestry")).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), " dogestry\n") {
		t.Errorf("bash: %v\n%s", err, out)
	}
	for _, name := range []string{"completions/zsh/_dogestry", "completions/fish/dogestry.fish", "completions/powershell/dogestry.ps1", "man/man1/dogestry-push.1"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(content, []byte("dogestry")) {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
	}
}

// TestRelease makes the archive for this machine, and runs what is in it.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds the program")
	}
	work := t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", fmt.Sprint(someTime.Unix()))
	t.Chdir("..")
	if err := run(t.Context(), []string{"-o", work, "-version", "such-version", "-commit", "such-commit", "-only", runtime.GOOS + "/" + runtime.GOARCH}); err != nil {
		t.Fatal(err)
	}
	name := "dogestry_such-version_" + runtime.GOOS + "_" + runtime.GOARCH
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", work, "-xzf", filepath.Join(work, name+".tar.gz")).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	program := filepath.Join(work, name, "dogestry")
	out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "dogestry such-version (commit such-commit, ") || !strings.Contains(string(out), runtime.Version()) {
		t.Errorf("--version: %q, %v", out, err)
	}
	for _, f := range []string{"LICENSE", "README.md", "man/man1/dogestry.1", "completions/zsh/_dogestry"} {
		if info, err := os.Stat(filepath.Join(work, name, f)); err != nil || !info.ModTime().Equal(someTime) {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(work, name+".cdx.json"))
	if err != nil || !bytes.Contains(content, []byte("pkg:golang/github.com/spf13/cobra@v")) || bytes.Contains(content, []byte("go-cmp")) {
		t.Errorf("the bill is\n%s\n%v", content, err)
	}
}

// TestUsage: what makes no sense is refused before anything is removed.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	if err := writeFile(filepath.Join(dir, "kept"), nil); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"-version", "a/b"}, {"-version", "a b"}, {"-version", "1", "more"}, {"-sums", "more"}} {
		if err := run(t.Context(), append([]string{"-o", dir}, args...)); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Error(err)
	}
}
