package rsync

import (
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// rsync writes whatever comes: of what the server has announced it only says so in the
// end. So a run that brings something is looked at while it runs.
const lookAgain = 100 * time.Millisecond

// watch calls stop when more lies in r.local than may. The function that it returns
// ends that, and reports whether it was so.
func (r run) watch(stop func()) (end func() (tooMuch bool)) {
	if r.most == nil {
		return func() bool { return false }
	}
	ended, done := make(chan struct{}), make(chan struct{})
	over := func() bool { return bytesBelow(r.local) > r.most() }
	stopped := false
	go func() {
		defer close(done)
		for ticker := time.NewTicker(lookAgain); !stopped; {
			select {
			case <-ended:
				ticker.Stop()
				return
			case <-ticker.C:
				if stopped = over(); stopped {
					ticker.Stop()
					stop()
				}
			}
		}
	}()
	return func() bool {
		close(ended)
		<-done
		return stopped || over()
	}
}

// bytesBelow returns how long the files in a directory and below are.
func bytesBelow(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil { // they come, and get other names
			return nil //nolint:nilerr // what is gone has no bytes
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

// announced is the length of the one object of a run, which rsync says (announce) before
// the object comes, and only if it does.
type announced struct {
	size atomic.Int64
	said atomic.Bool
}

const announce = "--out-format=%l"

func (a *announced) line(line string) error {
	if n, err := strconv.ParseInt(line, 10, 64); err == nil && n >= 0 && !a.said.Load() {
		a.size.Store(n)
		a.said.Store(true)
	}
	return nil
}

// most allows for what an attempt before has left, too.
func (a *announced) most() int64 {
	if n := a.size.Load(); a.said.Load() && n < math.MaxInt64/2 {
		return 2 * n
	}
	return math.MaxInt64
}
