package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// rounds bounds how often what is damaged is gone through. What a document names
// is not known before it is mended: index, manifest, config, layer.
const rounds = 4

// repair lets the Mender write again what is damaged, image by image, and proves
// each at once, so that what one image has mended is not asked of another.
func (r *run) repair(ctx context.Context) error {
	for range rounds {
		asked := false
		damage := r.byImage()
		for _, m := range r.order {
			lost := slices.DeleteFunc(damage[m], func(f *finding) bool { return r.open[f.key()] != f })
			loss := lossOf(m, lost)
			key := fmt.Sprint(loss)
			if len(lost) == 0 || key == m.tried {
				continue
			}
			m.tried, asked = key, true
			r.o.Progress.Status("writing again what " + m.name() + " has lost")
			why := r.o.Mender.Mend(ctx, loss)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.o.Log.Debug("mended", "image", m.name(), "documents", loss.Documents, "layers", loss.Layers, "left", why)
			if err := r.again(ctx, lost, why); err != nil {
				return err
			}
			if why != nil && !lasting(why) && !fault.Is(why, fault.NotFound) {
				r.stopped = why
				return r.audit(ctx)
			}
		}
		if !asked {
			break
		}
	}
	if err := r.audit(ctx); err != nil {
		return err
	}
	return r.restore(ctx)
}

// name is what a person calls the image.
func (m *img) name() string {
	if names := m.names(); len(names) > 0 {
		return names[0].String()
	}
	return m.id.Short()
}

// byImage returns for each image the findings that a Mender may cure.
func (r *run) byImage() map[*img][]*finding {
	damage := map[*img][]*finding{}
	for _, f := range r.findings {
		if r.open[f.key()] != f || f.cure.isZero() || f.cure.config != nil {
			continue
		}
		for _, m := range f.images {
			damage[m] = append(damage[m], f)
		}
	}
	return damage
}

func lossOf(m *img, lost []*finding) remote.Loss {
	loss := remote.Loss{ID: m.id, Tags: m.names()}
	for _, f := range lost {
		if d := f.cure.document; !d.IsZero() {
			loss.Documents = append(loss.Documents, d)
		}
		if d := f.cure.layer; !d.Digest.IsZero() && !slices.ContainsFunc(loss.Layers, func(o image.Descriptor) bool { return o.Digest == d.Digest }) {
			loss.Layers = append(loss.Layers, d)
		}
		loss.Unmarked = loss.Unmarked || f.cure.unmarked == m.id
	}
	return loss
}

// again proves what was written again. What is right is repaired; what is not
// stays, or is found in a new way. Why says what the Mender could not do.
func (r *run) again(ctx context.Context, lost []*finding, why error) error {
	lost = r.close(lost)
	before := len(r.findings)
	var images []*img
	for _, f := range lost {
		for _, l := range f.cure.again {
			r.forget(l)
		}
		if !f.cure.document.IsZero() || !f.cure.unmarked.IsZero() {
			images = append(images, f.images...)
		}
	}
	if err := r.readImages(ctx, distinct(images)); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.readAll(ctx); err != nil {
		return err
	}
	failure := "what was written again is not right"
	if why != nil {
		failure = why.Error()
	}
	for _, f := range r.findings[before:] {
		if slices.ContainsFunc(lost, f.isAbout) { // others were hidden by what is repaired now
			f.Failure = cmp.Or(f.Failure, failure)
		}
	}
	for _, f := range lost {
		found := slices.ContainsFunc(r.findings[before:], func(now *finding) bool { return now.isAbout(f) })
		switch f.Repaired = r.right(ctx, f); {
		case f.Repaired:
			f.Failure = ""
		case !found && r.open[f.key()] == nil: // it was not proved to be right
			f.Failure, r.open[f.key()] = failure, f
		}
	}
	return ctx.Err()
}

// isAbout reports whether f is about what was written again for another finding.
func (f *finding) isAbout(o *finding) bool {
	return f.Object == o.Object || slices.ContainsFunc(f.cure.again, func(l *layer) bool { return slices.Contains(o.cure.again, l) })
}

// forget lets a layer be looked up and read again.
func (r *run) forget(l *layer) {
	if l.borrowed { // it is found again if it holds a layer still
		delete(r.layers, l.digest)
		return
	}
	l.looked, l.lost, l.there, l.state, l.force = false, false, remote.Layer{}, unproved, true
	r.toLook = append(r.toLook, l)
}

// right reports whether what a finding was about is as it has to be.
func (r *run) right(ctx context.Context, f *finding) bool {
	if d := f.cure.document; !d.IsZero() {
		_, err := r.from.Document(ctx, d)
		return err == nil
	}
	if !f.cure.unmarked.IsZero() {
		return r.open[f.key()] == nil
	}
	for _, l := range f.cure.again {
		if now := r.layers[l.digest]; now != nil && now.state != proved {
			return false
		}
	}
	return true
}

// restore writes again what follows from a config and its layers, where all of
// those are proved.
func (r *run) restore(ctx context.Context) error {
	auditor, ok := r.from.(remote.Auditor)
	if !ok {
		return nil
	}
	for _, f := range slices.Clone(r.findings) {
		c := f.cure.config
		if c == nil || r.open[f.key()] != f {
			continue
		}
		layers, all := r.layersOf(c)
		if !all {
			f.Failure = "not all layers of the image were read: it follows from them"
			continue
		}
		why := auditor.Restore(ctx, c.id, layers)
		r.close([]*finding{f})
		if err := r.auditOne(ctx, auditor, c); err != nil {
			return err
		}
		if now := r.open[f.key()]; now == nil {
			f.Repaired = true
		} else if why != nil {
			now.Failure = why.Error()
		}
	}
	return ctx.Err()
}

func distinct(images []*img) []*img {
	seen := map[*img]bool{}
	return slices.DeleteFunc(images, func(m *img) bool {
		again := seen[m]
		seen[m] = true
		return again
	})
}
