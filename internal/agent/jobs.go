package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// order is what a pull is to do: two that are the same are one pull.
type order struct {
	remote  Remote
	images  []transfer.PullImage
	ids     map[string]image.ID // what sources have to name, where somebody said it
	options transfer.Options
}

// key is the same for orders that are the same.
func (o order) key() string {
	ids := o.ids
	if len(ids) == 0 {
		ids = nil
	}
	content, err := json.Marshal([]any{o.remote.URL, o.images, ids, o.options.Platform, o.options.AllPlatforms, o.options.DryRun})
	if err != nil {
		panic(err) // texts alone
	}
	return string(content)
}

// names are those of the images in the remote and in the engine. Pulls that have one in
// common run one after the other.
func (o order) names() []string {
	var all []string
	for _, i := range o.images {
		all = append(all, i.Source.String())
		if i.Target.Tag != "" {
			all = append(all, i.Target.String())
		}
	}
	return all
}

// job is a pull, and those that wait for it. What is not said to be fixed is guarded by jobs.mu.
type job struct {
	order order // fixed
	feed  feed
	began time.Time     // fixed
	done  chan struct{} // closed when the next three are fixed

	results []transfer.Result
	named   map[string]image.ID // what each source stood for in the remote
	err     error

	cancel  context.CancelFunc // fixed
	waiters int
	leaving *time.Timer // ends it; nil while somebody waits
	running bool        // and not waiting for others
}

// jobs runs pulls: those that are the same once, those of one image one after the other,
// and so many at a time. It is safe for concurrent use.
type jobs struct {
	pull   Puller
	most   int           // run at once
	queue  int           // run or wait
	linger time.Duration // before a pull ends that nobody waits for
	log    *slog.Logger
	stats  *stats

	ctx context.Context // of all; it is not that of who waits
	end context.CancelFunc

	mu      sync.Mutex
	closed  bool
	known   map[string]*job // by key; those that can be joined
	all     map[*job]*job
	busy    map[string]bool // names of images
	running int
	freed   chan struct{} // closed when busy or running have become less
	joined  sync.WaitGroup
}

// errBusy is told to who comes when there are too many.
var errBusy = fault.New(fault.Locked, "too many pulls wait already").Advise("Try again when they are done.")

// errClosing is told to who comes when the agent ends.
var errClosing = fault.New(fault.Other, "the agent is about to end").Advise("Try again when it runs again.")

func newJobs(o Options, s *stats) *jobs {
	ctx, end := context.WithCancel(context.Background())
	return &jobs{
		pull: o.Pull, most: o.MaxPulls, queue: o.MaxWaiting, linger: o.Linger, log: o.Log, stats: s,
		ctx: ctx, end: end,
		known: map[string]*job{}, all: map[*job]*job{}, busy: map[string]bool{}, freed: make(chan struct{}),
	}
}

// join returns the pull that does what o says, which may be one that runs already. The
// caller calls leave once, when it waits no more.
func (s *jobs) join(o order) (j *job, leave func(), err error) {
	key := o.key()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosing
	}
	j = s.known[key]
	if j == nil {
		if len(s.all) >= s.queue {
			return nil, nil, errBusy
		}
		ctx, cancel := context.WithCancel(s.ctx)
		j = &job{order: o, began: time.Now(), done: make(chan struct{}), cancel: cancel, named: map[string]image.ID{}}
		s.known[key], s.all[j] = j, j
		s.joined.Go(func() { s.run(ctx, key, j) })
	}
	if j.waiters++; j.leaving != nil {
		j.leaving.Stop()
		j.leaving = nil
	}
	return j, func() { s.leave(key, j) }, nil
}

// leave is for one that waits no more. A pull that nobody waits for goes on for a while:
// a connection that broke may come again.
func (s *jobs) leave(key string, j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.waiters--; j.waiters > 0 || s.all[j] == nil {
		return
	}
	j.leaving = time.AfterFunc(s.linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if j.waiters > 0 {
			return
		}
		s.forget(key, j)
		j.cancel()
	})
}

// forget lets nobody join j any more. The lock is held.
func (s *jobs) forget(key string, j *job) {
	if s.known[key] == j {
		delete(s.known, key)
	}
}

// run does what a job is for.
func (s *jobs) run(ctx context.Context, key string, j *job) {
	defer j.cancel()
	err := s.take(ctx, j)
	if err == nil {
		j.results, err = s.work(ctx, j)
		s.free(j)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j.err = err
	s.forget(key, j)
	delete(s.all, j)
	if j.leaving != nil {
		j.leaving.Stop()
	}
	close(j.done)
}

// take waits until j may run.
func (s *jobs) take(ctx context.Context, j *job) error {
	names := j.order.names()
	for {
		s.mu.Lock()
		if s.running < s.most && !slices.ContainsFunc(names, func(n string) bool { return s.busy[n] }) {
			s.running++
			j.running = true
			for _, n := range names {
				s.busy[n] = true
			}
			s.mu.Unlock()
			j.feed.Status("")
			return nil
		}
		freed := s.freed
		s.mu.Unlock()
		j.feed.Status("waiting for other pulls")
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// free lets others run.
func (s *jobs) free(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	for _, n := range j.order.names() {
		delete(s.busy, n)
	}
	close(s.freed)
	s.freed = make(chan struct{})
}

func (s *jobs) work(ctx context.Context, j *job) ([]transfer.Result, error) {
	o := j.order.options
	o.Progress = &j.feed
	o.Verify = func(_ context.Context, ref image.Reference, id image.ID) (string, error) {
		if want, ok := j.order.ids[ref.String()]; ok && want != id {
			return "", fault.New(fault.Refused, "%s names image %s by now, and %s was asked for", ref, id.Short(), want.Short()).
				Advise("The tag has moved. Pull again.")
		}
		j.named[ref.String()] = id
		return "", nil
	}
	o.Lacks = func(_ transfer.PullImage, layers []remote.Layer) {
		for _, l := range layers {
			j.feed.expect(max(0, l.Size))
		}
	}
	images := make([]string, len(j.order.images))
	for i, img := range j.order.images {
		images[i] = img.Source.String()
	}
	log := s.log.With("remote", j.order.remote.called(), "images", images)
	log.Info("pulling")
	start := time.Now()
	results, err := s.pull(ctx, j.order.remote.URL, j.order.images, o)
	s.stats.pulled(err)
	if err != nil {
		log.Warn("cannot pull", "error", err)
	} else {
		log.Info("pulled", "seconds", time.Since(start).Seconds())
	}
	return results, err
}

// close ends all pulls and returns when none runs any more.
func (s *jobs) close() {
	s.mu.Lock()
	s.closed = true
	for j := range s.all {
		if j.leaving != nil {
			j.leaving.Stop()
		}
	}
	s.mu.Unlock()
	s.end()
	s.joined.Wait()
}
