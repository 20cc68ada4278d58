//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package dockerarchive

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock takes a file's lock (flock(2)), and reports whether it did.
func lock(f *os.File) bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }
