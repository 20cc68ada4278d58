package repo

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// cleanupTime is for taking a tag back, also after the context has ended.
const cleanupTime = 10 * time.Second

// Resolve returns the image ID that ref names.
func (r *Repo) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	if !ref.Digest.IsZero() {
		return r.resolveDigest(ctx, ref)
	}
	content, err := r.small(ctx, tagKey(ref))
	if errors.Is(err, storage.ErrNotFound) {
		return image.ID{}, r.noSuchTag(ctx, ref)
	}
	if err != nil {
		return image.ID{}, r.failure(err, "cannot read the tag %s in %s", ref, r.name)
	}
	id, err := parseID(content)
	if err != nil {
		return image.ID{}, fault.Wrap(fault.Damaged, err, "the tag %s in %s is damaged: %s", ref, r.name, tagKey(ref)).
			Advise("Push the image again to write the tag anew.")
	}
	return id, nil
}

// resolveDigest finds an image by the digest of its config or manifest.
func (r *Repo) resolveDigest(ctx context.Context, ref image.Reference) (image.ID, error) {
	doc, err := r.document(ctx, ref.Digest)
	var torn *tornError
	if errors.As(err, &torn) {
		_, err := r.store.Stat(ctx, entryKey(ref.Digest, entryJSON))
		if err == nil { // it is a layer's, or damaged
			_, err = r.metadata(ctx, ref.Digest)
		}
		switch {
		case errors.As(err, &torn):
			return image.ID{}, fault.New(fault.Damaged, "incomplete copy: %s in %s", torn.what, r.name).Advise(tornAdvice)
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return image.ID{}, r.failure(err, "cannot read %s", r.name)
		}
		return image.ID{}, fault.New(fault.NotFound, "no image %s in %s", ref, r.name).
			Advise("See `dogestry list %s %s`.", r.name, ref.Repository)
	}
	if err != nil {
		return image.ID{}, r.failure(err, "cannot read %s", r.name)
	}
	kind, err := image.KindOf(doc)
	if err != nil || kind == image.IndexKind {
		return image.ID{}, fault.New(fault.Other, "%s in %s is not an image that this version knows", ref, r.name)
	}
	if kind == image.ConfigKind {
		return ref.Digest, nil
	}
	m, err := image.ParseManifest(doc)
	if err != nil {
		return image.ID{}, fault.Wrap(fault.Damaged, err, "the manifest %s in %s", ref, r.name)
	}
	return m.Config.Digest, nil
}

// noSuchTag tells which tags there are instead.
func (r *Repo) noSuchTag(ctx context.Context, ref image.Reference) error {
	const most = 10
	f := fault.New(fault.NotFound, "no image %s in %s", ref, r.name)
	var tags, repositories []string
	for found, err := range r.References(ctx, "") {
		if err != nil {
			break // there is an error to tell already
		}
		if found.Repository == ref.Repository {
			tags = append(tags, found.Tag)
		} else if n := len(repositories); n == 0 || repositories[n-1] != found.Repository {
			repositories = append(repositories, found.Repository)
		}
	}
	some := func(names []string) string {
		slices.Sort(names)
		names = slices.Compact(names)
		if len(names) > most {
			names = append(names[:most:most], "…")
		}
		return strings.Join(names, ", ")
	}
	switch {
	case len(tags) > 0:
		return f.Advise("%s has the tags %s.", ref.Repository, some(tags))
	case len(repositories) > 0:
		return f.Advise("It has the repositories %s.", some(repositories))
	default:
		return f.Advise("There are no images in it.")
	}
}

// References yields the tags of a repository, or of all. What is no tag's key is ignored.
func (r *Repo) References(ctx context.Context, repository string) iter.Seq2[image.Reference, error] {
	prefix := repositoryPrefix
	if repository != "" {
		prefix = tagPrefix(repository)
	}
	return func(yield func(image.Reference, error) bool) {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				yield(image.Reference{}, r.failure(err, "cannot list %s", r.name))
				return
			}
			ref, ok := parseTagKey(info.Key)
			if !ok || repository != "" && ref.Repository != repository {
				continue
			}
			if !yield(ref, nil) {
				return
			}
		}
	}
}

// Tag lets ref name id, once everything it needs is there. For an image that
// has only a config it writes the synthesised manifest first.
func (r *Repo) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	other, err := r.inTheWay(ctx, ref)
	if err != nil {
		return err
	}
	if other != "" {
		return r.conflict(ref, other)
	}
	config, closure, err := r.closure(ctx, id)
	if err != nil {
		return err
	}
	missing, there, err := r.missing(ctx, closure, false)
	if err != nil {
		return err
	}
	if !missing.Empty() {
		return &remote.IncompleteError{ID: id, Missing: missing}
	}
	if err := r.putManifest(ctx, id, config, there); err != nil {
		return r.failure(err, "cannot store the manifest of %s in %s", ref, r.name)
	}
	if err := r.markRoot(ctx); err != nil {
		return r.failure(err, "cannot write to %s", r.name)
	}
	_, err = r.store.Stat(ctx, tagKey(ref))
	isNew := errors.Is(err, storage.ErrNotFound)
	if err := r.putSmall(ctx, tagKey(ref), []byte(id.Hex())); err != nil {
		if errors.Is(err, storage.ErrConflict) {
			return fault.Wrap(fault.Refused, err, "cannot name an image %s in %s", ref, r.name).
				Advise("Something else has this name there, or part of it: choose another name with --as, or look at what is in the way.")
		}
		return r.failure(err, "cannot write the tag %s in %s", ref, r.name)
	}
	return r.lookAgain(ctx, ref, id, closure, isNew)
}

// lookAgain makes sure, behind the tag, of what was sure before it: another
// writer, or a remover, may have been at work meanwhile. Of two that write
// conflicting names at once, each takes its new tag back.
func (r *Repo) lookAgain(ctx context.Context, ref image.Reference, id image.ID, closure remote.Closure, isNew bool) error {
	other, err := r.inTheWay(ctx, ref)
	if err != nil {
		return err // the tag stays: another writer of it may have succeeded
	}
	if other != "" {
		err = r.conflict(ref, other)
		if isNew {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
			defer cancel()
			err = errors.Join(err, r.store.Delete(late, tagKey(ref)))
		}
		return err
	}
	missing, _, err := r.missing(ctx, closure, false)
	if err != nil {
		return err
	}
	if !missing.Empty() {
		return &remote.IncompleteError{ID: id, Missing: missing, Tagged: true}
	}
	return nil
}

// closure reads the config of id and returns what the image needs.
func (r *Repo) closure(ctx context.Context, id image.ID) ([]byte, remote.Closure, error) {
	doc, err := r.document(ctx, id)
	var torn *tornError
	if errors.As(err, &torn) {
		return nil, remote.Closure{}, &remote.IncompleteError{ID: id, Missing: remote.Closure{Documents: []image.Digest{id}}}
	}
	if err != nil {
		return nil, remote.Closure{}, r.failure(err, "cannot read %s", r.name)
	}
	config, err := image.ParseConfig(doc)
	if err != nil {
		return nil, remote.Closure{}, fault.Wrap(fault.Other, err, "%s in %s is no image that this version can tag", id.Short(), r.name)
	}
	return doc, remote.Closure{Documents: []image.Digest{id}, Layers: image.Distinct(config.DiffIDs)}, nil
}

// putManifest writes the synthesised manifest and the pointer to it.
func (r *Repo) putManifest(ctx context.Context, id image.ID, doc []byte, there []remote.Layer) error {
	config, err := image.ParseConfig(doc)
	if err != nil {
		return err
	}
	size := make(map[image.DiffID]int64, len(there))
	for _, l := range there {
		size[l.DiffID] = l.Size
	}
	layers := make([]image.Descriptor, len(config.DiffIDs))
	for i, d := range config.DiffIDs {
		layers[i] = image.Descriptor{Digest: d, Size: size[d]}
	}
	manifest := image.SynthesizeManifest(doc, layers)
	if err := r.PutDocument(ctx, manifest); err != nil {
		return err
	}
	return r.putSmall(ctx, entryKey(id, entryManifest), []byte(image.DigestOf(manifest).Hex()))
}

// inTheWay returns the key of another tag that ref's cannot live beside, "" where
// there is none: "a" with tag "b" and "a/b" cannot both lie in a directory.
func (r *Repo) inTheWay(ctx context.Context, ref image.Reference) (other string, err error) {
	key := tagKey(ref)
	for info, err := range r.store.List(ctx, key+"/") {
		if err != nil {
			return "", r.failure(err, "cannot list %s", r.name)
		}
		return info.Key, nil
	}
	for {
		parent := key[:strings.LastIndexByte(key, '/')]
		if parent+"/" == repositoryPrefix {
			return "", nil
		}
		_, err := r.store.Stat(ctx, parent)
		if err == nil {
			return parent, nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return "", r.failure(err, "cannot look into %s", r.name)
		}
		key = parent
	}
}

func (r *Repo) conflict(ref image.Reference, other string) error {
	return fault.New(fault.Refused, "cannot name an image %s in %s: %s is in the way", ref, r.name, other).
		Advise("A repository cannot have the name of another repository and its tag. Choose another name with --as.")
}
