package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/retention"
	"github.com/dogestry/dogestry/internal/transfer"
)

// times are those of docs/format.md, cut to seconds. What has to stay is their
// order, with room for a busy machine: a lease is dead only when nothing that it
// allowed can still arrive (Gap, five seconds of a guard, a slow request), and a
// sweep is over only when nothing that it began can (Sweep, and the same).
var times = lease.Times{
	Renew: time.Second, Gap: 6 * time.Second, Dead: 20 * time.Second,
	Sweep: 5 * time.Second, Over: 20 * time.Second, Poll: 100 * time.Millisecond,
}

// grace is none: only leases protect what no tag reaches yet.
const grace = time.Nanosecond

// kind is what a command does.
type kind string

const (
	push   kind = "push"  // what a push writes, encoded anew, from memory
	copied kind = "copy"  // transfer.Copy into the remote
	pull   kind = "pull"  // transfer.Copy out of it
	tag    kind = "tag"   // names.Tag
	rm     kind = "rm"    // names.Remove
	prune  kind = "prune" // names.Prune
	gc     kind = "gc"    // repo.Collect
)

// kinds are all of them, in the order of the table.
var kinds = []kind{push, copied, pull, tag, rm, prune, gc}

// command is one command, done here or by a process of its own.
type command struct {
	Kind   kind
	Remote string // that is under test: a path, or s3://…
	Source string // a directory remote that has all images
	Image  string // push, copy: the tag there
	Tag    string // that is written, read or removed; of a prune a repository
	From   string // tag: the tag that is to have another name
	Codec  codec.Codec
	One    image.Platform // copy: of an image for several platforms this one; zero for all
	To     string         // pull: a directory; "" for memory
	Pause  time.Duration  // before each reading of an entry of Remote
}

// outcome is what became of a command that was not killed.
type outcome struct {
	ID      string   // what Tag names, or has named at From
	Removed []string // the tags that rm and prune removed
	Failed  []string // those that they could not remove
	Waited  bool     // for a collection
	Freed   int      // entries
	Kind    string   // of the fault; "" for success
	Message string
}

// do does the command. Where it pulls into memory, into is where to.
func (c command) do(ctx context.Context, open opener, into *repo.Repo) (o outcome) {
	var waited atomic.Bool
	waiting := func(what string) {
		if strings.HasPrefix(what, "waiting") {
			waited.Store(true)
		}
	}
	err := c.try(ctx, open, into, waiting, &o)
	o.Waited = waited.Load()
	if err != nil {
		o.Kind, o.Message = fault.KindOf(err).String(), err.Error()
	}
	return o
}

func (c command) try(ctx context.Context, open opener, into *repo.Repo, waiting func(string), o *outcome) error {
	at, err := open(ctx, c.Remote, c.Codec, c.Pause)
	if err != nil {
		return err
	}
	var ref image.Reference
	if c.Kind != prune && c.Kind != gc {
		if ref, err = image.ParseReference(c.Tag); err != nil {
			return err
		}
	}
	switch c.Kind {
	case push, copied:
		source, err := open(ctx, c.Source, c.Codec, 0)
		if err != nil {
			return err
		}
		from, err := image.ParseReference(c.Image)
		if err != nil {
			return err
		}
		if c.Kind == push {
			return pushImage(ctx, source, from, at, ref, waiting, o)
		}
		return copyImage(ctx, source, from, at, ref, c.One, waiting, o)
	case pull:
		if into == nil {
			if into, err = openNew(ctx, c.To, c.Codec, 0); err != nil {
				return err
			}
		}
		return copyImage(ctx, at, ref, into, ref, image.Platform{}, nil, o)
	case tag:
		from, err := image.ParseReference(c.From)
		if err != nil {
			return err
		}
		done, err := names.Tag(ctx, at, from, ref, names.TagOptions{Waiting: waiting})
		if err == nil {
			o.ID = done.ID.String()
		}
		return err
	case rm:
		return remove(ctx, at, c, o)
	case prune:
		return pruneRepository(ctx, at, c, o)
	default:
		done, err := at.Collect(ctx, repo.CollectOptions{Grace: grace})
		if done != nil {
			o.Freed = done.Freed.Count
		}
		return err
	}
}

// begun is a target whose session has begun already.
type begun struct{ remote.Target }

func pushImage(ctx context.Context, source remote.Source, from image.Reference, to *repo.Repo, ref image.Reference, waiting func(string), o *outcome) error {
	img, err := remotetest.Pull(ctx, source, from)
	if err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	session, end := remote.Begin(to, waiting)
	defer end(ctx)
	_, err = remotetest.Push(ctx, begun{session}, ref, img)
	o.ID = img.ID.String()
	return err
}

func copyImage(ctx context.Context, source remote.Source, from image.Reference, to remote.Target, ref image.Reference, one image.Platform, waiting func(string), o *outcome) error {
	options := transfer.CopyOptions{From: "the source", To: "the target"}
	options.Platform, options.Progress = one, status{waiting: waiting}
	done, err := transfer.Copy(ctx, source, to, []transfer.CopyImage{{Source: from, Target: ref}}, options)
	if err == nil {
		o.ID = done.Images[0].ID.String()
	}
	return err
}

// status is a Progress that tells of waiting alone.
type status struct {
	transfer.NoProgress
	waiting func(string)
}

func (s status) Status(what string) {
	if s.waiting != nil {
		s.waiting(what)
	}
}

func remove(ctx context.Context, at *repo.Repo, c command, o *outcome) error {
	pattern, err := names.ParsePattern(c.Tag)
	if err != nil {
		return err
	}
	found, err := names.Find(ctx, at, c.Remote, []names.Pattern{pattern})
	if err != nil {
		return err
	}
	for i, err := range names.Remove(ctx, at, found) {
		switch {
		case err == nil:
			o.Removed = append(o.Removed, found[i].Reference.String())
		case !fault.Is(err, fault.Refused): // it has moved: nothing was done
			o.Failed = append(o.Failed, found[i].Reference.String())
			return err
		}
	}
	return nil
}

func pruneRepository(ctx context.Context, at *repo.Repo, c command, o *outcome) error {
	rows, err := names.Prune(ctx, at, names.PruneOptions{Name: c.Remote, Rules: retention.Rules{Last: 2}, Repositories: []string{c.Tag}})
	for _, row := range rows {
		switch row.Fate {
		case names.Removed:
			o.Removed = append(o.Removed, row.Reference.String())
		case names.Failed:
			o.Failed = append(o.Failed, row.Reference.String())
			err = errors.Join(err, row.Err)
		}
	}
	return err
}

// work is the whole life of a process that does one command: it reads it, and
// prints what became of it.
func work(ctx context.Context, in io.Reader, out io.Writer) error {
	var c command
	if err := json.NewDecoder(in).Decode(&c); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(c.do(ctx, openNew, nil))
}
