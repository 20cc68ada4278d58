package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// run is one pull onto many.
type run struct {
	o        Options
	hosts    []Host
	outcomes []Outcome // each written by the goroutine of its host alone
	sizes    memo[image.Digest, int64]
	rebuilds memo[image.Digest, int64] // sizes of layers that are to be put together; the error says that one is not
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
			if err != nil && !(ctx.Err() != nil && fault.Interrupted(err)) { // else it stays Stopped
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

// ahead is how many bytes of each layer each host has before it: what is read for
// several is in memory once, and not for each of them.
const ahead = 2 << 20

// openAtOnce bounds the layers that all hosts together have open in a cache, where
// each is decoded for each.
const openAtOnce = 24

// pull brings the images to those that are well.
func (r *run) pull(ctx context.Context, job Job) {
	all, cancel := context.WithCancel(ctx)
	defer cancel()
	var well []int
	for i := range r.hosts {
		if r.outcomes[i].Status == Stopped {
			well = append(well, i)
		}
	}
	from, feeder := share(job.Source), newFan(ctx)
	feeder.patience = cmp.Or(r.o.patience, patience)
	job.Options.Ahead, job.Options.Verify = ahead, once(job.Options.Verify)
	if r.o.Cached {
		job.Options.Parallel = max(1, min(cmp.Or(job.Options.Parallel, transfer.DefaultParallel), openAtOnce/max(1, min(len(well), r.o.Parallel))))
	}
	single := len(well) == 1 // shares with nobody
	members := make([]*member, len(r.hosts))
	join := func(i int) {
		if _, fed := r.hosts[i].(Fed); fed && members[i] == nil && !r.o.Cached && !single {
			members[i] = feeder.join()
		}
	}
	for _, i := range well[:min(len(well), r.o.Parallel)] { // before any of them reads: they are to begin together
		join(i)
	}
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	var feeding sync.WaitGroup
	feeding.Go(func() { feeder.run(watching) })
	var g errgroup.Group
	g.SetLimit(r.o.Parallel)
	for _, i := range well {
		g.Go(func() error {
			h, out := r.hosts[i], &r.outcomes[i]
			join(i)
			if members[i] != nil {
				defer func() { out.Alone = members[i].leave() }()
			}
			if all.Err() != nil {
				return nil // stopped
			}
			start := time.Now()
			progress := r.o.Progress(h.Name())
			results, err := h.Pull(all, r.own(job, h, progress, from, members[i]))
			progress.End(err)
			out.Images, out.Took = results, time.Since(start)
			if w, ok := h.(Wayfarer); ok {
				out.Way = w.Way()
			}
			switch {
			case err == nil:
				out.Status = Done
			case all.Err() != nil && fault.Interrupted(err): // stays Stopped
			default:
				out.Status, out.Err = Failed, gone(all, job, from, err)
				if r.o.FailFast {
					cancel()
				}
			}
			return nil
		})
	}
	_ = g.Wait() // each has its own
	unwatch()
	feeding.Wait()
}

// own is the job of one host.
func (r *run) own(job Job, h Host, progress Progress, from *shared, m *member) Job {
	job.Source = from.sourceFor(m)
	job.Options.Progress, job.Options.Log = progress, r.o.Log.With("engine", h.Name())
	index := map[transfer.PullImage]int{}
	for i, img := range job.Images {
		if _, ok := index[img]; !ok {
			index[img] = i
		}
	}
	job.Options.Lacks = func(img transfer.PullImage, layers []remote.Layer) {
		var size int64
		for _, l := range layers {
			size += max(0, l.Size)
		}
		progress.Expect(size)
		if m != nil {
			m.lacks(index[img], layers)
		}
	}
	job.Options.Measure = func(ctx context.Context, layer image.Digest, read func() (int64, error)) (int64, error) {
		if m != nil {
			defer m.await()()
		}
		return r.sizes.get(ctx, layer, read)
	}
	job.Options.Rebuild = r.rebuilds.get
	return job
}

// verifier is Options.Verify.
type verifier func(ctx context.Context, ref image.Reference, id image.ID) (by string, err error)

// once is verify with the same answer for all hosts. Of one that is nil it is nil.
func once(verify verifier) verifier {
	if verify == nil {
		return nil
	}
	answers := memo[string, string]{keep: func(string, error) bool { return true }}
	return func(ctx context.Context, ref image.Reference, id image.ID) (string, error) {
		return answers.get(ctx, ref.String()+" "+id.String(), func() (string, error) { return verify(ctx, ref, id) })
	}
}

// gone is the error of a host whose image was not whole in the remote: where its tag
// has moved since the others began with it, that is why.
func gone(ctx context.Context, job Job, from *shared, err error) error {
	if !fault.Is(err, fault.Damaged) {
		return err
	}
	for _, img := range job.Images {
		named, known := from.resolved(img.Source)
		if !known {
			continue
		}
		now, since := remote.Since(ctx, remote.SourceOf(job.Source, img.Source.Repository), img.Source, named, err)
		if since == nil && now != named {
			return fault.Wrap(fault.Other, err, "%s has moved on while it was pulled", img.Source).
				Advise("Pull again: all engines get then what it names now.")
		}
		if fault.Is(since, fault.NotFound) {
			return since
		}
	}
	return err
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
	count, failed, stopped, kinds := 0, 0, "", map[fault.Kind]bool{}
	done := false
	for _, out := range r.outcomes {
		if out.Status == Same {
			continue
		}
		count++
		switch {
		case out.Err == nil:
			done = true
		case out.Status == Stopped:
			stopped = ", the others were stopped"
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
	if !done && len(kinds) == 1 {
		kind = fault.KindOf(first)
	}
	return fault.Wrap(kind, first, "%d of %d engines failed%s; the first of them", failed, count, stopped)
}
