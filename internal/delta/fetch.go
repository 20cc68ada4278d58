package delta

import (
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/chunk"
)

// fetch starts the reads of frames, in their order.
func (a *assembly) fetch() {
	for _, r := range a.plan.frames {
		if a.held.Acquire(a.ctx, r.weight()) != nil {
			return
		}
		a.running.Go(func() {
			next := 0
			err := a.read(r, func(i int, b []byte) {
				a.arrived[r[i].number].bytes = b
				close(a.arrived[r[i].number].ready)
				next = i + 1
			})
			for _, piece := range r[next:] { // where it failed
				a.arrived[piece.number].err = err
				close(a.arrived[piece.number].ready)
			}
		})
	}
}

// read reads pieces of the stored layer, and hands each to take as it comes.
func (a *assembly) read(r read, take func(i int, b []byte)) error {
	if n := r.size(); n > readMost {
		return fmt.Errorf("a piece of %d bytes", n) // no writer makes such
	}
	body, err := a.open(a.ctx, r[0].at, r.size())
	if err != nil {
		return err
	}
	defer body.Close()
	at := r[0].at
	for i, piece := range r {
		n, err := io.CopyN(io.Discard, body, piece.at-at)
		a.fetched.Add(n)
		if err != nil {
			return short(err)
		}
		b := make([]byte, piece.size)
		k, err := io.ReadFull(body, b)
		a.fetched.Add(int64(k))
		if err != nil {
			return short(err)
		}
		at = piece.at + piece.size
		take(i, b)
	}
	return nil
}

// short makes an error of an end that comes too early.
func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the layer ends early: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// decode waits for a frame that is fetched, and decodes it.
func (a *assembly) decode(j *job) error {
	from := a.arrived[j.frame]
	select {
	case <-from.ready:
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
	if from.err != nil {
		return from.err
	}
	if err := a.work(); err != nil {
		return err
	}
	defer a.rest()
	defer from.done()
	b := from.bytes
	from.bytes = nil
	return a.unpack(j, b)
}

// unpack decodes a frame and looks at its chunks.
func (a *assembly) unpack(j *job, stored []byte) error {
	x := a.plan.index
	raw, err := x.Codec.AppendDecoded(j.raw[:0], stored, int(x.Frames[j.frame].Size))
	if err != nil {
		return err
	}
	j.raw = raw
	var buffer []byte
	for i, k := range j.keeps {
		buffer = a.gather(j, i, buffer)
		c := x.Chunks[a.plan.parts[j.frame].chunk+i]
		if chunk.SumOf(buffer) != c.Sum {
			return fmt.Errorf("the chunk at byte %d of the contents is not what the index says", c.At)
		}
		if k != nil {
			k.bytes = append([]byte(nil), buffer...)
		}
	}
	return nil
}

// mend fetches a frame that was to come from local layers.
func (a *assembly) mend(j *job) error {
	f := a.plan.index.Frames[j.frame]
	if a.mended.Add(int64(f.Stored)) > max(a.plan.index.Stored/mendShare, mendLeast) {
		return errors.New("local layers are not what their indexes say")
	}
	var b []byte
	err := a.read(read{{j.frame, f.At, int64(f.Stored)}}, func(_ int, stored []byte) { b = stored })
	if err != nil {
		return err
	}
	return a.unpack(j, b)
}
