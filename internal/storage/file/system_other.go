//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package file

import (
	"errors"
	"os"
)

// tryLock cannot lock here: temporary files are left over when they are old.
func tryLock(*os.File) lockResult { return lockUnsupported }

func tryShare(*os.File) lockResult { return lockUnsupported }

// touch is for files that are locked.
func touch(*os.File) error { return errors.ErrUnsupported }

// removeDirectory removes nothing here: package os could take an object that
// just came into being for the directory. Empty directories stay.
func removeDirectory(*os.Root, string) error { return errors.ErrUnsupported }

// syncNames does nothing: directories cannot be synced here, the file system's journal keeps the order.
func syncNames(*os.File, func(*os.File) error) error { return nil }
