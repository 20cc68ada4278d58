package cli

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeNobody gives up root's rights, and with them what passes by permissions.
func becomeNobody() error {
	const nobody = 65534
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
}

// mountReadOnly makes dir read-only, for root as well, until undo.
func mountReadOnly(dir string) (undo func(), err error) {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	undo = func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}
