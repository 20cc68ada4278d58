// Package fleet brings images onto many engines in one go: each is checked, each
// gets what it lacks, and what became of each is told.
package fleet

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
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
	Progress func(host string) transfer.Progress
	Log      *slog.Logger
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
		o.Progress = func(string) transfer.Progress { return transfer.NoProgress{} }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// run is one pull onto many.
type run struct {
	o        Options
	hosts    []Host
	outcomes []Outcome // each written by the goroutine of its host alone
}

// checksAtOnce bounds the hosts that are checked at once.
const checksAtOnce = 64

// check asks all hosts how they are, and finds those that are there twice.
func (r *run) check(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(checksAtOnce)
	ids := make([]string, len(r.hosts))
	for i, h := range r.hosts {
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, r.o.CheckTime)
			defer cancel()
			id, err := h.Check(limited)
			if err != nil && ctx.Err() == nil && limited.Err() != nil {
				err = fault.New(fault.Other, "%s does not answer within %s", h.Name(), r.o.CheckTime).
					Advise("See how it is. To wait for it as long as it takes: --skip-checks.")
			}
			ids[i] = id
			if err != nil {
				r.outcomes[i].Status, r.outcomes[i].Err = Unhealthy, err
			}
			return nil
		})
	}
	_ = g.Wait() // each has its own
	first := map[string]int{}
	for i, id := range ids {
		if id == "" || r.outcomes[i].Err != nil {
			continue
		}
		if other, twice := first[id]; twice {
			r.outcomes[i].Status, r.outcomes[i].SameAs = Same, r.outcomes[other].Host
			continue
		}
		first[id] = i
	}
}

// pull brings the images to those that are well.
func (r *run) pull(ctx context.Context, job Job) {
	all, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(r.o.Parallel)
	for i, h := range r.hosts {
		if r.outcomes[i].Status != Stopped {
			continue
		}
		g.Go(func() error {
			if all.Err() != nil {
				return nil // stopped
			}
			own := job
			own.Options.Progress, own.Options.Log = r.o.Progress(h.Name()), r.o.Log.With("engine", h.Name())
			start := time.Now()
			results, err := h.Pull(all, own)
			out := &r.outcomes[i]
			out.Images, out.Took = results, time.Since(start)
			switch {
			case err == nil:
				out.Status = Done
			case all.Err() != nil && fault.Interrupted(err): // stays Stopped
			default:
				out.Status, out.Err = Failed, err
				if r.o.FailFast {
					cancel()
				}
			}
			return nil
		})
	}
	_ = g.Wait() // each has its own
}

func (r *run) failed() bool {
	return slices.ContainsFunc(r.outcomes, func(o Outcome) bool { return o.Err != nil })
}

// stop says why the stopped ones are.
func (r *run) stop(ctx context.Context) {
	for i := range r.outcomes {
		if out := &r.outcomes[i]; out.Status == Stopped {
			if out.Err = ctx.Err(); out.Err == nil {
				out.Err = fault.New(fault.Other, "stopped, because another engine failed")
			}
		}
	}
}

// verdict is the error of all of them together.
func (r *run) verdict(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var first error
	count, failed, kinds := 0, 0, map[fault.Kind]bool{}
	for _, out := range r.outcomes {
		if out.Status == Same {
			continue
		}
		count++
		switch {
		case out.Err == nil:
		case out.Status == Stopped:
			failed++
		default:
			failed++
			kinds[fault.KindOf(out.Err)] = true
			if first == nil {
				first = out.Err
			}
		}
	}
	if first == nil {
		return nil
	}
	kind := fault.Partial
	if failed == count && len(kinds) == 1 {
		kind = fault.KindOf(first)
	}
	return fault.Wrap(kind, first, "%d of %d engines failed; the first of them", failed, count)
}
