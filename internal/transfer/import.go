package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// ImportOptions are Options, and what only imports have. Platforms are chosen when
// a bundle is made.
type ImportOptions struct {
	Options
	From, To string // the bundle and the remote as the user named them, for messages
}

// CheckBase makes sure that a remote has what a bundle leaves out. It writes nothing.
func CheckBase(ctx context.Context, b *remote.Bundle, to remote.Source, o ImportOptions) error {
	return checkBase(ctx, b.Without, to, o)
}

// checkBase asks as SinceRemote does, and not for what is missing of a push: that is
// also what is there in another size than is noted beside it, which the push would mend.
func checkBase(ctx context.Context, without []image.Digest, to remote.Source, o ImportOptions) error {
	if len(without) == 0 {
		return nil
	}
	found, err := to.Look(ctx, remote.Closure{Layers: image.Distinct(without)}, nil)
	if err != nil {
		return err
	}
	for _, id := range without {
		if _, there := found.Layers[id]; !there {
			return fault.New(fault.Refused, "the bundle %s was made --since something that %s does not have: layer %s, which it leaves out, is missing there", o.From, o.To, id.Short()).
				Advise("Nothing was written. Import first what it was made --since. Or export it again, without --since, or --since a list of what is there: `dogestry export %s --all --list -o have.list`.", o.To)
		}
	}
	return nil
}

// smallLayer is up to which stored size layers of a bundle are held in memory, so
// that several are written at once, in bytes: a store far away takes its time for each.
const smallLayer = 1 << 20

// Import moves what is in a bundle into a remote: layers in the bytes in which the
// bundle has them, and only what the remote lacks. It tags each image once it is there in
// full. Before anything is written it makes sure that the remote has what the bundle leaves
// out. After a failure it returns what was tagged before; whole layers stay, and a
// rerun passes over them.
func Import(ctx context.Context, from remote.BundleReader, to remote.Target, o ImportOptions) (Shipment, error) {
	o.Options = o.withDefaults()
	if !o.DryRun {
		var end func(context.Context)
		to, end = remote.Begin(to, o.Progress.Status)
		defer end(ctx)
	}
	m := &importing{from: from, to: to, o: o, lacks: map[image.Digest]bool{}, sent: map[image.Digest]bool{}, done: map[image.Reference]bool{}}
	if err := m.begin(ctx); err != nil {
		return Shipment{}, err
	}
	if o.DryRun {
		for _, t := range from.Bundle().Tags {
			m.done[t.Image] = true
		}
		for _, l := range from.Bundle().Layers {
			m.sent[l.ID] = m.missing(l)
		}
		return m.shipment(), nil
	}
	err := m.all(ctx)
	return m.shipment(), err
}

// importing is a bundle on its way into a remote.
type importing struct {
	from remote.BundleReader
	to   remote.Target
	o    ImportOptions
	tag  func(context.Context, image.Reference, image.ID) error

	lacks map[image.Digest]bool // what the remote lacks, or lacked
	sent  map[image.Digest]bool // layers that came
	done  map[image.Reference]bool
}

// begin asks the remote what it has, and makes sure that all may be tagged.
func (m *importing) begin(ctx context.Context) error {
	b := m.from.Bundle()
	c := remote.Closure{Documents: b.Documents, Layers: slices.Clone(b.Without)}
	for _, l := range b.Layers {
		c.Layers = append(c.Layers, l.Digests()...)
	}
	c.Documents, c.Layers = image.Distinct(c.Documents), image.Distinct(c.Layers)
	missing, _, err := m.to.Missing(ctx, c)
	m.o.Progress.Status("")
	if err != nil {
		return err
	}
	for _, id := range slices.Concat(missing.Documents, missing.Layers) {
		m.lacks[id] = true
	}
	without := slices.DeleteFunc(slices.Clone(b.Without), func(id image.Digest) bool { return !m.lacks[id] })
	if len(without) > 0 {
		to, ok := m.to.(remote.Source)
		if !ok {
			return fault.New(fault.Other, "%s cannot take bundles that were made --since something", m.o.To)
		}
		if err := checkBase(ctx, without, to, m.o); err != nil {
			return err
		}
	}
	m.tag = m.to.Tag
	if !m.o.IfAbsent {
		return ctx.Err()
	}
	creator, ok := m.to.(remote.TagCreator)
	if !ok {
		return fault.New(fault.Refused, "%s cannot promise that a tag is not overwritten", m.o.To).Advise("Import without --if-absent.")
	}
	m.tag = creator.CreateTag
	for i, t := range b.Tags {
		if err := creator.MayCreate(ctx, t.Image, t.ID, i == 0 && !m.o.DryRun); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// missing reports whether the remote lacks a layer, by one of its names.
func (m *importing) missing(l remote.BundleLayer) bool {
	return slices.ContainsFunc(l.Digests(), func(id image.Digest) bool { return m.lacks[id] })
}

// all goes through the bundle. Small layers are written beside what is read next,
// but before anything that may need them.
func (m *importing) all(ctx context.Context) error {
	for _, l := range m.from.Bundle().Layers {
		if !m.missing(l) {
			m.o.Progress.Layer(l.ID.Short(), l.Stored).Present()
		}
	}
	for {
		small, gctx := errgroup.WithContext(ctx)
		small.SetLimit(m.o.Parallel)
		item, err := m.layers(gctx, small)
		if failed := small.Wait(); failed != nil {
			err = failed
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = m.put(ctx, item)
		}
		if err != nil {
			return err
		}
	}
}

// layers moves layers up to the next item that is none, which it returns.
func (m *importing) layers(ctx context.Context, small *errgroup.Group) (remote.BundleItem, error) {
	for {
		item, err := m.from.Next(ctx)
		if err != nil || item.Layer == nil {
			return item, err
		}
		l := *item.Layer
		if !m.missing(l.BundleLayer) || m.sent[l.ID] {
			continue
		}
		m.sent[l.ID] = true
		if l.As.Size > smallLayer {
			if err := m.putLayer(ctx, l); err != nil {
				return item, err
			}
			continue
		}
		content, err := io.ReadAll(l.As.Body)
		if err != nil {
			return item, err
		}
		l.As.Body = io.NopCloser(bytes.NewReader(content))
		small.Go(func() error { return m.putLayer(ctx, l) })
	}
}

// putLayer moves a layer.
func (m *importing) putLayer(ctx context.Context, l remote.BundleBody) error {
	to, ok := m.to.(remote.StoredTarget)
	if !ok {
		return fault.New(fault.Other, "%s cannot take bundles", m.o.To)
	}
	bar := m.o.Progress.Layer(l.ID.Short(), l.As.Size)
	body := watch(l.As.Body, bar.Add)
	stored := l.As
	stored.Body = io.NopCloser(body)
	_, err := to.PutStored(ctx, image.Descriptor{Digest: l.ID, Size: l.Size}, stored)
	var wrong *remote.StoredError
	if err = blame(ctx, body, err); errors.As(err, &wrong) {
		err = fault.Wrap(fault.Damaged, wrong.Cause, "layer %s is damaged in the bundle %s", l.ID.Short(), m.o.From).
			Advise("Copy the bundle again, and compare its sha256 with the one where it was made. What came before this is stored, and not imported again.")
	}
	if err != nil {
		bar.Fail()
		return err
	}
	bar.Done()
	return nil
}

// put moves what is no layer.
func (m *importing) put(ctx context.Context, item remote.BundleItem) error {
	switch {
	case item.Document != nil:
		if !m.lacks[image.DigestOf(item.Document)] {
			return nil
		}
		return m.to.PutDocument(ctx, item.Document)
	case item.Held != nil:
		holder, ok := m.to.(remote.Holder)
		if !ok {
			return nil
		}
		return m.whole(holder.Hold(ctx, item.Held.Index, []image.Digest{item.Held.Manifest}))
	case item.Signature != nil:
		s := item.Signature
		to, takes := m.to.(remote.Signatures)
		if !takes {
			return nil
		}
		return m.o.putSignature(ctx, to, s.Reference, s.Signature, s.Content)
	}
	if err := m.whole(m.tag(ctx, item.Tag.Image, item.Tag.ID)); err != nil {
		return named(item.Tag.Image, err)
	}
	m.done[item.Tag.Image] = true
	return nil
}

// whole says why an image is not there in full: the bundle has it not, or what it
// relied on has vanished.
func (m *importing) whole(err error) error {
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) {
		return err
	}
	b := m.from.Bundle()
	for _, id := range slices.Concat(incomplete.Missing.Documents, incomplete.Missing.Layers) {
		if slices.Contains(b.Without, id) || slices.Contains(b.Documents, id) && !m.lacks[id] {
			return fault.Wrap(fault.Other, err, "something removes from %s what is imported", m.o.To).
				Advise("Look for a clean-up job or a sync with deletion, and run the same command again.")
		}
	}
	return fault.Wrap(fault.Damaged, err, "neither the bundle %s nor %s has all that it names", m.o.From, m.o.To).
		Advise("Export it again. Of an image for several platforms, %s may say that it has others, and lack them: copy or push those there, too.", m.o.To)
}

func (m *importing) shipment() Shipment {
	s := Shipment{Images: []Shipped{}, Layers: []LayerResult{}}
	for _, t := range m.from.Bundle().Tags {
		if m.done[t.Image] {
			s.Images = append(s.Images, Shipped(t))
		}
	}
	for _, l := range m.from.Bundle().Layers {
		s.Layers = append(s.Layers, LayerResult{Digest: l.ID, Size: l.Size, Stored: l.Stored, Moved: m.sent[l.ID]})
	}
	return s
}
