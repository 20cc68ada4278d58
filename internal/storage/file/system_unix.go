//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryLock takes f's exclusive lock (flock(2)) without waiting.
func tryLock(f *os.File) lockResult { return flock(f, unix.LOCK_EX) }

// tryShare takes f's lock together with others who do. Unlike tryLock it needs no
// right to write on NFS.
func tryShare(f *os.File) lockResult { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) lockResult {
	err := retryInterrupted(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
	switch {
	case err == nil:
		return lockTaken
	case errors.Is(err, unix.EWOULDBLOCK):
		return lockBusy
	default: // some FUSE and network file systems
		return lockUnsupported
	}
}

// touch sets the times of an open file to those of the file system's clock.
func touch(f *os.File) error {
	return retryInterrupted(func() error { return unix.Futimes(int(f.Fd()), nil) })
}

// removeDirectory removes the directory d/name if it is empty. It is not
// os.Root.Remove, which would remove an object that has just taken its place.
func removeDirectory(d *os.Root, name string) error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return retryInterrupted(func() error { return unix.Unlinkat(int(f.Fd()), name, unix.AT_REMOVEDIR) })
}

// syncNames makes the names in an open directory durable, where the file system can.
func syncNames(directory *os.File, sync func(*os.File) error) error {
	err := sync(directory)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // some FUSE and SMB mounts: there is no such thing, it is done at once or never
	}
	return err
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
