package layerstore

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const canOpenBeneath = true

// openBeneath opens a file below a directory by one call of the kernel (5.6 or later), where
// an os.Root makes one or two for each part of the name. It refuses all that leads out, also
// links that do so while they are followed, and does not wait for a FIFO.
func openBeneath(dir *os.File, name string) (*os.File, error) {
	conn, err := dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_LARGEFILE,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	var failed error
	if err := conn.Control(func(dir uintptr) { fd, failed = unix.Openat2(int(dir), name, &how) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	return os.NewFile(uintptr(fd), strings.TrimSuffix(dir.Name(), ".")+name), nil
}
