package file

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime returns when the file was last written, renamed or given other
// rights. Nothing can set it back. Zero where it is not known.
func changeTime(fi fs.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return time.Time{}
}
