package agent

import (
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Port is where agents listen, and where they are looked for.
const Port = "22375"

// Paths of version 1 of what agents answer (docs/agent.md).
const (
	pullPath   = "/v1/pull"
	statusPath = "/v1/status"
)

// Bounds of what either side takes from the other.
const (
	maxRequest = 64 << 10 // bytes
	maxImages  = 100      // of a request
	maxName    = 2 << 10  // bytes of a remote's name
	maxLine    = 8 << 20  // bytes of an event
	maxLayers  = 2_000    // that a client keeps account of
)

// Request asks an agent to pull images. There is nothing in it that opens a remote: that,
// and with which credentials, the agent knows by itself.
type Request struct {
	// Remote is a name that the agent's administrator gave it, or its URL.
	Remote string  `json:"remote"`
	Images []Image `json:"images"`

	Platform     string `json:"platform,omitempty"` // empty is the engine's own
	AllPlatforms bool   `json:"allPlatforms,omitempty"`
	DryRun       bool   `json:"dryRun,omitempty"`
}

// Image is one image to pull.
type Image struct {
	Source string `json:"source"`           // as the remote names it
	Target string `json:"target,omitempty"` // as the engine is to; empty leaves it without a tag

	// ID is what Source has to name in the remote; empty is whatever it names. Where it
	// names something else by now, the pull is refused.
	ID string `json:"id,omitempty"`
}

// event is a line of the answer to a Request. One of its fields is set.
type event struct {
	Status *string     `json:"status,omitempty"` // what is waited for; empty ends it
	Note   string      `json:"note,omitempty"`
	Layer  *layerEvent `json:"layer,omitempty"`
	Expect int64       `json:"expect,omitempty"` // bytes of layers that are to move, as far as is known
	Alive  bool        `json:"alive,omitempty"`  // nothing has happened, and the pull goes on
	Result *outcome    `json:"result,omitempty"` // the last line
}

// layerEvent is how far a layer is. Name and Size are in the first one of a layer.
type layerEvent struct {
	N     int    `json:"n"` // which layer, from 0
	Name  string `json:"name,omitempty"`
	Size  int64  `json:"size,omitempty"`
	Bytes int64  `json:"bytes,omitempty"` // that went by until now
	State string `json:"state,omitempty"` // present, done or failed, once it is
}

// outcome is what became of a request.
type outcome struct {
	Images []transfer.Result `json:"images"`
	Error  *Failure          `json:"error,omitempty"`
}

// refusal is the answer to a request that was not begun.
type refusal struct {
	Error *Failure `json:"error"`
}

// Failure is an error on its way from an agent: its kind survives, so that exit codes hold.
type Failure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

func failureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	return &Failure{fault.KindOf(err).String(), err.Error(), fault.AdviceOf(err)}
}

// fault returns the error that it was, as met by the agent at address.
func (f *Failure) fault(address string) error {
	kind := fault.Named(f.Kind)
	e := fault.Wrap(kind, errors.New(f.Message), "the agent at %s", address)
	if f.Advice != "" {
		return e.Advise("%s", f.Advice)
	}
	return e
}
