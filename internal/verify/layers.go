package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// layer is one that some image needs, by a digest that it is asked for by.
type layer struct {
	digest image.Digest
	images []*img // that need it

	own    image.Descriptor  // itself
	packed *image.Descriptor // the compressed layer that manifests name for it; may be nil

	looked bool // it was looked up: there is set, or there is a finding
	lost   bool
	there  remote.Layer
	state  state
	force  bool // it was written again: it is read whatever part is verified

	borrowed bool // no document names it, but it holds a layer that one does
}

type state int

const (
	unproved state = iota
	left           // it is of another part
	proved
	wrong
)

// toWrite is what is to be written where the layer is lost or wrong. What lies
// compressed in another layer is mended by writing that.
func (l *layer) toWrite() image.Descriptor {
	if l.packed != nil && (l.lost || !l.there.Packed.IsZero()) {
		return *l.packed
	}
	return l.own
}

func (l *layer) cure() cure { return cure{layer: l.toWrite(), again: []*layer{l}} }

// look looks up the layers that were not, and those that hold them compressed.
func (r *run) look(ctx context.Context) error {
	for len(r.toLook) > 0 {
		var ids []image.Digest
		for _, l := range r.toLook {
			if r.layers[l.digest] == l && !l.looked {
				ids = append(ids, l.digest)
			}
		}
		ids, r.toLook = image.Distinct(ids), nil
		r.o.Progress.Status("looking at layers")
		if err := r.lookUp(ctx, ids); err != nil {
			return err
		}
		for _, id := range ids {
			l := r.layers[id]
			r.toRead = append(r.toRead, l)
			if in := l.there.Packed; !in.IsZero() && r.layers[in] == nil {
				holds := &layer{digest: in, images: slices.Clone(l.images), own: l.own, borrowed: true}
				r.layers[in], r.toLook = holds, append(r.toLook, holds)
			}
		}
	}
	return ctx.Err()
}

// lookUp asks for all of ids at once. Where that fails it asks for each, so that
// one which cannot be read hides no other.
func (r *run) lookUp(ctx context.Context, ids []image.Digest) error {
	found, err := r.from.Look(ctx, remote.Closure{Layers: ids}, nil)
	if err == nil {
		for _, id := range ids {
			r.looked(r.layers[id], found)
		}
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for _, id := range ids {
		g.Go(func() error {
			l := r.layers[id]
			found, err := r.from.Look(gctx, remote.Closure{Layers: []image.Digest{id}}, nil)
			if err != nil {
				l.looked, l.lost = true, true
				return r.failure(gctx, err, r.objectOf(id), l.cure(), l.images...)
			}
			r.success()
			r.looked(l, found)
			return nil
		})
	}
	return g.Wait()
}

// looked notes what was found of a layer.
func (r *run) looked(l *layer, found *remote.Found) {
	l.looked = true
	if err := found.Torn[l.digest]; err != nil {
		l.lost = true
		r.found(findingOf(err, Metadata, l.digest.String(), l.cure(), l.images...))
		return
	}
	l.lost, l.there = false, found.Layers[l.digest]
}

// unit is an object with a layer, and the layers that lie in it compressed. It is
// read once.
type unit struct {
	*layer
	within []*layer
}

// units returns what is to be read, the largest first, so that the last of
// several readers does not begin with it.
func (r *run) units() (all []unit, size int64) {
	within := map[*layer][]*layer{}
	seen := map[*layer]bool{}
	candidates := r.toRead
	for _, l := range r.toRead {
		if in := r.holder(l); in != nil && l.state == unproved && !seen[l] {
			within[in] = append(within[in], l)
			candidates = append(candidates, in)
		}
		seen[l] = true
	}
	r.toRead = nil
	clear(seen)
	for _, l := range candidates {
		u := unit{l, within[l]}
		if seen[l] || l.lost || r.holder(l) != nil || l.state != unproved && len(u.within) == 0 {
			continue // it is not there, or is read with another, or has been
		}
		seen[l] = true
		id := l.digest
		if !l.there.Packed.IsZero() {
			id = l.there.Packed
		}
		if !r.o.Part.Has(id) && !l.force && !slices.ContainsFunc(u.within, func(l *layer) bool { return l.force }) {
			u.become(left)
			continue
		}
		all = append(all, u)
		if size += l.there.Size; size < 0 { // sizes may lie
			size = math.MaxInt64
		}
	}
	slices.SortFunc(all, func(a, b unit) int { return cmp.Compare(b.there.Size, a.there.Size) })
	return all, size
}

// holder returns the layer whose object l lies in, nil where that is not another's
// or is torn itself.
func (r *run) holder(l *layer) *layer {
	if l.lost || l.there.Packed.IsZero() {
		return nil
	}
	if in := r.layers[l.there.Packed]; in != nil && !in.lost && in != l {
		return in
	}
	return nil
}

func (u unit) become(s state) {
	u.state = s
	for _, l := range u.within {
		l.state = s
	}
}

// images are those that need the unit.
func (u unit) allImages() []*img {
	images := slices.Clone(u.images)
	for _, l := range u.within {
		images = append(images, l.images...)
	}
	return images
}

// readAll reads what is not proved yet.
func (r *run) readAll(ctx context.Context) error {
	units, size := r.units()
	if len(units) == 0 {
		return ctx.Err()
	}
	return readEach(ctx, r, units, size, r.readUnit)
}

// readEach reads objects of size bytes in all, several at once. It ends with the
// first error.
func readEach[T any](ctx context.Context, r *run, all []T, size int64, read func(context.Context, T) error) error {
	r.o.Progress.Status("")
	r.o.Progress.Reading(size)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.o.Parallel)
	for _, one := range all {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return read(gctx, one) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.o.Progress.Reading(0)
	return nil
}

// readUnit proves one object.
func (r *run) readUnit(ctx context.Context, u unit) error {
	var contents *codec.Contents
	var to io.Writer = io.Discard
	if len(u.within) > 0 {
		contents = codec.NewContents()
		to = contents
	}
	n, err := r.copy(ctx, to, u.there)
	r.o.Progress.Read(int(max(0, u.there.Size-n))) // what does not come any more
	if contents == nil {
		if err != nil {
			return r.judge(ctx, u, err)
		}
		r.proved(u, n)
		return r.checkIndex(ctx, u)
	}
	sum, size, unpackErr := contents.End(err)
	if err != nil {
		return r.judge(ctx, u, err)
	}
	r.proved(u, n)
	for _, l := range u.within {
		lie := ""
		switch {
		case unpackErr != nil:
			lie = fmt.Sprintf("it says that %s holds the layer: %s", u.there.Object, unpackErr)
		case image.Digest(sum) != l.digest:
			lie = fmt.Sprintf("it says that %s holds the layer, and that holds %s", u.there.Object, image.Digest(sum))
		case size != l.there.Size:
			lie = fmt.Sprintf("it says that the layer has %d bytes, and it has %d", l.there.Size, size)
		}
		if lie != "" {
			l.state = wrong
			r.found(&finding{Finding: Finding{Object: l.there.Source, Problem: Metadata, Detail: lie}, cure: l.cure(), images: l.images})
		}
	}
	return nil
}

// bufferSize is how much of a layer is hashed at once, in bytes: it stays in the
// processor's cache.
const bufferSize = 128 << 10

// copy reads a layer to its end and returns how many bytes came.
func (r *run) copy(ctx context.Context, to io.Writer, l remote.Layer) (n int64, err error) {
	body, err := r.from.Open(ctx, l)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	buffer := make([]byte, bufferSize)
	for {
		k, err := body.Read(buffer)
		n += int64(k)
		r.o.Progress.Read(k)
		if k > 0 {
			if _, err := to.Write(buffer[:k]); err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (r *run) proved(u unit, n int64) {
	u.become(proved)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = 0
	r.readLayers++
	r.readBytes += n
}

// judge makes a finding of an object that could not be proved.
func (r *run) judge(ctx context.Context, u unit, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	u.become(wrong)
	c := u.cure()
	c.again = append(c.again, u.within...)
	if !lasting(err) {
		return r.failure(ctx, err, u.there.Object, c, u.allImages()...)
	}
	r.success()
	f := findingOf(err, Damaged, u.there.Object, c, u.allImages()...)
	if f.Problem != Missing {
		r.o.Progress.Status("finding out what is damaged in layer " + u.digest.Short())
		defer r.o.Progress.Status("")
		if err := r.findOut(ctx, u, f, err); err != nil {
			return err
		}
	}
	if f.Problem == Damaged || f.Problem == Truncated {
		if err := r.locate(ctx, u, f); err != nil {
			return err
		}
	}
	r.found(f)
	return nil
}

// findOut reads an object again, without believing what is said of its size, to
// tell a lie about a layer from its damage.
func (r *run) findOut(ctx context.Context, u unit, f *finding, first error) error {
	l := u.there
	l.Size = -1
	n, err := r.measure(ctx, l, u.there)
	var other *image.MismatchError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		f.Problem, f.Detail = Metadata, fmt.Sprintf("it says that the layer has %d bytes, and it has %d", u.there.Size, n)
		f.Object = cmp.Or(u.there.Source, f.Object)
	case errors.As(err, &other) && !other.Got.IsZero():
		found, err := r.from.Look(ctx, remote.Closure{Layers: []image.Digest{other.Got}}, nil)
		if err == nil && found.Torn[other.Got] == nil {
			f.Problem, f.Detail = Swapped, fmt.Sprintf("it holds the layer %s", other.Got)
		} else if errors.As(first, &other) && other.Size >= 0 && other.Read < other.Size {
			f.Problem = Truncated
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.Problem = Truncated
		if said := u.there.Size; said >= 0 && n < said {
			f.Detail += fmt.Sprintf(": it ends after %d of %d bytes", n, said)
		}
	}
	return ctx.Err()
}

// errTooLong ends measure.
var errTooLong = errors.New("it goes on and on")

// measure reads a layer of unknown size, for some times as long as it can be.
func (r *run) measure(ctx context.Context, l, said remote.Layer) (n int64, err error) {
	most := int64(64 << 20)
	for _, size := range []int64{said.Size, said.Stored} {
		if size < math.MaxInt64/8-most {
			most = max(most, 4*size)
		}
	}
	body, err := r.from.Open(ctx, l)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	buffer := make([]byte, bufferSize)
	for {
		k, err := body.Read(buffer)
		if n += int64(k); n > most {
			return n, errTooLong
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
