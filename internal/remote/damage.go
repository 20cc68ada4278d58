package remote

import (
	"context"

	"github.com/dogestry/dogestry/internal/image"
)

// Damage is in the chain of the Damaged faults of a remote: it says which of the
// remote's objects they are about.
type Damage struct {
	Object  string // the remote's own name for it
	Missing bool   // it is not there
	Text    string // what is wrong; names the object
	Cause   error  // may be nil
}

// Error returns the text and the cause.
func (d *Damage) Error() string {
	if d.Cause == nil {
		return d.Text
	}
	return d.Text + ": " + d.Cause.Error()
}

// Unwrap returns the cause.
func (d *Damage) Unwrap() error { return d.Cause }

// Loss is what a remote has lost of an image, or holds damaged: what has to be
// written again.
type Loss struct {
	ID        image.ID
	Tags      []image.Reference // that name it; of what no tag names, its repositories and its digest
	Documents []image.Digest
	Layers    []image.Descriptor // Size is -1 where no document tells it

	// Unmarked says that ID is an index, and that the remote does not know any
	// more which of its manifests it has.
	Unmarked bool
}

// Auditor is a remote that keeps of an image what no pull needs, such as the
// manifest that follows from a config.
type Auditor interface {
	// Audit proves what is kept of the image with this config, whose layers are
	// these, each once, with sizes. It returns the entries that the config keeps
	// alive, and what is wrong: Damaged faults. Damage of the config is none of its.
	// Where some layers are left out it tells what is kept, and proves nothing.
	Audit(ctx context.Context, config image.Digest, layers []Layer) (keeps []image.Digest, damage []error, err error)

	// Restore writes it again. The layers and the config must have been proved.
	Restore(ctx context.Context, config image.Digest, layers []Layer) error

	// ObjectOf returns the remote's own name for the object that holds a document.
	ObjectOf(document image.Digest) string
}
