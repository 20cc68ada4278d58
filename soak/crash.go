package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// over are the times of whoever comes after a command that is dead for certain.
var over = lease.Times{Dead: time.Nanosecond, Over: time.Nanosecond, Poll: 50 * time.Millisecond}

// scene is a command that dies.
type scene struct {
	name  string
	tags  map[string]string // that are there before: images of the catalogue
	waste []string          // images whose tags are removed before the command
	run   func(ctx context.Context, c *catalogue, r *repo.Repo) error
	after map[string]string // the tags that it is to lead to
}

// matrix is what became of all that were killed.
type matrix struct {
	mu         sync.Mutex
	killed     int
	violations []string
}

// crashes kills operations of the scenes, so many at a time: all of them, or where
// most is not 0 a sample of that many of each scene.
func (m *matrix) crashes(ctx context.Context, c *catalogue, g ground, scenes []scene, most, atOnce int) error {
	plans := make([]plan, len(scenes))
	defer func() {
		for _, p := range plans {
			if p.template != nil {
				p.template.close()
			}
		}
	}()
	first, fctx := errgroup.WithContext(ctx)
	for i, sc := range scenes {
		first.Go(func() (err error) {
			if plans[i].template, err = sc.template(fctx, c, g); err == nil {
				plans[i].ops, err = sc.count(fctx, c, g, plans[i].template.dir)
			}
			if err != nil {
				return fmt.Errorf("%s on %s: %w", sc.name, g.name, err)
			}
			return nil
		})
	}
	if err := first.Wait(); err != nil {
		return err
	}
	eg, ectx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, sc := range scenes {
		step := 1
		if most > 0 {
			step = (plans[i].ops + most - 1) / most
		}
		for n := 1 + step/2; n <= plans[i].ops; n += step {
			for _, mode := range g.modes {
				eg.Go(func() error {
					err := sc.crash(ectx, c, g, plans[i].template.dir, n, mode)
					if ectx.Err() != nil {
						return ectx.Err()
					}
					m.mu.Lock()
					defer m.mu.Unlock()
					m.killed++
					if err != nil {
						m.violations = append(m.violations, fmt.Sprintf("%s on %s, operation %d of %d, %s: %v", sc.name, g.name, n, plans[i].ops, mode, err))
					}
					return nil
				})
			}
		}
	}
	return eg.Wait()
}

// plan is how often a scene dies.
type plan struct {
	template *place
	ops      int
}

// template makes what is there before, once.
func (sc scene) template(ctx context.Context, c *catalogue, g ground) (*place, error) {
	p, err := g.open(ctx, "")
	if err != nil || p.dir == "" {
		return p, err
	}
	if err := sc.fill(ctx, c, p.sound); err != nil {
		p.close()
		return nil, err
	}
	time.Sleep(g.tick)
	return p, nil
}

// prepare returns a store that has what is there before.
func (sc scene) prepare(ctx context.Context, c *catalogue, g ground, template string) (*place, error) {
	p, err := g.open(ctx, template)
	if err != nil {
		return nil, err
	}
	if p.dir == "" {
		err = sc.fill(ctx, c, p.sound)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	if !g.aged {
		time.Sleep(g.tick)
	}
	return p, nil
}

func (sc scene) fill(ctx context.Context, c *catalogue, s storage.Store) error {
	at, err := openOn(ctx, s, lease.Times{})
	if err != nil {
		return err
	}
	tags := maps.Clone(sc.tags)
	for i, name := range sc.waste {
		tags[fmt.Sprintf("waste:%d", i)] = name
	}
	for tag, name := range tags {
		if err := c.copyTo(ctx, at, name, tag); err != nil {
			return err
		}
	}
	for i := range sc.waste {
		if err := s.Delete(ctx, fmt.Sprintf("repositories/waste/%d", i)); err != nil {
			return err
		}
	}
	return nil
}

// openOn opens a repository on a store.
func openOn(ctx context.Context, s storage.Store, times lease.Times) (*repo.Repo, error) {
	return repo.Open(ctx, s, repo.Options{Name: "the-remote", Codec: codec.LZ4, Times: times})
}

// count returns how many operations the command has.
func (sc scene) count(ctx context.Context, c *catalogue, g ground, template string) (int, error) {
	p, err := sc.prepare(ctx, c, g, template)
	if err != nil {
		return 0, err
	}
	defer p.close()
	s, err := p.dying(0, g.modes[0])
	if err != nil {
		return 0, err
	}
	before := p.ops()
	if err := sc.command(ctx, c, s); err != nil {
		return 0, err
	}
	return p.ops() - before, sc.left(ctx, c, p.sound, true)
}

// command is a process from its beginning to its end.
func (sc scene) command(ctx context.Context, c *catalogue, s storage.Store) error {
	at, err := openOn(ctx, s, lease.Times{})
	if err != nil {
		return err
	}
	return sc.run(ctx, c, at)
}

// crash lets the command fail at operation n and returns what is broken: behind the
// failure, behind a rerun, and behind a collection.
func (sc scene) crash(ctx context.Context, c *catalogue, g ground, template string, n int, mode string) error {
	p, err := sc.prepare(ctx, c, g, template)
	if err != nil {
		return err
	}
	defer p.close()
	s, err := p.dying(n, mode)
	if err != nil {
		return err
	}
	failure := sc.command(ctx, c, s)
	if err := sc.left(ctx, c, p.sound, failure == nil); err != nil {
		return fmt.Errorf("after %v: %w", failure, err)
	}
	at, err := openOn(ctx, p.sound, over)
	if err != nil {
		return err
	}
	if err := patiently(ctx, func() error { return sc.run(ctx, c, at) }); err != nil {
		return fmt.Errorf("the rerun after %v: %w", failure, err)
	}
	if err := sc.left(ctx, c, p.sound, true); err != nil {
		return fmt.Errorf("after the rerun: %w", err)
	}
	time.Sleep(g.tick)
	if err := patiently(ctx, func() error { return clean(ctx, p.sound) }); err != nil {
		return err
	}
	if err := sc.left(ctx, c, p.sound, true); err != nil {
		return fmt.Errorf("after a collection: %w", err)
	}
	return nil
}

// patiently does what a dead command's sweep may keep from being done for a moment,
// until the store's clock has gone on.
func patiently(ctx context.Context, do func() error) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := do()
		if !fault.Is(err, fault.Locked) && !errors.Is(err, errWaits) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var errWaits = errors.New("something is left that a collection should have freed")

// clean collects the garbage, and makes sure that nothing else is left.
func clean(ctx context.Context, s storage.Store) error {
	at, err := openOn(ctx, s, over)
	if err != nil {
		return err
	}
	if _, err := at.Collect(ctx, repo.CollectOptions{Grace: grace}); err != nil {
		return fmt.Errorf("the collection: %w", err)
	}
	again, err := at.Collect(ctx, repo.CollectOptions{Grace: grace, DryRun: true})
	if err != nil {
		return fmt.Errorf("a look behind the collection: %w", err)
	}
	var left []string
	for info, err := range s.List(ctx, "run/") {
		if err != nil {
			return err
		}
		// What a store was being tried out with `dogestry check --sweep` removes.
		if info.Key != "run/sweep" && !strings.HasPrefix(info.Key, "run/check-") {
			left = append(left, info.Key)
		}
	}
	if n := again.Freed.Count + again.Young.Count; n > 0 || len(left) > 0 {
		return fmt.Errorf("%w: %d entries, %s", errWaits, n, strings.Join(left, ", "))
	}
	return nil
}

// left proves that every tag names what it did or what it is to, done says that it
// must, and that all of it is whole.
func (sc scene) left(ctx context.Context, c *catalogue, s storage.Store, done bool) error {
	at, err := openOn(ctx, s, lease.Times{})
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, m := range []map[string]string{sc.tags, sc.after} {
		for name := range m {
			names[name] = true
		}
	}
	for tag, err := range at.References(ctx, "") {
		if err != nil {
			return err
		}
		if !names[tag.Reference.String()] {
			return fmt.Errorf("there is a tag %s", tag.Reference)
		}
	}
	for name := range names {
		id, err := c.whole(ctx, at, name)
		hex := gone
		if !fault.Is(err, fault.NotFound) {
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			hex = id.String()
		}
		before, after := c.idOf(sc.tags[name]), c.idOf(sc.after[name])
		if hex != after && (done || hex != before) {
			return fmt.Errorf("%s names %q, not %q; before it was %q", name, hex, after, before)
		}
	}
	return nil
}

// idOf is the ID of an image; gone for none.
func (c *catalogue) idOf(name string) string {
	if name == "" {
		return gone
	}
	return c.ids[name].String()
}

// crashAll kills commands on all grounds, and prints what came of it.
func crashAll(ctx context.Context, w io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp("", "dogestry-crash-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := s3test.Start(ctx, s3test.Options{Parent: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := become(server); err != nil {
		return err
	}
	at, err := openOn(ctx, mem.New(), lease.Times{})
	if err != nil {
		return err
	}
	c, err := makeCatalogue(ctx, at, few, o.seed)
	if err != nil {
		return err
	}
	total, bad := 0, 0
	for _, g := range []ground{inMemory(), inDirectory(dir), inBucket(server)} {
		for _, sc := range scenes() {
			var m matrix
			begin := time.Now()
			if err := m.crashes(ctx, c, g, []scene{sc}, 0, 16); err != nil {
				return err
			}
			fmt.Fprintf(w, "%-10s %-8s %5d operations killed, %d violations, %.0f s\n", g.name, sc.name, m.killed, len(m.violations), time.Since(begin).Seconds())
			for _, v := range m.violations[:min(most, len(m.violations))] {
				fmt.Fprintln(w, "  "+v)
			}
			total, bad = total+m.killed, bad+len(m.violations)
		}
	}
	fmt.Fprintf(w, "%d operations killed, %d violations\n", total, bad)
	if bad > 0 {
		return fmt.Errorf("%d violations", bad)
	}
	return nil
}
