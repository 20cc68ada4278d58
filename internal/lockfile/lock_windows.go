package lockfile

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// try is LockFileEx, of one byte far behind what is in the file: others cannot read
// what is locked.
func try(f *os.File) error {
	const far = 1 << 30 // the high half of the offset
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{OffsetHigh: far})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return ErrHeld
	}
	return errors.Join(errors.ErrUnsupported, err)
}
