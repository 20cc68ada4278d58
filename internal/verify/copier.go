package verify

import (
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Copier is a Mender that reads from another remote: of a layer with a chunk index only
// the frames that hold what is damaged, where To is a Source. What is damaged there too is
// not written: each byte is verified on its way out and on its way in.
type Copier struct {
	From remote.Source
	To   remote.Target

	failed map[image.Digest]error // what From could not give: it is not asked again
}

// Mend implements Mender: layers first, then documents, those first that others name.
func (c *Copier) Mend(ctx context.Context, loss remote.Loss) error {
	if c.failed == nil {
		c.failed = map[image.Digest]error{}
	}
	var failed []error
	try := func(id image.Digest, write func() (source, target error)) error {
		if c.failed[id] == nil {
			source, target := write()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if target != nil {
				return target
			}
			c.failed[id] = source
		}
		if c.failed[id] != nil {
			failed = append(failed, c.failed[id])
		}
		return nil
	}
	for _, l := range loss.Layers {
		if err := try(l.Digest, func() (error, error) { return c.layer(ctx, l) }); err != nil {
			return err
		}
	}
	for i := len(loss.Documents) - 1; i >= 0; i-- {
		id := loss.Documents[i]
		err := try(id, func() (source, target error) {
			doc, err := c.From.Document(ctx, id)
			if err != nil {
				return err, nil
			}
			return nil, c.To.PutDocument(ctx, doc)
		})
		if err != nil {
			return err
		}
	}
	if loss.Unmarked {
		failed = append(failed, c.mark(ctx, loss.ID))
	}
	if err := errors.Join(failed...); err != nil {
		return fault.Wrap(fault.Damaged, first(failed), "the other remote cannot give it")
	}
	return nil
}

// layer copies a layer. The two errors are of the one side and of the other.
func (c *Copier) layer(ctx context.Context, l image.Descriptor) (source, target error) {
	there, err := remote.Layers(ctx, c.From, []image.Digest{l.Digest})
	if err != nil {
		return err, nil
	}
	// What the file here has of it need not be read there. Whatever is in the way of that: the whole is not.
	if source, target := c.patch(ctx, l, there[0]); source == nil || ctx.Err() != nil {
		return source, target
	}
	body, err := c.From.Open(ctx, there[0])
	if err != nil {
		return err, nil
	}
	defer body.Close()
	from := &watched{r: body}
	l.Size = there[0].Size
	_, err = c.To.PutLayer(ctx, l, from)
	var wrong *image.MismatchError
	if from.err != nil {
		return from.err, nil
	} else if errors.As(err, &wrong) || lasting(err) {
		return err, nil
	}
	return nil, err
}

// mark says again which manifests of an index are here: those that the other
// remote has, and that are here in full.
func (c *Copier) mark(ctx context.Context, index image.Digest) error {
	source, ok := c.From.(remote.Holder)
	target, both := c.To.(remote.Holder)
	if !ok || !both {
		return fault.New(fault.NotFound, "the other remote does not say which platforms it has")
	}
	held, err := source.Held(ctx, index)
	if err != nil {
		return err
	}
	err = fault.New(fault.NotFound, "the other remote does not have any of its platforms")
	marked := false
	for _, id := range held {
		if why := target.Hold(ctx, index, []image.Digest{id}); why != nil {
			err = why
		} else {
			marked = true
		}
	}
	if marked {
		return nil
	}
	return err
}

// watched remembers how a reader failed.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

func first(all []error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
