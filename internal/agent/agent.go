// Package agent pulls images on the host that it runs on: when somebody who may asks for
// it, and when a tag moves that it follows (docs/agent.md). It has credentials of its own,
// and takes none from those who ask. The other half is Client, which asks.
package agent

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Puller pulls images from the remote at a URL into the engine of this host, as
// transfer.Pull does. What o.Verify refuses is not to be pulled. It is called concurrently.
type Puller func(ctx context.Context, url string, images []transfer.PullImage, o transfer.Options) ([]transfer.Result, error)

// Opener opens the remote at a URL to read its tags. The caller calls what it returns to close it.
type Opener func(ctx context.Context, url string) (remote.Source, func() error, error)

// Options of an agent.
type Options struct {
	Version string // of the program
	Allowed Allowed
	Pull    Puller
	Open    Opener // for Follows

	Platform image.Platform // of what is followed; zero is the engine's own
	Parallel int            // layers of a pull on their way at once

	MaxPulls   int           // at once
	MaxWaiting int           // these and those that wait
	Linger     time.Duration // for which a pull goes on that nobody waits for

	Follows []Follow
	Command Command // that is run when a followed tag has moved and its image is here
	State   State   // what was done for followed tags
	Times   Times

	Log *slog.Logger // not nil
}

// Defaults of Options.
const (
	DefaultPulls   = 2
	DefaultWaiting = 64
	DefaultLinger  = 15 * time.Second
	DefaultRunTime = 5 * time.Minute // of Command
)

// Agent is one. It is safe for concurrent use.
type Agent struct {
	o       Options
	jobs    *jobs
	follows []*follower
	stats   *stats
	alive   time.Duration // between two lines of an answer at most
}

// New returns an agent that follows nothing yet. Its Close has to be called.
func New(o Options) *Agent {
	a := &Agent{o: o, stats: newStats(), alive: alive}
	a.jobs = newJobs(o, a.stats)
	for _, f := range o.Follows {
		a.follows = append(a.follows, newFollower(f, o, a.jobs, a.stats))
	}
	return a
}

// Follow follows what there is to follow until ctx ends, and waits for a command that
// runs then.
func (a *Agent) Follow(ctx context.Context) {
	var g errgroup.Group
	for _, f := range a.follows {
		g.Go(func() error { f.run(ctx); return nil })
	}
	_ = g.Wait() // none fails
}

// Close ends all pulls, and returns when none runs any more. What was asked for then is refused.
func (a *Agent) Close() { a.jobs.close() }
