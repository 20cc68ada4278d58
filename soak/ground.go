package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// ground is a kind of store on which commands die.
type ground struct {
	name  string
	modes []string      // the ways in which an operation can be the last
	tick  time.Duration // from when on what was written is older than what is written then
	aged  bool          // what is copied from a template is older at once

	// open returns a store that has what template has, a directory of an earlier one,
	// and nothing where it is empty.
	open func(ctx context.Context, template string) (*place, error)
}

// place is one store. Whoever opens it closes it.
type place struct {
	sound storage.Store
	dir   string // where it lies, to be a template; "" in memory
	// dying returns the store as a command has it that fails at operation n in that
	// mode; 0 stands for none. Ops counts the operations of that command.
	dying func(n int, mode string) (storage.Store, error)
	ops   func() int
	close func()
}

// faultyPlace is a place in which storagetest.Faulty kills.
func faultyPlace(inner storagetest.Inner, dir string, end func()) *place {
	faulty := storagetest.NewFaulty(inner)
	return &place{
		sound: inner,
		dir:   dir,
		dying: func(n int, mode string) (storage.Store, error) {
			for _, m := range storagetest.Modes {
				if m.String() == mode && n > 0 {
					faulty.FailAt(n, m)
				}
			}
			return faulty, nil
		},
		ops:   faulty.Ops,
		close: end,
	}
}

func faultyModes() (all []string) {
	for _, m := range storagetest.Modes {
		all = append(all, m.String())
	}
	return all
}

func inMemory() ground {
	return ground{"memory", faultyModes(), time.Microsecond, false, func(context.Context, string) (*place, error) {
		return faultyPlace(mem.New(), "", func() {}), nil
	}}
}

func inDirectory(parent string) ground {
	return ground{"directory", faultyModes(), 10 * time.Millisecond, false, func(ctx context.Context, template string) (*place, error) {
		dir, err := os.MkdirTemp(parent, "crash-")
		if err == nil {
			err = copyTree(ctx, template, dir)
		}
		if err != nil {
			return nil, err
		}
		s, err := file.Open(dir)
		if err != nil {
			return nil, err
		}
		return faultyPlace(s, dir, func() {
			_ = s.Close()
			_ = os.RemoveAll(dir) // goes with the parent otherwise
		}), nil
	}}
}

// copyTree copies the content of a directory, with times and attributes.
func copyTree(ctx context.Context, from, to string) error {
	if from == "" {
		return nil
	}
	out, err := exec.CommandContext(ctx, "cp", "-a", from+"/.", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// inBucket kills at each request to an S3 server instead: before the server gets
// it, or when it has done it. The environment has the server's account.
func inBucket(server *s3test.Server) ground {
	return ground{"s3", []string{"before", "after"}, 1100 * time.Millisecond, true, func(ctx context.Context, template string) (*place, error) {
		bucket, err := server.NewBucket()
		if err == nil {
			err = copyTree(ctx, template, server.Dir(bucket))
		}
		if err != nil {
			return nil, err
		}
		sound, err := openBucket(ctx, bucket, server.Endpoint)
		if err != nil {
			return nil, err
		}
		proxy, err := s3test.NewProxy(server)
		if err != nil {
			return nil, err
		}
		var broken *s3.Store
		return &place{
			sound: sound,
			dir:   server.Dir(bucket),
			dying: func(n int, mode string) (_ storage.Store, err error) {
				if broken, err = openBucket(ctx, bucket, proxy.Endpoint); err != nil {
					return nil, err
				}
				proxy.Reset()
				if n > 0 {
					proxy.SetFault(deadFrom(n, mode))
				}
				return broken, nil
			},
			ops: func() int { return proxy.Count() },
			close: func() {
				if broken != nil {
					_ = broken.Close()
				}
				_ = sound.Close()
				proxy.Close()
				_ = os.RemoveAll(server.Dir(bucket)) // goes with the server otherwise
			},
		}, nil
	}}
}

// openBucket opens a bucket by a client that does not try again.
func openBucket(ctx context.Context, bucket, endpoint string) (*s3.Store, error) {
	o, err := s3.Parse("s3://" + bucket + "?endpoint=" + url.QueryEscape(endpoint))
	if err != nil {
		return nil, err
	}
	o.Attempts, o.MaxBackoff = 1, time.Millisecond
	return s3.Open(ctx, o)
}

// deadFrom lets request n be the last, done or not, and drops all behind it.
func deadFrom(n int, mode string) s3test.Rule {
	last := s3test.Drop()
	if mode == "after" {
		last = s3test.Lost()
	}
	var count atomic.Int64
	return func(*http.Request) s3test.Fault {
		switch c := count.Add(1); {
		case c < int64(n):
			return s3test.Fault{}
		case c == int64(n):
			return last
		default:
			return s3test.Drop()
		}
	}
}
