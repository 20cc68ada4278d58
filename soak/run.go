package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// kept is the one tag that nobody moves or removes: a remote without any is
// taken for a copy in progress by collections.
const kept = "kept:1"

// repositories and tagsEach say which tags there are besides.
var repositories = []string{"web", "api", "team/db"}

const tagsEach = 3

// weights are how often a worker chooses what, of their sum.
var weights = map[kind]int{push: 16, copied: 20, pull: 22, tag: 12, rm: 20, prune: 3, gc: 7}

// killing is how many of a hundred processes are killed. Behind a collection that
// is killed while it deletes, no other runs until it is over.
func killing(k kind) int {
	if k == gc {
		return 6
	}
	return 40
}

// run is one remote under test.
type run struct {
	o         options
	name      string // of the kind of store
	remote    string
	dir       string // for what is pulled by processes
	catalogue *catalogue
	here      opener
	history   history

	left    atomic.Int64 // commands to complete
	results result
	mean    [16]atomic.Int64 // of the time that processes take, by kind, in ns
}

// result is what a run came to.
type result struct {
	mu        sync.Mutex
	completed map[kind]int
	killed    int
	waited    int
	refused   map[string]int // commands that were told no, by kind and fault
	freed     int
	lost      []string
	torn      []string
	wrong     []string // failures that nothing explains
	took      time.Duration
}

func (r *result) note(list *[]string, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, fmt.Sprintf(format, args...))
}

// soak lets workers do commands until enough are completed or the time is up.
func (r *run) soak(ctx context.Context) error {
	r.results.completed, r.results.refused = map[kind]int{}, map[string]int{}
	r.here = sharing()
	r.left.Store(int64(r.o.commands))
	if o := r.do(ctx, command{Kind: copied, Image: r.catalogue.classic[0], Tag: kept}, false, nil); o != "" {
		return errors.New(o)
	}
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, r.o.duration)
	defer cancel()
	g, gctx := errgroup.WithContext(limited)
	for w := range r.o.workers + r.o.processes {
		random := rand.New(rand.NewPCG(r.o.seed, uint64(w)+1))
		g.Go(func() error {
			for r.left.Load() > 0 && gctx.Err() == nil {
				// What has begun ends, so that it is known what it did.
				r.do(context.WithoutCancel(gctx), r.choose(random), w >= r.o.workers, random)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	err := r.final(ctx)
	r.results.took = time.Since(begin)
	return err
}

// sharing opens each remote once for every codec.
func sharing() opener {
	var mu sync.Mutex
	open := map[string]*repo.Repo{}
	return func(ctx context.Context, name string, c codec.Codec, pause time.Duration) (*repo.Repo, error) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(name, c, pause)
		if open[key] != nil {
			return open[key], nil
		}
		at, err := openNew(ctx, name, c, pause)
		if err == nil {
			open[key] = at
		}
		return at, err
	}
}

// choose draws a command.
func (r *run) choose(random *rand.Rand) command {
	one := func(all []string) string { return all[random.IntN(len(all))] }
	name := func() string { return fmt.Sprintf("%s:%d", one(repositories), random.IntN(tagsEach)) }
	c := command{Tag: name(), Codec: []codec.Codec{codec.LZ4, codec.Zstd, codec.None}[random.IntN(3)]}
	if random.IntN(4) == 0 {
		c.Pause = time.Duration(1+random.IntN(8)) * 20 * time.Millisecond
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := random.IntN(sum)
	for _, k := range kinds {
		if n -= weights[k]; n < 0 {
			c.Kind = k
			break
		}
	}
	switch c.Kind {
	case push:
		c.Image = one(r.catalogue.classic)
	case copied:
		if c.Image = one(r.catalogue.all); slices.Contains(r.catalogue.multi, c.Image) && random.IntN(2) == 0 {
			c.One = platforms[random.IntN(len(platforms))]
		}
	case pull:
		if random.IntN(10) == 0 {
			c.Tag = kept
		}
	case tag:
		if c.From = name(); random.IntN(10) == 0 {
			c.From = kept
		}
	case prune:
		c.Tag = one(repositories)
	}
	return c
}

// do does a command, here or by a process, which may be killed, and enters what it
// did into the history. It returns what was wrong.
func (r *run) do(ctx context.Context, c command, process bool, random *rand.Rand) string {
	c.Remote, c.Source = r.remote, r.catalogue.source
	var into *repo.Repo
	if c.Kind == pull {
		if process {
			dir, err := os.MkdirTemp(r.dir, "pulled-")
			if err != nil {
				return err.Error()
			}
			defer os.RemoveAll(dir)
			c.To = dir
		} else {
			into, _ = repo.Open(ctx, mem.New(), repo.Options{Name: "memory"}) // empty: nothing can fail
		}
	}
	start := time.Now()
	var o outcome
	killed := false
	if process {
		var err error
		if o, killed, err = r.spawn(ctx, c, random); err != nil {
			r.results.note(&r.results.wrong, "%s %s: the process: %v", c.Kind, c.Tag, err)
			return err.Error()
		}
	} else {
		o = c.do(ctx, r.here, into)
	}
	end := time.Now()
	if killed {
		r.results.mu.Lock()
		r.results.killed++
		r.results.mu.Unlock()
		r.enter(c, outcome{}, start, end, false)
		return ""
	}
	r.enter(c, o, start, end, o.Kind == "")
	r.count(c, o)
	if c.Kind == pull && o.Kind == "" {
		r.pulled(ctx, c, o, into)
	}
	return r.judge(c, o, start, end)
}

// enter writes down what became of a command. Where it was killed, or failed,
// what it was about to do may have been done.
func (r *run) enter(c command, o outcome, start, end time.Time, done bool) {
	e := event{start: start, end: end, by: string(c.Kind), written: true, sure: true, id: o.ID}
	notFound := o.Kind == fault.NotFound.String()
	maybe := func(tag, id string) {
		m := e
		m.id, m.sure = id, false
		r.history.add(tag, m)
	}
	read := func(tag, id string) {
		m := e
		m.id, m.written = id, false
		r.history.add(tag, m)
	}
	switch c.Kind {
	case push, copied:
		if e.id = r.catalogue.ids[c.Image].String(); done {
			r.history.add(c.Tag, e)
		} else {
			maybe(c.Tag, e.id)
		}
	case tag:
		switch {
		case done:
			read(c.From, o.ID)
			r.history.add(c.Tag, e)
		case notFound:
			read(c.From, gone)
		default:
			maybe(c.Tag, anything)
		}
	case pull:
		switch {
		case done:
			read(c.Tag, o.ID)
		case notFound:
			read(c.Tag, gone)
		}
	case rm, prune:
		for _, t := range o.Removed {
			e.id = gone
			r.history.add(t, e)
		}
		for _, t := range o.Failed {
			maybe(t, gone)
		}
		switch {
		case c.Kind == rm && notFound:
			read(c.Tag, gone)
		case c.Kind == rm && o.Kind == "" && len(o.Removed) == 0 && !done: // killed
			maybe(c.Tag, gone)
		case c.Kind == prune && o.Kind == "" && !done:
			for i := range tagsEach {
				maybe(fmt.Sprintf("%s:%d", c.Tag, i), gone)
			}
		}
	}
}

func (r *run) count(c command, o outcome) {
	r.results.mu.Lock()
	defer r.results.mu.Unlock()
	if o.Waited {
		r.results.waited++
	}
	r.results.freed += o.Freed
	if o.Kind == "" {
		r.results.completed[c.Kind]++
		r.left.Add(-1)
		return
	}
	r.results.refused[string(c.Kind)+" "+o.Kind]++
}

// pulled proves what a pull has brought.
func (r *run) pulled(ctx context.Context, c command, o outcome, into *repo.Repo) {
	var err error
	if into == nil {
		into, err = openNew(ctx, c.To, codec.LZ4, 0)
	}
	var id image.ID
	if err == nil {
		id, err = r.catalogue.whole(ctx, into, c.Tag)
	}
	if err == nil && id.String() != o.ID {
		err = fmt.Errorf("it says %s and brought %s", o.ID, id)
	}
	if err != nil {
		r.results.note(&r.results.torn, "pull %s: %v", c.Tag, err)
	}
}

// judge says what is wrong with a failure, "" where it is one of those that others
// explain: what is not there cannot be pulled, and one collection runs at a time.
func (r *run) judge(c command, o outcome, start, end time.Time) string {
	switch {
	case o.Kind == "",
		o.Kind == fault.NotFound.String() && c.Kind != push && c.Kind != copied,
		o.Kind == fault.Locked.String() && c.Kind == gc,
		// A busy machine keeps one for longer than the seconds that it has here.
		c.Kind == gc && strings.HasSuffix(o.Message, lease.ErrTimeUp.Error()):
		return ""
	}
	what := fmt.Sprintf("%s %s %s: %s: %s", c.Kind, c.From, c.Tag, o.Kind, o.Message)
	source := c.Tag
	if c.Kind == tag {
		source = c.From
	}
	reads := (c.Kind == pull || c.Kind == tag) && r.history.stays(source, start, end)
	if o.Kind == fault.Damaged.String() && (reads || c.Kind == gc) { // a collection reads roots until they stay

		r.results.note(&r.results.lost, "%s", what)
	} else {
		r.results.note(&r.results.wrong, "%s", what)
	}
	return what
}

// spawn does a command by a process, and kills that perhaps.
func (r *run) spawn(ctx context.Context, c command, random *rand.Rand) (o outcome, killed bool, err error) {
	in, err := json.Marshal(c)
	if err != nil {
		return o, false, err
	}
	mean := &r.mean[slices.Index(kinds, c.Kind)]
	fate := random.IntN(100) < killing(c.Kind)
	after := time.Duration(random.Float64() * 1.5 * float64(max(mean.Load(), int64(20*time.Millisecond))))
	cmd := exec.CommandContext(ctx, r.o.self, "-worker")
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaint
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return o, false, err
	}
	if fate {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err = cmd.Wait()
	if out.Len() > 0 { // it was done by then
		err = json.Unmarshal(out.Bytes(), &o)
		took := int64(time.Since(start))
		mean.Store(mean.Load() + (took-mean.Load())/8)
		return o, false, err
	}
	var exit *exec.ExitError
	if fate && errors.As(err, &exit) && exit.ExitCode() == -1 {
		return o, true, nil
	}
	return o, false, fmt.Errorf("%w: %s", err, complaint.String())
}

// scratch makes a directory below that of the run.
func scratch(parent, name string) (string, error) {
	dir := filepath.Join(parent, name)
	return dir, os.MkdirAll(dir, 0o700)
}
