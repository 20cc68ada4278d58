//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd

package rsync

import (
	"os"
	"syscall"
)

func session() *syscall.SysProcAttr { return nil }

func kill(p *os.Process) error { return p.Kill() }
