package main

import (
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/retention"
	"github.com/dogestry/dogestry/internal/transfer"
)

// scenes are commands that change a remote, each with what it meets there.
func scenes() []scene {
	return []scene{
		{
			name: "push", tags: map[string]string{"app:old": "classic:0", "app:1": "classic:1"},
			run: func(ctx context.Context, c *catalogue, r *repo.Repo) error {
				img, err := remotetest.Pull(ctx, c.at, mustRef("classic:2"))
				if err == nil {
					_, err = remotetest.Push(ctx, r, mustRef("app:1"), img)
				}
				return err
			},
			after: map[string]string{"app:old": "classic:0", "app:1": "classic:2"},
		},
		{
			name: "copy", tags: map[string]string{"app:old": "classic:0", "app:1": "classic:1"},
			run: func(ctx context.Context, c *catalogue, r *repo.Repo) error {
				for _, name := range []string{"classic:2", "multi:0"} {
					if err := c.copyTo(ctx, r, name, map[string]string{"classic:2": "app:1"}[name]); err != nil {
						return err
					}
				}
				return nil
			},
			after: map[string]string{"app:old": "classic:0", "app:1": "classic:2", "multi:0": "multi:0"},
		},
		{
			name: "tag", tags: map[string]string{"app:1": "blobs:0", "app:live": "classic:1"},
			run: func(ctx context.Context, _ *catalogue, r *repo.Repo) error {
				_, err := names.Tag(ctx, r, mustRef("app:1"), mustRef("app:live"), names.TagOptions{})
				return err
			},
			after: map[string]string{"app:1": "blobs:0", "app:live": "blobs:0"},
		},
		{
			name: "rm", tags: map[string]string{"app:1": "classic:0", "app:2": "classic:1", "app:3": "classic:2", "web:1": "multi:0"},
			run: func(ctx context.Context, _ *catalogue, r *repo.Repo) error {
				for _, s := range []string{"app:[12]", "app:3"} {
					p, err := names.ParsePattern(s)
					if err != nil {
						return err
					}
					found, err := names.Find(ctx, r, "the-remote", []names.Pattern{p})
					if fault.Is(err, fault.NotFound) {
						continue // a rerun finds less
					}
					if err == nil {
						err = errors.Join(names.Remove(ctx, r, found)...)
					}
					if err != nil {
						return err
					}
				}
				return nil
			},
			after: map[string]string{"web:1": "multi:0"},
		},
		{
			name: "prune", tags: map[string]string{"app:1": "classic:0", "app:2": "classic:1", "app:kept": "classic:2"},
			run: func(ctx context.Context, _ *catalogue, r *repo.Repo) error {
				rows, err := names.Prune(ctx, r, names.PruneOptions{Name: "the-remote", Rules: retention.Rules{Names: []string{"kept"}}})
				for _, row := range rows {
					err = errors.Join(err, row.Err)
				}
				return err
			},
			after: map[string]string{"app:kept": "classic:2"},
		},
		{
			name: "gc", tags: map[string]string{"app:1": "classic:0", "app:2": "blobs:1"}, waste: []string{"classic:1", "classic:2", "blobs:0", "multi:0"},
			run: func(ctx context.Context, _ *catalogue, r *repo.Repo) error {
				_, err := r.Collect(ctx, repo.CollectOptions{Grace: grace})
				return err
			},
			after: map[string]string{"app:1": "classic:0", "app:2": "blobs:1"},
		},
	}
}

// copyTo copies an image of the catalogue, "" for the tag that it has there.
func (c *catalogue) copyTo(ctx context.Context, to *repo.Repo, name, tag string) error {
	if tag == "" {
		tag = name
	}
	o := transfer.CopyOptions{From: "the-source", To: "the-remote", Options: transfer.Options{Parallel: 1}}
	_, err := transfer.Copy(ctx, c.at, to, []transfer.CopyImage{{Source: mustRef(name), Target: mustRef(tag)}}, o)
	return err
}

// mustRef parses a name that is written in this program.
func mustRef(s string) image.Reference {
	ref, err := image.ParseReference(s)
	if err != nil {
		panic(err)
	}
	return ref
}
