package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestChangelog: the fragments of a tree become the notes of its release, once.
func TestChangelog(t *testing.T) {
	root := t.TempDir()
	script, err := os.ReadFile("../script/changelog")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, content string) {
		if err := writeFile(filepath.Join(root, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put("script/changelog", string(script))
	changelog := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(root, "script/changelog")}, args...)...)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1386757230", "TZ=America/New_York")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	put("CHANGELOG.md", "# Changelog\n\nNothing is released yet.\n")
	put("changelog/unreleased/b-second.md", "The second\nover two lines.\n")
	put("changelog/unreleased/a-first.md", "The first, with `%s` and $HOME.\n\n")

	const notes = "## 1.0.0 (2013-12-11)\n\n- The first, with `%s` and $HOME.\n- The second over two lines.\n"
	if out, err := changelog("v1.0.0"); err != nil || out != notes {
		t.Errorf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{}, {"--write"}, {"1 0"}, {"1", "2"}, {"../1"}} {
		if out, err := changelog(args...); err == nil || !strings.Contains(out, "usage: ") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	if out, err := changelog("--write", "v1.0.0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := changelog("v1.0.0"); err != nil || out != notes { // at its tag there are no fragments
		t.Errorf("what is written: %v\n%s", err, out)
	}
	if out, err := changelog("1.1.0"); err == nil || !strings.Contains(out, "empty") {
		t.Errorf("without fragments: %v\n%s", err, out)
	}
	put("changelog/unreleased/c-third.md", "The third.\n")
	if out, err := changelog("--write", "1.0.0"); err == nil || !strings.Contains(out, "already") {
		t.Errorf("the same version again: %v\n%s", err, out)
	}
	if out, err := changelog("--write", "1.1.0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	want := "# Changelog\n\nWhat the next release brings is in `changelog/unreleased/`, one fragment a change.\n\n## 1.1.0 (2013-12-11)\n\n- The third.\n\n" + notes
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	for version, want := range map[string]string{"1.0.0": notes, "1.1.0": "## 1.1.0 (2013-12-11)\n\n- The third.\n"} {
		if out, err := changelog(version); err != nil || out != want {
			t.Errorf("what is written of %s: %v\n%s", version, err, out)
		}
	}
	put("changelog/unreleased/d-empty.md", "\n")
	if out, err := changelog("2.0.0"); err == nil || !strings.Contains(out, "d-empty.md") {
		t.Errorf("an empty fragment: %v\n%s", err, out)
	}
}

// TestPackage makes Debian packages of archives with a program of no size: their versions are in the order of the releases, and
// a package is made again byte for byte. What it does on a machine, `make test-deb` tries.
func TestPackage(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("no dpkg-deb on this machine: run script/bootstrap test")
	}
	t.Chdir("..")
	dir := t.TempDir()
	deb := func(version, to string) string {
		t.Helper()
		r := release{version: version, at: someTime}
		files, err := r.documents()
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		name := "dogestry_" + version + "_linux_arm64"
		if err := writeTar(&archive, name, append(files, file{"dogestry", nil, 0o755}), someTime); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(filepath.Join(dir, name+".tar.gz"), archive.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, to), 0o755); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(output(t, "script/deb", filepath.Join(dir, name+".tar.gz"), filepath.Join(dir, to)))
	}
	last := ""
	for _, v := range []struct{ release, version string }{
		{"12b59ec", "0~git.12b59ec"},
		{"v1.2.0-rc.1", "1.2.0~rc.1"},
		{"v1.2.0", "1.2.0"},
		{"1.2.0-4-g12b59ec", "1.2.0+4.g12b59ec"},
		{"v1.2.0-4-g12b59ec-dirty", "1.2.0+4.g12b59ec+dirty"},
		{"v1.10.0-beta2-1-gabc", "1.10.0~beta2+1.gabc"},
	} {
		file := deb(v.release, "first")
		got := strings.TrimSpace(output(t, "dpkg-deb", "-f", file, "Version"))
		if got != v.version || filepath.Base(file) != "dogestry_"+v.version+"_arm64.deb" {
			t.Errorf("%s becomes %s, in %s", v.release, got, file)
		}
		if last != "" {
			output(t, "dpkg", "--compare-versions", last, "lt", got)
		}
		last = got
	}
	first, err := os.ReadFile(deb("v1.2.0", "first"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TZ", "America/New_York")
	second, err := os.ReadFile(deb("v1.2.0", "second"))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two packages of one archive differ, or %v", err)
	}
	list := output(t, "dpkg-deb", "-c", filepath.Join(dir, "first", "dogestry_1.2.0_arm64.deb"))
	for _, want := range []string{
		"./usr/bin/dogestry\n", "./lib/systemd/system/dogestry-serve.service\n", "./lib/systemd/system/dogestry-agent.service\n", "./etc/dogestry/agent.env\n",
		"./usr/libexec/docker/cli-plugins/docker-dogestry -> ../../../bin/dogestry\n", "./usr/share/man/man1/dogestry-push.1.gz\n", "./usr/share/zsh/vendor-completions/_dogestry\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("it lacks %q:\n%s", want, list)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "script/deb", filepath.Join(dir, "first")).CombinedOutput(); err == nil || !strings.Contains(string(out), "no archive for Linux") {
		t.Errorf("what is no archive: %v\n%s", err, out)
	}
}

// TestScripts: shellcheck finds nothing wrong with what makes releases, nor with what packages run on other people's machines.
func TestScripts(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Fatal("no shellcheck on this machine: run script/bootstrap test")
	}
	t.Chdir("..")
	output(t, "shellcheck", "script/changelog", "script/deb", "script/test-deb", "script/test-release",
		"dist/debian/postinst", "dist/debian/prerm", "dist/debian/postrm")
}

// output is what a program prints, which has to succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, stderr.Bytes())
	}
	return string(out)
}
