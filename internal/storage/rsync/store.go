// Package rsync is a storage.Store in a module of an rsync server, by way of the
// system's rsync.
//
// rsync moves files and takes no streams: what goes there or comes from there lies
// in a spool on this machine's disk meanwhile. A run of it takes several round trips,
// so what is asked or written at the same time goes in one run, whoever asks.
package rsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Bounds of runs.
const (
	runsAtOnce = 6       // processes, and connections to the server
	together   = 256     // questions of one run
	smallMost  = 1 << 20 // bytes of an object that goes together with others
	readMost   = 64 << 20
)

// Store is a directory of a module of an rsync server. It is safe for concurrent use
// and needs no closing: where nothing is asked of it, it has no files and no processes.
type Store struct {
	o     Options
	path  string // of the program
	env   []string
	spool spool
	runs  chan struct{}
	large [2]chan struct{} // of one place for each of up and down: layers go one at a time

	puts    gatherer[*upload]
	deletes gatherer[string]
	stats   gatherer[*lookup]
	lists   gatherer[*listing]
	reads   gatherer[*smallRead]

	noSync    atomic.Bool // the server does not take --fsync
	noPartial atomic.Bool // nor --partial-dir
}

var (
	_ storage.Store       = (*Store)(nil)
	_ storage.SmallReader = (*Store)(nil)
	_ storage.Sweeper     = (*Store)(nil)
)

// Open looks for the program, and contacts nobody.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Seal.Program(program); err != nil {
		return nil, err
	}
	env, err := environment(o)
	if err != nil {
		return nil, err
	}
	path, err := find(ctx, env)
	if err != nil {
		return nil, err
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	s := &Store{o: o, path: path, env: env, runs: make(chan struct{}, runsAtOnce)}
	s.spool.place = o.Spool
	if s.spool.place == "" {
		s.spool.place = os.TempDir()
	}
	if s.spool.place, err = filepath.Abs(s.spool.place); err != nil { // rsync takes x:y for a host
		return nil, spoolFailure(s.spool.place, err)
	}
	for i := range s.large {
		s.large[i] = make(chan struct{}, 1)
	}
	s.puts = gatherer[*upload]{most: together, run: s.putAll}
	s.deletes = gatherer[string]{most: together, run: s.deleteAll}
	s.stats = gatherer[*lookup]{most: together, run: s.statAll}
	s.lists = gatherer[*listing]{most: together, run: s.listAll}
	s.reads = gatherer[*smallRead]{most: together, bound: readMost, weight: func(r *smallRead) int64 { return r.most }, run: s.readAll}
	return s, nil
}

// at returns the path of a key below the module.
func (s *Store) at(key string) string {
	if s.o.Prefix == "" {
		return key
	}
	return s.o.Prefix + "/" + key
}

func check(ctx context.Context, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Defaults of Options.
const (
	attempts = 5
	backoff  = 500 * time.Millisecond
)

// again tries until it succeeds, or fails in a way that is no use trying again. Of an
// attempt together with others that fails, the next one is alone.
func (s *Store) again(ctx context.Context, try func(alone bool) error) error {
	most, wait := attempts, backoff
	if s.o.Attempts > 0 {
		most = s.o.Attempts
	}
	if s.o.Backoff > 0 {
		wait = s.o.Backoff
	}
	alone := false
	for n := 1; ; {
		noSync, noPartial := s.noSync.Load(), s.noPartial.Load()
		err := try(alone)
		switch {
		case errors.Is(err, errTogether):
			alone = true
			continue
		case errors.Is(err, errStale):
			continue
		case !noSync && s.doWithout(&s.noSync, err, "--fsync"), !noPartial && s.doWithout(&s.noPartial, err, "--partial"):
			continue
		case err == nil, n >= most, !passing(err), ctx.Err() != nil:
			return err
		}
		n++
		pause := wait/2 + rand.N(wait)
		wait *= 2
		var f *failed
		if errors.As(err, &f) {
			s.o.Notify(fmt.Sprintf("the rsync server does not answer as it should (%s), trying again in %s", f.reason(), pause.Round(100*time.Millisecond)))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// withouts say what follows where a server does not take an option.
var withouts = map[string]string{
	"--fsync":   "the rsync server does not take --fsync: what is written is durable when its system writes it out",
	"--partial": "the rsync server does not take --partial-dir: a layer whose transfer breaks off begins anew",
}

// doWithout remembers, where err says so, that the server does not take an option that
// can be done without.
func (s *Store) doWithout(known *atomic.Bool, err error, option string) bool {
	if !refused(err, option) {
		return false
	}
	if !known.Swap(true) {
		s.o.log().Warn(withouts[option], "remote", s.o.url())
	}
	return true
}

// one waits for the turn of a layer.
func (s *Store) one(ctx context.Context, w way) (done func(), err error) {
	select {
	case s.large[w] <- struct{}{}:
		return func() { <-s.large[w] }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
