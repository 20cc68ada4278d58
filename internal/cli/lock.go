package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lockfile"
)

// lockFlag is the name of the flag that all commands have.
const lockFlag = "lock-file"

// lockPatience is how long a command waits for a lock in silence.
const lockPatience = time.Second

// unlocked are commands that work beside those that have the lock: they touch no
// remote and no engine.
var unlocked = []string{"list", "show", "add", "rm"} // of `dogestry remote`

// lasting are commands that run on and on: what the configuration says of a lock is not
// about them, or nothing else would ever run. Their flag is.
var lasting = []string{"agent", "serve"}

// takeLock takes the lock that there may be, for as long as the process runs.
func (a *app) takeLock(c *cobra.Command, set *config.Config) error {
	path := a.lockFile
	switch {
	case a.completing:
		return nil
	case !c.Flags().Changed(lockFlag):
		if path = set.LockFile.Value; slices.Contains(lasting, c.Name()) {
			path = ""
		}
	case path == "":
		return fault.New(fault.Usage, "--%s is empty", lockFlag).Advise("Name the file, or leave it out.")
	}
	if path == "" || c.HasSubCommands() || slices.Contains([]string{"keygen", "login", "logout"}, c.Name()) || c.Parent().Name() == "remote" && slices.Contains(unlocked, c.Name()) {
		return nil
	}
	lock, err := lockfile.Take(c.Context(), path, lockfile.Options{
		NoWait: a.noWait, Pid: true, Patience: lockPatience,
		Waiting: func(pid int) {
			if !a.quiet {
				fmt.Fprintf(a.errOut, "waiting for %s, which has the lock %s\n", holder(pid), printable(path))
			}
		},
	})
	switch {
	case err == nil:
		a.lock = lock
		return nil
	case errors.Is(err, lockfile.ErrHeld):
		return fault.New(fault.Locked, "%s has the lock %s", holder(lockfile.Holder(path)), path).
			Advise("Try again when it has ended. Without --no-wait that is waited for.")
	case fault.Interrupted(err):
		return err
	case errors.Is(err, lockfile.ErrOther):
		return fault.New(fault.Refused, "%s is no lock of dogestry's: there is something else in it", path).Advise("It is left as it is. Name a file that is not there yet, or is empty.")
	case errors.Is(err, errors.ErrUnsupported):
		return fault.Wrap(fault.Other, err, "cannot lock %s", path).Advise("Files cannot be locked there: name one on a disk of this machine.")
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(fault.NotFound, err, "cannot make the lock %s", path).Advise("Its directory is missing: mkdir -p %q", filepath.Dir(path))
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Refused, err, "cannot use the lock %s", path).Advise("All who use it have to be able to write the file.")
	}
	return fault.Wrap(fault.Other, err, "cannot use the lock %s", path)
}

// unlock gives back what takeLock took.
func (a *app) unlock() {
	if a.lock != nil {
		_ = a.lock.Close()
	}
}

// holder names the process that has a lock.
func holder(pid int) string {
	if pid == 0 {
		return "another process"
	}
	return fmt.Sprintf("another dogestry (process %d)", pid)
}
