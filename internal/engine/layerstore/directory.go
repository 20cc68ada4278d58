package layerstore

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// directory is where the files of a layer are. What is opened in it lies in it,
// whatever a layer names it and wherever its links lead.
//
// It is safe for concurrent use.
type directory struct {
	root *os.Root
	self *os.File // the same directory, for openBeneath; nil where there is no such thing
}

func openDirectory(path string) (*directory, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &directory{root: root}
	if canOpenBeneath {
		d.self, _ = root.Open(".") // it is only faster
	}
	return d, nil
}

// open opens a file of the layer, and says of how many bytes. A name that leads out of
// the directory, a device or a FIFO is an error: a layer may be made to look so.
func (d *directory) open(name string) (*os.File, int64, error) {
	name = strings.TrimLeft(name, "/")
	f, err := openBeneath(d.self, name)
	if err != nil { // whatever the kernel has against it: the root decides, and says why not
		f, err = d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// Close implements io.Closer.
func (d *directory) Close() error {
	if d.self != nil {
		d.self.Close()
	}
	return d.root.Close()
}
