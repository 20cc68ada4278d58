//go:build unix

package enginetest

import (
	"io"
	"os"
	"syscall"
)

// tryLock takes the lock that the file at path stands for, until it is closed or the process ends. It fails at once when
// another process, or another part of this one, holds it.
func tryLock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
