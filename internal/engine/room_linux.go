package engine

import "golang.org/x/sys/unix"

// room returns how many bytes an ordinary user may still write below dir.
func room(dir string) (free int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * s.Bsize, true
}
