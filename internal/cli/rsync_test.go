package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// rsyncdCommand starts an rsync server whose modules have one directory, served/ of the script: "images", "readonly",
// and "private" for the user joe with the password "a secret of tests". "plain" takes
// no options that can be done without, and deletes nothing; the directory of "gone" is missing.
func rsyncdCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: rsyncd NAME")
		}
		dir := t.TempDir()
		served := ts.MkAbs("served")
		ts.Check(os.MkdirAll(served, 0o755))
		login, err := rsynctest.Login(dir, "joe", "a secret of tests")
		ts.Check(err)
		server, err := rsynctest.Start(dir,
			rsynctest.Module{Name: "images", Path: served},
			rsynctest.Module{Name: "readonly", Path: served, Settings: []string{"read only = yes"}},
			rsynctest.Module{Name: "private", Path: served, Settings: login},
			rsynctest.Module{Name: "plain", Path: served, Settings: []string{"refuse options = delete fsync partial-dir"}},
			rsynctest.Module{Name: "gone", Path: filepath.Join(dir, "nothing")},
		)
		ts.Check(err)
		ts.Defer(server.Stop)
		ts.Setenv(args[0], server.Addr)
		ts.Setenv("TMPDIR", ts.MkAbs("spool"))
	}
}

// TestRsyncNames proves that names of one directory are one remote's.
func TestRsyncNames(t *testing.T) {
	same := []string{"rsync://Host/module/a", "rsync://joe@host:873/module/a/", "rsync://host/module/a?password-file=/etc/secret"}
	for _, name := range same {
		if !samePlace(name, same[0]) {
			t.Errorf("%s is not %s", name, same[0])
		}
	}
	for _, name := range []string{"rsync://host/module", "rsync://host/module/b", "rsync://other/module/a", "rsync://host:8730/module/a"} {
		if slices.ContainsFunc(same, func(other string) bool { return samePlace(name, other) }) {
			t.Errorf("%s is taken for another", name)
		}
	}
}
