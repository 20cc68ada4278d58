package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Follow is a tag that is followed: where it moves to is pulled.
type Follow struct {
	Remote string // its URL
	Key    string // one name for the remote, however it is written
	Image  image.Reference
}

// Times of following.
type Times struct {
	Interval time.Duration // between two looks at a tag, give or take a tenth
	Most     time.Duration // between two attempts, after many failures
}

// Defaults of Times.
const (
	DefaultInterval = 30 * time.Second
	DefaultMost     = 5 * time.Minute
)

// lookTime is how long one look at a tag may take.
const lookTime = time.Minute

// follower follows a tag.
type follower struct {
	follow  Follow
	o       Options
	jobs    *jobs
	stats   *stats
	figures *followStats
	log     *slog.Logger

	// Of run alone.
	from      remote.Source // nil where it is not open
	closeFrom func() error
	looked    bool      // the engine was made to have the image, in this run of the program
	failures  int       // of looks and pulls, one after another
	tries     int       // of the command, that failed, for one image
	next      time.Time // when the command may be tried again

	saved Done // what State has

	mu   sync.Mutex
	done Done
	told FollowStatus // but for what is in done
}

func newFollower(f Follow, o Options, j *jobs, s *stats) *follower {
	return &follower{
		follow: f, o: o, jobs: j, stats: s, figures: s.follow(f.Remote, f.Image.String()),
		log:  o.Log.With("remote", f.Remote, "image", f.Image.String()),
		told: FollowStatus{Remote: f.Remote, Image: f.Image.String()},
	}
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	defer f.close()
	done, err := f.o.State.read(f.follow)
	if err != nil {
		f.log.Error("what was done before is not known, and is done again", "error", err)
	}
	f.saved = done
	f.set(done)
	for {
		what, err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		f.account(what, err)
		t := time.NewTimer(f.pause())
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// poll looks at the tag once, and does what there is to do. Where that fails it says
// what: "look", "pull", "command", or "state" where it cannot be written down.
func (f *follower) poll(ctx context.Context) (what string, err error) {
	id, err := f.look(ctx)
	if err != nil {
		return "look", err
	}
	if !f.looked || id != f.get().Pulled {
		if err := f.pull(ctx, id); err != nil {
			return "pull", err
		}
	}
	done := f.get()
	if done.Handled == done.Pulled {
		return "state", f.remember(done)
	}
	if err := f.remember(done); err != nil { // what was begun is known after a restart, too
		f.log.Warn("a restart would not know of this move", "error", err)
	}
	if err := f.command(ctx, done); err != nil {
		return "command", err
	}
	return "state", f.remember(f.get())
}

// look returns what the tag names.
func (f *follower) look(ctx context.Context) (id image.ID, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if f.from == nil {
		if f.from, f.closeFrom, err = f.o.Open(ctx, f.follow.Remote); err != nil {
			f.from = nil
			return id, err
		}
	}
	id, err = f.from.Resolve(ctx, f.follow.Image)
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.told.Looked = &now; err == nil {
		f.told.Named = id.String()
	}
	return id, err
}

// pull brings what the tag names into the engine. It was id a moment ago.
func (f *follower) pull(ctx context.Context, id image.ID) error {
	was := f.get()
	if id != was.Pulled {
		f.log.Info("the tag has moved", "to", id.Short())
		f.stats.count(func() { f.figures.moves++ })
	}
	img := transfer.PullImage{Source: f.follow.Image, Target: f.follow.Image}
	j, leave, err := f.jobs.join(order{
		remote: Remote{URL: f.follow.Remote}, images: []transfer.PullImage{img},
		options: transfer.Options{Parallel: f.o.Parallel, Platform: f.o.Platform},
	})
	if err != nil {
		return err
	}
	defer leave()
	select {
	case <-j.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.err != nil {
		return j.err
	}
	if named, ok := j.named[f.follow.Image.String()]; ok { // it may have moved on meanwhile
		id = named
	}
	f.looked = true
	done := Done{Pulled: id, ID: j.results[0].ID, Handled: was.Handled}
	if id != was.Pulled && was.Handled != was.Pulled { // also where it moves back: the command for the other may have done half of it
		done.Handled = image.ID{}
	}
	if len(f.o.Command.Args) == 0 {
		done.Handled = id
	}
	if id != was.Pulled {
		f.tries, f.next = 0, time.Time{}
	}
	f.set(done)
	return nil
}

// command runs the command for the image that was pulled, where it is time to. It is
// done when it has succeeded, and that is remembered: at least once for each image.
func (f *follower) command(ctx context.Context, done Done) error {
	if time.Now().Before(f.next) {
		return errWaiting
	}
	if len(f.o.Command.Args) > 0 {
		f.log.Info("running the command", "id", done.ID)
		output, err := f.o.Command.run(ctx, []string{
			"DOGESTRY_IMAGE=" + f.follow.Image.String(),
			"DOGESTRY_IMAGE_ID=" + done.ID.String(),
			"DOGESTRY_REMOTE=" + f.follow.Remote,
		})
		if err != nil {
			f.tries++
			f.next = time.Now().Add(f.backoff(f.tries))
			return err
		}
		f.log.Info("the command is done", "output", output)
	}
	done.Handled = done.Pulled
	f.set(done)
	return nil
}

// errWaiting: it is not yet time to run the command again.
var errWaiting = errors.New("the command failed before, and waits")

// remember writes down what was done. Where that fails it holds for this run of the
// program, and is tried again.
func (f *follower) remember(done Done) error {
	if done == f.saved {
		return nil
	}
	if err := f.o.State.write(f.follow, done); err != nil {
		return err
	}
	f.saved = done
	return nil
}

// account tells and counts how a poll ended.
func (f *follower) account(what string, err error) {
	if errors.Is(err, errWaiting) {
		return
	}
	f.mu.Lock()
	before := f.told.Error
	f.told.Error = ""
	if err != nil {
		f.told.Error = err.Error()
	}
	f.mu.Unlock()
	if err == nil {
		f.failures = 0
		f.stats.count(func() { f.figures.success = time.Now() })
		if before != "" {
			f.log.Info("all is well again")
		}
		return
	}
	f.stats.count(func() { f.figures.failures[what]++ })
	if what == "command" || what == "state" { // the tag is looked at as before
		f.failures = 0
	} else {
		f.failures++
		f.close() // so that it is opened anew
	}
	if fault.Is(err, fault.NotFound) && what == "look" {
		f.failures = 0 // it is about to be pushed, maybe
	}
	if before == err.Error() {
		f.log.Debug("cannot follow, still", "what", what, "error", err)
		return
	}
	f.log.Error("cannot follow", "what", what, "error", err, "advice", fault.AdviceOf(err))
}

func (f *follower) close() {
	if f.from != nil {
		if err := f.closeFrom(); err != nil {
			f.log.Debug("closing", "error", err)
		}
		f.from = nil
	}
}

// pause is how long to wait before the next look: many agents do not ask at once.
func (f *follower) pause() time.Duration {
	d := f.o.Times.Interval
	if f.failures > 0 {
		d = f.backoff(f.failures)
	}
	return d - d/10 + rand.N(d/5+1)
}

// backoff is the wait after n failures, one after another.
func (f *follower) backoff(n int) time.Duration {
	t := f.o.Times
	return max(t.Interval, min(t.Most, t.Interval<<min(n-1, 20)))
}

func (f *follower) get() Done {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

func (f *follower) set(d Done) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = d
}

func (f *follower) status() FollowStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.told
	for to, id := range map[*string]image.ID{&s.Pulled: f.done.Pulled, &s.ID: f.done.ID, &s.Handled: f.done.Handled} {
		if !id.IsZero() {
			*to = id.String()
		}
	}
	return s
}
