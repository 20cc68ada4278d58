// Package lockfile is locks between processes that files stand for. The system takes
// such a lock from a process that ends, however it does. The file stays: to remove it
// would let two processes have it.
package lockfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// ErrHeld says that another process, or another File of this one, has the lock.
var ErrHeld = errors.New("it is locked")

// ErrOther says that the file is another one than those that are made for locks: nothing is written into it.
var ErrOther = errors.New("it has something else in it than a lock")

// Try takes the lock of an open file without waiting. It is given back when f is
// closed. The error is ErrHeld, or errors.ErrUnsupported where the system or the file
// system has no such locks.
func Try(f *os.File) error { return try(f) }

// Lock is one that is held.
type Lock struct{ f *os.File }

// Options of Take. The zero value waits in silence.
type Options struct {
	NoWait bool          // fail with ErrHeld instead of waiting
	Pause  time.Duration // between two attempts; 0: 100 ms
	Pid    bool          // write the own process ID into the file, for Waiting
	Mode   fs.FileMode   // of a file that is made; 0: 0644

	// Waiting is called once, when it has waited for Patience. Holder is the process that
	// has the lock, as the file says; 0 where it does not.
	Waiting  func(holder int)
	Patience time.Duration
}

// Take takes the lock that the file at path stands for, and makes the file if it is not
// there. It waits until ctx ends. With Pid the error may be ErrOther. The caller closes the lock; the end of the process
// does, too.
func Take(ctx context.Context, path string, o Options) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, cmp.Or(o.Mode, 0o644))
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, f, o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if o.Pid {
		if err := sign(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &Lock{f}, nil
}

func wait(ctx context.Context, f *os.File, o Options) error {
	pause := o.Pause
	if pause == 0 {
		pause = 100 * time.Millisecond
	}
	told := o.Waiting == nil
	for start := time.Now(); ; {
		err := try(f)
		if err == nil || !errors.Is(err, ErrHeld) || o.NoWait {
			return err
		}
		if !told && time.Since(start) >= o.Patience {
			told = true
			o.Waiting(Holder(f.Name()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// sign leaves the own process ID in the file, in which there is nothing or that of another.
func sign(f *os.File) error {
	if info, err := f.Stat(); err != nil || info.Size() > 0 && holderIn(f) == 0 {
		return cmp.Or(err, ErrOther)
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// maxSaid bounds what a process leaves in a file, in bytes.
const maxSaid = 32

// Holder returns the process that wrote its ID into the file last, which has the lock
// where that is held; 0 where the file does not say.
func Holder(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return holderIn(f)
}

func holderIn(f io.Reader) int {
	said, err := io.ReadAll(io.LimitReader(f, maxSaid+1))
	if err != nil || len(said) > maxSaid {
		return 0
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(said)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// Close gives the lock back.
func (l *Lock) Close() error { return l.f.Close() }
