//go:build !unix

package ssh

import "syscall"

// attributes are none: ssh ends with its input.
func attributes(bool) *syscall.SysProcAttr { return nil }
