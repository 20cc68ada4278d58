package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// tagged makes a remote in which these tags name an image.
func tagged(t *testing.T, tags ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := repo.Open(t.Context(), s, repo.Options{Name: dir, Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, tag), remotetest.NewImage(t, tag)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRemovalIsAsked runs rm with a pattern on a terminal: what would go is
// shown, and goes only when somebody says yes.
func TestRemovalIsAsked(t *testing.T) {
	for name, test := range map[string]struct {
		typed string
		code  int
		gone  bool
		told  string
	}{
		"y":           {"y\r", 0, true, "removed 2 tags from "},
		"YES":         {" YES \r", 0, true, "removed 2 tags from "},
		"n":           {"n\r", 1, false, "dogestry: nothing was removed"},
		"no answer":   {"\r", 1, false, "dogestry: nothing was removed"},
		"end of file": {"\x04", 1, false, "dogestry: nothing was removed"},
		"other":       {"yep\r", 1, false, "dogestry: nothing was removed"},
		"^C":          {"\x03", exitInterrupted, false, "dogestry: interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tagged(t, "app:old-1", "app:old-2", "app:new")
			p, term := startOnTerminal(t, "unix:///nowhere.sock", "rm", dir, "app:old-*")
			p.until("it asks", func() bool { return strings.Contains(p.stderr.String(), "[y/N] ") })
			screen := p.stderr.String()
			for _, want := range []string{"app:old-1 sha256:", "app:old-2 sha256:", "remove 2 tags from " + dir + "? [y/N] "} {
				if !strings.Contains(screen, want) {
					t.Errorf("the terminal does not show %q: %q", want, screen)
				}
			}
			if strings.Contains(screen, "app:new") {
				t.Errorf("what does not match is shown: %q", screen)
			}
			if got := len(files(t, filepath.Join(dir, "repositories"))); got != 3 {
				t.Errorf("%d tags are there while it asks", got)
			}
			sent := time.Now()
			if _, err := term.master.WriteString(test.typed); err != nil {
				t.Fatal(err)
			}
			<-p.exited
			if took := time.Since(sent); took > soon {
				t.Errorf("it took %v to end", took)
			}
			_ = term.slave.Close()
			<-term.drained
			if code := p.cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(p.stderr.String(), test.told) {
				t.Errorf("exit code %d, the terminal shows %q", code, p.stderr.String())
			}
			left := []string{"new", "old-1", "old-2"}
			if test.gone {
				left = left[:1]
			}
			var got []string
			for _, path := range files(t, filepath.Join(dir, "repositories")) {
				got = append(got, filepath.Base(path))
			}
			if !slices.Equal(got, left) {
				t.Errorf("left is %q, want %q", got, left)
			}
			if lines := strings.Count(p.stdout.String(), "\n"); test.gone != (lines == 2) || control(p.stdout.String()) != "" {
				t.Errorf("stdout: %q", p.stdout.String())
			}
		})
	}
}

// TestRemovalOfOneIsNotAsked: a plain name is meant.
func TestRemovalOfOneIsNotAsked(t *testing.T) {
	dir := tagged(t, "app:1")
	p, term := startOnTerminal(t, "unix:///nowhere.sock", "rm", dir, "app:1")
	p.mustSucceed()
	_ = term.slave.Close()
	<-term.drained
	if strings.Contains(p.stderr.String(), "[y/N]") {
		t.Errorf("it asks: %q", p.stderr.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "repositories", "app", "1")); !os.IsNotExist(err) {
		t.Errorf("the tag: %v", err)
	}
}
