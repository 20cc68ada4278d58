package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// over are the times of whoever comes after a command that is dead for certain.
var over = lease.Times{Dead: time.Nanosecond, Over: time.Nanosecond, Poll: 50 * time.Millisecond}

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
		if info.Key != "run/sweep" {
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
