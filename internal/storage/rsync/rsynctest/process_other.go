//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd

package rsynctest

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) { _ = p.Kill() }
