package file

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback asks the system to begin writing length bytes from offset on
// to the disk, and does not wait. It is a hint: errors show at the fsync.
func beginWriteback(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
