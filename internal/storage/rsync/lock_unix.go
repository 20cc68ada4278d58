//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package rsync

import (
	"os"
	"syscall"
)

// lockFile takes f's lock (flock(2)) unless another process has it.
func lockFile(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
