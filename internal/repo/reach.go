package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// reach finds out which entries the roots need: tags, and what registries know
// besides. It can be run again, and then reads only what may have changed.
type reach struct {
	repo    *Repo
	aliases bool // there are blobs among what may be deleted: then aliases are followed
	// stays says which entries are too young to be deleted, young which objects are;
	// nil where nobody asks.
	stays func(image.Digest) bool
	young func(modified time.Time) bool

	mu     sync.Mutex
	marked map[image.Digest]bool // reached by roots
	spared map[image.Digest]bool // by leases
	// What another look need not follow: images whose need cannot change, and tags
	// of them by their keys, with their versions. A manifest may be marked as held
	// in an index, and an alias may be written, behind the first look.
	fixed map[image.ID]bool
	seen  map[string]string
	// Layers that this look has asked for an alias; true where they were needed.
	looked map[image.Digest]bool

	originals original.Reader
}

func newReach(r *Repo) *reach {
	return &reach{
		repo: r, marked: map[image.Digest]bool{}, spared: map[image.Digest]bool{},
		fixed: map[image.ID]bool{}, seen: map[string]string{}, originals: original.Reader{From: r},
	}
}

// roots marks what all roots reach, and returns how many there are. Its error says
// which root needs what cannot be read: nothing may be deleted then.
func (m *reach) roots(ctx context.Context) (n int, err error) {
	m.looked = map[image.Digest]bool{}
	tags, err := m.each(ctx, repositoryPrefix, m.tag)
	if err != nil {
		return 0, err
	}
	digests, err := m.each(ctx, digestsPrefix, m.member)
	if err != nil {
		return 0, err
	}
	return tags + digests, m.referrers(ctx)
}

// each calls follow for every object under prefix, several at once.
func (m *reach) each(ctx context.Context, prefix string, follow func(context.Context, storage.Info) error) (n int, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for info, err := range m.repo.store.List(ctx, prefix) {
		if err != nil {
			return 0, errors.Join(m.repo.failure(err, "cannot list %s", m.repo.name), g.Wait())
		}
		if gctx.Err() != nil {
			break
		}
		n++
		g.Go(func() error { return follow(gctx, info) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return n, ctx.Err()
}

// tag follows an object under repositories/. One that no tag's key is counts too,
// if it names an image: it costs little to keep.
func (m *reach) tag(ctx context.Context, info storage.Info) error {
	v := version(info)
	m.mu.Lock()
	known, ok := m.seen[info.Key]
	m.mu.Unlock()
	if ok && v != "" && known == v {
		return nil
	}
	content, err := m.repo.small(ctx, info.Key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil // removed since it was listed
	}
	if err != nil {
		return m.repo.failure(err, "cannot read %s in %s", info.Key, m.repo.name)
	}
	ref, isTag := parseTagKey(info.Key)
	id, err := parseID(content)
	switch {
	case err != nil && !isTag:
		return nil
	case err != nil:
		return fault.Wrap(fault.Damaged, err, "the tag %s in %s is damaged", ref, m.repo.name).
			Advise("Push the image again, or remove the tag.")
	}
	if err := m.follow(ctx, id); err != nil {
		return m.needed(err, strings.TrimPrefix(info.Key, repositoryPrefix), "Push the image again, or remove the tag")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fixed[id] {
		m.seen[info.Key] = v
	}
	return nil
}

// member follows digests/<repository>/<hex>.
func (m *reach) member(ctx context.Context, info storage.Info) error {
	id, ok := parseMember(info.Key)
	if !ok {
		return nil // nobody's
	}
	return m.neededByMember(m.follow(ctx, id), info.Key)
}

// neededByMember is needed, of what registries know besides: no tag is to be removed then.
func (m *reach) neededByMember(err error, key string) error {
	of, ok := parseMemberKey(key)
	if !ok {
		return m.needed(err, key, "No registry has written this: remove the object "+key)
	}
	return m.needed(err, key, fmt.Sprintf("Push it again, or take it out of the repository through `dogestry serve` (DELETE /v2/%s/manifests/%s)", of.Repository, of.Manifest))
}

// needed says which root needs what cannot be read, and what helps.
func (m *reach) needed(err error, root, advice string) error {
	var incomplete *remote.IncompleteError
	switch {
	case err == nil, fault.Interrupted(err):
		return err
	case errors.As(err, &incomplete), fault.Is(err, fault.Damaged):
		return fault.Wrap(fault.Damaged, err, "%s in %s needs what is not there", root, m.repo.name).
			Advise("%s; until then nothing is deleted.", advice)
	}
	return fmt.Errorf("%s in %s: %w", root, m.repo.name, err)
}

// follow marks an image and what it needs, as far as that is there.
func (m *reach) follow(ctx context.Context, id image.ID) error {
	m.mu.Lock()
	fixed := m.fixed[id]
	m.mu.Unlock()
	if fixed {
		return nil
	}
	tree, err := m.repo.tree(ctx, id)
	if errors.Is(err, remote.ErrOriginal) {
		return m.original(ctx, id, err)
	}
	if err != nil {
		return err
	}
	docs, _ := tree.Documents()
	m.mark(docs...)
	for _, l := range tree.Layers() {
		if err := m.layer(ctx, l.Digest, true); err != nil {
			return err
		}
	}
	for _, t := range manifestsAndConfig(tree) {
		if err := m.config(ctx, t); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fixed[id] = tree.Kind != image.IndexKind && !m.aliases
	return nil
}

// original marks all entries of an image of format 1.0. Only a tag may name one,
// and not a document: then found stays the error.
func (m *reach) original(ctx context.Context, id image.ID, found error) error {
	is, err := original.IsNamed(ctx, m.repo, id)
	if err != nil || !is {
		return cmp.Or(err, found)
	}
	img, err := m.originals.Read(ctx, id)
	if err != nil {
		return err
	}
	for _, e := range img.Entries {
		m.mark(e.ID)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fixed[id] = true
	return nil
}

// manifestsAndConfig returns the parts of an image that have one config each.
func manifestsAndConfig(t *image.Tree) []*image.Tree {
	if t.Kind == image.IndexKind {
		return t.Children
	}
	return []*image.Tree{t}
}

// config marks what a config leads to: its synthesised manifest, and its layers
// by their diffIDs. Where a manifest names the layers itself, these are not needed.
func (m *reach) config(ctx context.Context, t *image.Tree) error {
	config := t.Image()
	if config == nil {
		return nil // of something else than an image
	}
	id := t.ID
	if t.Kind == image.ManifestKind {
		id = t.Children[0].ID
	}
	pointer, err := m.repo.small(ctx, entryKey(id, entryManifest))
	switch {
	case errors.Is(err, storage.ErrNotFound):
	case err != nil:
		return m.repo.failure(err, "cannot read %s", m.repo.name)
	default:
		if manifest, err := parseID(pointer); err == nil { // one that is damaged is written again by the next push
			m.mark(manifest)
		}
	}
	for _, d := range image.Distinct(config.DiffIDs) {
		if err := m.layer(ctx, d, t.Kind == image.ConfigKind); err != nil {
			return err
		}
	}
	return nil
}

// layer marks a layer, and the blob where an alias has it. Whoever names a layer may
// have found it by one.
func (m *reach) layer(ctx context.Context, id image.Digest, needed bool) error {
	m.mu.Lock()
	m.marked[id] = true
	strictly, known := m.looked[id]
	done := !m.aliases || known && (strictly || !needed)
	if !done {
		m.looked[id] = needed
	}
	m.mu.Unlock()
	if done {
		return nil
	}
	blob, err := m.repo.aliasOf(ctx, id, needed)
	if err == nil && !blob.IsZero() {
		m.mark(blob)
	}
	return err
}

// aliasOf returns the blob that an alias names, zero where there is none. Where the
// layer is needed it makes sure that it is there: of an alias that is damaged nobody
// knows any more which blob it keeps alive, and that must not be deleted.
func (r *Repo) aliasOf(ctx context.Context, id image.DiffID, needed bool) (image.Digest, error) {
	meta, err := r.metadata(ctx, id)
	if _, known := codecOf(meta.File); err == nil && meta.Blob.IsZero() && (known || meta.document) {
		return image.Digest{}, nil // its file is its own
	}
	if err == nil && needed {
		var in *files
		if in, err = r.files(ctx, id); err == nil {
			_, err = r.layer(ctx, id, in, remote.Layer{})
		}
	}
	var torn *tornError
	switch isTorn := errors.As(err, &torn); {
	case isTorn && needed:
		return image.Digest{}, r.incomplete(torn)
	case isTorn: // not there by its diffID, or not whole
		return image.Digest{}, nil
	}
	return meta.Blob, r.failure(err, "cannot read %s", r.name)
}

// leased spares the ids of leases, and what they reach as far as it is there: a
// push relies on what it has asked for, and others may have let that name more.
// What was spared before is found out anew: an alias may name another blob by now.
func (m *reach) leased(ctx context.Context, ids map[image.Digest]bool) error {
	m.spared = map[image.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for id := range ids {
		g.Go(func() error { return m.spare(gctx, id) })
	}
	return g.Wait()
}

// spare spares an id and what it reaches.
func (m *reach) spare(ctx context.Context, id image.Digest) error {
	m.mu.Lock()
	known := m.spared[id]
	m.spared[id] = true
	m.mu.Unlock()
	if known {
		return nil
	}
	next, err := m.repo.names(ctx, id)
	if err != nil {
		return err
	}
	for _, n := range next {
		if err := m.spare(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// names returns the entries that an entry names: of a document what it needs as
// far as the remote says that it is here, of an alias its blob.
func (r *Repo) names(ctx context.Context, id image.Digest) (ids []image.Digest, err error) {
	doc, err := r.document(ctx, id)
	var torn *tornError
	if errors.As(err, &torn) {
		blob, err := r.aliasOf(ctx, id, false)
		if blob.IsZero() || err != nil {
			return nil, err
		}
		return []image.Digest{blob}, nil
	}
	if err != nil {
		return nil, r.failure(err, "cannot read %s", r.name)
	}
	switch kind, _ := image.KindOf(doc); kind {
	case image.IndexKind:
		return r.Held(ctx, id)
	case image.ManifestKind:
		m, err := image.ParseManifest(doc)
		if err != nil {
			return nil, nil //nolint:nilerr // nothing that could be tagged
		}
		ids = append(ids, m.Config.Digest)
		for _, l := range m.Layers {
			ids = append(ids, l.Digest)
		}
		return ids, nil
	case image.ConfigKind:
		if pointer, err := r.small(ctx, entryKey(id, entryManifest)); err == nil {
			if manifest, err := parseID(pointer); err == nil {
				ids = append(ids, manifest)
			}
		}
		c, err := image.ParseConfig(doc)
		if err != nil {
			return ids, nil //nolint:nilerr // nothing that could be tagged
		}
		return append(ids, c.DiffIDs...), nil
	}
	return nil, nil
}

func (m *reach) mark(ids ...image.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.marked[id] = true
	}
}
