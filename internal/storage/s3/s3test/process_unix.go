//go:build unix

package s3test

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts a process into a group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// hasKey reports whether the folder of a key's uploads says which key that is.
func hasKey(folder string) bool {
	_, err := unix.Getxattr(folder, "user.objname", nil)
	return err == nil
}
