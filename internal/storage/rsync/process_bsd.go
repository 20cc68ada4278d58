//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package rsync

import "syscall"

// session lets rsync run apart from this process's terminal, which it would ask for a password.
func session() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
