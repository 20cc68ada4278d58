package transfer

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Mender writes to a remote again what it has lost, from an engine that has the
// image. It writes nothing else, and no tag. One call at a time.
type Mender struct {
	From    Exporter
	To      remote.Remote
	Options Options
}

// mostNames bounds the names by which one image is looked for in an engine.
const mostNames = 8

// Mend pushes the image, by its ID or else by one of its names, to what takes the
// lost parts alone. An engine of another kind calls the image otherwise, and may
// have the parts all the same. An error of the remote comes out as it is; that the
// engine does not have or give the parts is a NotFound fault.
func (m *Mender) Mend(ctx context.Context, loss remote.Loss) error {
	names := []string{loss.ID.String()}
	for _, ref := range loss.Tags[:min(mostNames, len(loss.Tags))] {
		if ref.Tag != "" {
			names = append(names, ref.Repository+":"+ref.Tag)
		}
	}
	to := newMending(m.To, loss)
	var why error
	for _, name := range names {
		_, err := Push(ctx, m.From, to, []PushImage{{Source: name, Target: target(loss)}}, m.Options)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case to.broken != nil:
			return to.broken
		case to.done():
			return nil
		case err != nil && (why == nil || fault.Is(why, fault.NotFound)):
			why = err
		}
	}
	if why == nil {
		why = errors.New("its image is another, or lacks it too")
	}
	return fault.Wrap(fault.NotFound, why, "the engine cannot give it")
}

// target is a name of the image for messages; nothing is tagged.
func target(loss remote.Loss) image.Reference {
	if len(loss.Tags) > 0 {
		return loss.Tags[0]
	}
	return image.Reference{Repository: loss.ID.Short(), Digest: loss.ID}
}

// mending is a remote that lacks what was lost and has all else, as a push sees
// it: what is damaged in the right size is overwritten.
type mending struct {
	remote.Remote

	mu       sync.Mutex
	lost     map[image.Digest]bool
	unmarked image.Digest // an index whose marks are lost, else zero
	broken   error        // how the remote itself failed
}

var _ remote.Holder = (*mending)(nil)

func newMending(to remote.Remote, loss remote.Loss) *mending {
	m := &mending{Remote: to, lost: map[image.Digest]bool{}}
	for _, d := range loss.Documents {
		m.lost[d] = true
	}
	for _, l := range loss.Layers {
		m.lost[l.Digest] = true
	}
	if loss.Unmarked {
		m.unmarked = loss.ID
	}
	return m
}

// done reports whether nothing is lost any more.
func (m *mending) done() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.lost) == 0 && m.unmarked.IsZero()
}

// Missing returns the part of c that is lost.
func (m *mending) Missing(ctx context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := func(d image.Digest) bool { return !m.lost[d] }
	return remote.Closure{
		Documents: slices.DeleteFunc(slices.Clone(c.Documents), kept),
		Layers:    slices.DeleteFunc(slices.Clone(c.Layers), kept),
	}, nil, ctx.Err()
}

// PutLayer overwrites a layer.
func (m *mending) PutLayer(ctx context.Context, layer image.Descriptor, r io.Reader) (remote.Layer, error) {
	from := watch(r, func(int) {})
	stored, err := m.Remote.PutLayer(ctx, layer, from)
	m.mu.Lock()
	defer m.mu.Unlock()
	var wrong *image.MismatchError
	switch {
	case err == nil:
		delete(m.lost, layer.Digest)
		delete(m.lost, stored.Tar)
	case from.Err() == nil && ctx.Err() == nil && !errors.As(err, &wrong) && !fault.Is(err, fault.Damaged):
		m.broken = err
	}
	return stored, err
}

// PutDocument overwrites a document.
func (m *mending) PutDocument(ctx context.Context, doc []byte) error {
	err := m.Remote.PutDocument(ctx, doc)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.lost, image.DigestOf(doc))
	} else if ctx.Err() == nil {
		m.broken = err
	}
	return err
}

// Tag does nothing: a tag is not moved by a repair.
func (m *mending) Tag(ctx context.Context, _ image.Reference, _ image.ID) error { return ctx.Err() }

// Hold marks those manifests of an index that are there in full, where no mark is
// left of those that there were.
func (m *mending) Hold(ctx context.Context, index image.Digest, manifests []image.Digest) error {
	holder, ok := m.Remote.(remote.Holder)
	if !ok || index != m.unmarked {
		return ctx.Err()
	}
	for _, id := range manifests {
		err := holder.Hold(ctx, index, []image.Digest{id})
		var incomplete *remote.IncompleteError
		switch {
		case err == nil:
			m.unmarked = image.Digest{}
		case !errors.As(err, &incomplete):
			return err
		}
	}
	return nil
}

// Held is the remote's.
func (m *mending) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	if holder, ok := m.Remote.(remote.Holder); ok {
		return holder.Held(ctx, index)
	}
	return nil, nil
}
