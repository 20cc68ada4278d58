//go:build unix && !linux

package ssh

import "syscall"

// attributes keep an interrupt on the terminal from ssh, where it asks nothing: it
// still carries what is to be removed then. It ends with its input.
func attributes(ask bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: !ask} }
