// Package fleet brings images onto many engines in one go: each is checked, each
// gets what it lacks, and what became of each is told.
package fleet

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Host is one of many that images are brought to: an engine that is fed from here, or
// something on its machine that pulls for itself. Its methods are called one after
// another, by one goroutine at a time.
type Host interface {
	// Name returns what the user called it, without secrets.
	Name() string

	// Check asks whether it is there and could take images, before anything moves. It
	// returns what no other engine is called, so that one with two names is noticed;
	// empty where there is no such thing. It may be left out.
	Check(ctx context.Context) (id string, err error)

	// Pull brings the images there, in their order. As transfer.Pull it stops at the
	// first failure, cleans up, and returns the results of what was done before it.
	Pull(ctx context.Context, job Job) ([]transfer.Result, error)

	io.Closer
}

// Fed is a Host that reads the layers out of Job.Source, and calls Options.Lacks as
// transfer.Pull does. Those of several that lack the same layer get it from one read.
type Fed interface {
	Host
	IsFed()
}

// Wayfarer is a Host that could be reached in several ways.
type Wayfarer interface {
	// Way returns which one it took, once Pull has returned.
	Way() string
}

// Progress is told what moves to one host.
type Progress interface {
	transfer.Progress

	// Expect says that so many bytes of layers are to move, more than was said before.
	Expect(bytes int64)

	// End says that no more moves. Err is nil where the host has all.
	End(err error)
}

// Job is what a host is to do.
type Job struct {
	Images []transfer.PullImage

	// Source is the remote as this host is to read it. Resolve and Options.Verify give
	// all hosts the same answers, though a tag moves meanwhile; a host that pulls for
	// itself is told the digest that Resolve returns.
	Source remote.Source

	// Options are the host's own where they are about progress, and otherwise all hosts'.
	Options transfer.Options
}

// Options of a pull onto many hosts.
type Options struct {
	Parallel   int  // hosts at once; 0 means DefaultParallel
	FailFast   bool // the first failure ends all; else the others go on
	SkipChecks bool
	CheckTime  time.Duration // how long a host has to answer the check; 0 means DefaultCheckTime

	// Cached says that the source shares what it reads by itself, as one with a cache
	// does: each host reads it at its own pace.
	Cached bool

	// Progress returns what is told of one host; nil tells nobody.
	Progress func(host string) Progress
	Log      *slog.Logger

	patience time.Duration // see patience, which 0 means
}

// Defaults of Options.
const (
	DefaultParallel  = 16
	DefaultCheckTime = 15 * time.Second
)

// Status is what became of a host.
type Status string

// The statuses of a host.
const (
	Done      Status = "done"
	Failed    Status = "failed"    // in the pull
	Unhealthy Status = "unhealthy" // in the check: nothing was sent to it
	Stopped   Status = "stopped"   // another one failed, or an interrupt came
	Same      Status = "same"      // another name of an engine that had one: done once
)

// Outcome is what became of one host.
type Outcome struct {
	Host   string
	Status Status
	SameAs string            // of Same: the other name
	Images []transfer.Result // those that are there now
	Took   time.Duration     // of the pull
	Err    error             // nil where Status is Done or Same

	// Way is what a Wayfarer says, once it was told to pull; else empty.
	Way string

	// Alone says that the host fell behind the others and fetched for itself from
	// then on: how many bytes that were.
	Alone int64
}

// Pull brings the job's images to all hosts and returns an outcome for each, in their
// order. Its error is nil where all are done, of the kind of all failures where nothing
// else happened than they, and else Partial; ctx's own where that ended. It closes no host.
// job.Source is read for all of them, and job.Options.Verify asked, once for what all share.
func Pull(ctx context.Context, hosts []Host, job Job, o Options) ([]Outcome, error) {
	o = o.withDefaults()
	r := &run{o: o, hosts: hosts, outcomes: make([]Outcome, len(hosts))}
	r.rebuilds.keep = func(int64, error) bool { return true } // one that is not worth it for one is so for all
	for i, h := range hosts {
		r.outcomes[i] = Outcome{Host: h.Name(), Status: Stopped}
	}
	if !o.SkipChecks {
		r.check(ctx)
	}
	if o.FailFast && r.failed() {
		r.stop(ctx)
		return r.outcomes, r.verdict(ctx)
	}
	r.pull(ctx, job)
	r.stop(ctx)
	return r.outcomes, r.verdict(ctx)
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.CheckTime <= 0 {
		o.CheckTime = DefaultCheckTime
	}
	if o.Progress == nil {
		o.Progress = func(string) Progress { return silent{} }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// silent is a Progress that tells nobody.
type silent struct{ transfer.NoProgress }

func (silent) Expect(int64) {}
func (silent) End(error)    {}
