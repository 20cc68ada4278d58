package agent

import (
	"context"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/fleet"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// fedHost counts what it is fed.
type fedHost struct {
	fleet.Host
	pulls, closed int
}

func (h *fedHost) Pull(context.Context, fleet.Job) ([]transfer.Result, error) {
	h.pulls++
	return nil, nil
}

func (h *fedHost) Close() error {
	h.closed++
	return nil
}

// oneName is a remote whose tags all name one image.
type oneName struct {
	remote.Source
	id image.ID
}

func (r oneName) Resolve(context.Context, image.Reference) (image.ID, error) { return r.id, nil }

// TestHost: what an agent does not begin is done from here, and nothing else is.
func TestHost(t *testing.T) {
	p := &fakePuller{}
	c := serve(t, newAgent(t, p, nil))
	job := func(name string) fleet.Job {
		ref, err := image.ParseReference(name)
		if err != nil {
			t.Fatal(err)
		}
		return fleet.Job{Images: []transfer.PullImage{{Source: ref, Target: ref}}, Options: transfer.Options{Progress: &progress{}}}
	}
	pull := func(o HostOptions, j fleet.Job) (fed *fedHost, way string, results []transfer.Result, err error) {
		fed = &fedHost{}
		o.Name, o.Client, o.Else = "web1", c, fed
		if o.Remote == "" {
			o.Remote = "prod"
		}
		h := NewHost(o)
		results, err = h.Pull(t.Context(), j)
		if closed := h.Close(); closed != nil || fed.closed != 1 || h.Name() != "web1" {
			t.Errorf("%s closes %d: %v", h.Name(), fed.closed, closed)
		}
		return fed, h.(fleet.Wayfarer).Way(), results, err
	}
	// Without a source, the agent asks the remote itself.
	if fed, way, results, err := pull(HostOptions{}, job("myapp:1")); err != nil || way != ByAgent || fed.pulls != 0 || len(results) != 1 {
		t.Errorf("%s, fed %d: %v, %v", way, fed.pulls, results, err)
	}
	for name, o := range map[string]HostOptions{"other:1": {}, "myapp:1": {Remote: "/elsewhere"}} {
		if fed, way, _, err := pull(o, job(name)); err != nil || way != Here || fed.pulls != 1 {
			t.Errorf("%s from %q is not allowed: %s, fed %d: %v", name, o.Remote, way, fed.pulls, err)
		}
	}
	p.err = fault.New(fault.Refused, "not signed")
	if fed, way, _, err := pull(HostOptions{}, job("myapp:1")); !fault.Is(err, fault.Refused) || way != ByAgent || fed.pulls != 0 {
		t.Errorf("what it began and refused: %s, fed %d: %v", way, fed.pulls, err)
	}
	p.err = nil

	// What the tag names here it has to name there, and what verifies it here is asked.
	j := job("myapp:1")
	j.Source = oneName{id: p.named(j.Images[0].Source)}
	j.Options.Verify = func(context.Context, image.Reference, image.ID) (string, error) { return "a key", nil }
	if _, _, results, err := pull(HostOptions{Pinned: true}, j); err != nil || results[0].SignedBy != "a key" {
		t.Errorf("%v, %v", results, err)
	}
	j.Source = oneName{id: image.DigestOf([]byte("another"))}
	if fed, _, _, err := pull(HostOptions{Pinned: true}, j); !fault.Is(err, fault.Refused) || fed.pulls != 0 {
		t.Errorf("it names another image: fed %d, %v", fed.pulls, err)
	}
	calls := p.called()
	j.Options.Verify = func(context.Context, image.Reference, image.ID) (string, error) {
		return "", fault.New(fault.Refused, "not signed")
	}
	if fed, _, _, err := pull(HostOptions{Pinned: true}, j); !fault.Is(err, fault.Refused) || fed.pulls != 0 || p.called() != calls {
		t.Errorf("not signed: fed %d, %v", fed.pulls, err)
	}
}
