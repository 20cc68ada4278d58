//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package rsync

import (
	"os"
	"syscall"
)

// kill ends rsync and what it has forked.
func kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
