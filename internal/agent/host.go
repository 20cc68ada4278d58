package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/dogestry/dogestry/internal/fleet"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Ways of a Host.
const (
	ByAgent = "agent"
	Here    = "here"
)

// HostOptions of a host that has an agent.
type HostOptions struct {
	Name   string // what the user called the engine
	Client *Client
	Remote string // as the agent is to know it

	// Pinned lets the agent pull what the job's source says that the tags name, and
	// nothing else. Else there need be no source.
	Pinned bool

	// Else is fed from here where the agent does not begin the pull; nil fails then.
	Else fleet.Host
}

// NewHost returns a host of a fleet whose agent pulls. Close closes Else too, but not the client.
func NewHost(o HostOptions) fleet.Host { return &host{HostOptions: o, way: ByAgent} }

type host struct {
	HostOptions
	way string
}

// Name implements fleet.Host.
func (h *host) Name() string { return h.HostOptions.Name }

// Way implements fleet.Wayfarer.
func (h *host) Way() string { return h.way }

// Check implements fleet.Host. What the engine is called the agent does not tell.
func (h *host) Check(ctx context.Context) (string, error) {
	_, err := h.Client.Status(ctx)
	return "", err
}

// Pull implements fleet.Host.
func (h *host) Pull(ctx context.Context, job fleet.Job) ([]transfer.Result, error) {
	q := Request{Remote: h.Remote, AllPlatforms: job.Options.AllPlatforms, DryRun: job.Options.DryRun}
	if job.Options.Platform != (image.Platform{}) {
		q.Platform = job.Options.Platform.String()
	}
	var signed []string
	for _, img := range job.Images {
		i := Image{Source: img.Source.String()}
		if img.Target.Tag != "" {
			i.Target = img.Target.String()
		}
		by := ""
		if h.Pinned {
			id, err := remote.SourceOf(job.Source, img.Source.Repository).Resolve(ctx, img.Source)
			if err == nil && job.Options.Verify != nil {
				by, err = job.Options.Verify(ctx, img.Source, id)
			}
			if err != nil {
				return nil, err
			}
			i.ID = id.String()
		}
		q.Images, signed = append(q.Images, i), append(signed, by)
	}
	results, err := h.Client.Pull(ctx, q, job.Options.Progress)
	if errors.Is(err, ErrAbsent) && h.Else != nil {
		job.Options.Progress.Note(fmt.Sprintf("not by its agent: %s", err))
		h.way = Here
		return h.Else.Pull(ctx, job)
	}
	for n := range min(len(results), len(signed)) {
		if signed[n] != "" {
			results[n].SignedBy = signed[n]
		}
	}
	return results, err
}

// Close implements fleet.Host.
func (h *host) Close() error {
	if h.Else != nil {
		return h.Else.Close()
	}
	return nil
}
