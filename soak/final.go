package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
)

// final looks at what is left once nobody works any more: all that tags name is
// whole, every tag is what it has to be, and a collection frees the rest and loses nothing.
func (r *run) final(ctx context.Context) error {
	at, err := r.here(ctx, r.remote, codec.LZ4, 0)
	if err != nil {
		return err
	}
	if err := r.everything(ctx, at, "the end", true); err != nil {
		return err
	}
	// What killed commands have left is dead by then.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(max(times.Dead, times.Over) + 2*time.Second):
	}
	if _, err := at.Collect(ctx, repo.CollectOptions{Grace: grace}); err != nil {
		r.results.note(&r.results.wrong, "the last collection: %v", err)
	}
	if err := r.everything(ctx, at, "the last collection", false); err != nil {
		return err
	}
	return r.rest(ctx, at)
}

// everything pulls every tag whole. Once says that what tags name goes into the history.
func (r *run) everything(ctx context.Context, at *repo.Repo, when string, once bool) error {
	all := []string{kept}
	for _, repository := range repositories {
		for i := range tagsEach {
			all = append(all, fmt.Sprintf("%s:%d", repository, i))
		}
	}
	for _, t := range all {
		start := time.Now()
		id, err := r.catalogue.whole(ctx, at, t)
		e := event{start: start, end: time.Now(), id: id.String(), by: when}
		switch {
		case fault.Is(err, fault.NotFound):
			e.id = gone
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.results.note(&r.results.lost, "%s behind %s: %v", t, when, err)
		}
		r.history.add(t, e)
	}
	if once {
		return nil
	}
	for _, v := range r.history.violations() {
		r.results.note(&r.results.lost, "%s", v)
	}
	return nil
}

// rest proves that nothing is left but what tags reach.
func (r *run) rest(ctx context.Context, at *repo.Repo) error {
	again, err := at.Collect(ctx, repo.CollectOptions{Grace: grace, DryRun: true})
	if err != nil {
		return err
	}
	if n := again.Freed.Count + again.Young.Count; n > 0 {
		r.results.note(&r.results.wrong, "the last collection has left %d entries that nothing needs", n)
	}
	store, err := openStore(ctx, r.remote, 0)
	if err != nil {
		return err
	}
	defer store.Close()
	var left []string
	for info, err := range store.List(ctx, "run/") {
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		if info.Key != "run/sweep" && !strings.HasPrefix(info.Key, "run/check-") { // as in clean
			left = append(left, info.Key)
		}
	}
	if len(left) > 0 {
		r.results.note(&r.results.wrong, "the last collection has left %s", strings.Join(left, ", "))
	}
	return nil
}
