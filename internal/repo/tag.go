package repo

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
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
	id, err := r.named(ctx, ref)
	if errors.Is(err, storage.ErrNotFound) {
		return image.ID{}, remote.NoSuchTag(r.name, ref, r.near(ctx, ref.Repository))
	}
	return id, err
}

// near yields tags that may be meant where a repository has not the one that was
// asked for: its own, else those of all. It stops after a bounded number: whoever
// asks for what is not there is not to have all of a remote listed.
func (r *Repo) near(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		left := nearTags
		for _, in := range []string{repository, ""} {
			for tag, err := range r.References(ctx, in) {
				if left == 0 || !yield(tag, err) {
					return
				}
				left--
			}
			if left < nearTags {
				return
			}
		}
	}
}

// nearTags bounds near: a page of a bucket's list.
const nearTags = 1000

// named reads a tag. ErrNotFound is its own error.
func (r *Repo) named(ctx context.Context, ref image.Reference) (image.ID, error) {
	content, err := r.small(ctx, tagKey(ref))
	if errors.Is(err, storage.ErrNotFound) {
		return image.ID{}, err
	}
	if err != nil && !fault.Is(err, fault.Damaged) {
		return image.ID{}, r.failure(err, "cannot read the tag %s in %s", ref, r.name)
	}
	var id image.ID
	if err == nil {
		id, err = parseID(content)
	}
	if err != nil {
		where := &remote.Damage{Object: tagKey(ref), Text: tagKey(ref), Cause: err}
		return image.ID{}, fault.Wrap(fault.Damaged, where, "the tag %s in %s is damaged", ref, r.name).
			Advise("Push the image again to write the tag anew.")
	}
	return id, nil
}

// resolveDigest finds an image by the digest of its config, manifest or index.
func (r *Repo) resolveDigest(ctx context.Context, ref image.Reference) (image.ID, error) {
	doc, err := r.document(ctx, ref.Digest)
	var torn *tornError
	if errors.As(err, &torn) {
		if is, err := r.isOriginal(ctx, ref.Digest); err != nil || is {
			return image.ID{}, cmp.Or(err, r.noDocument(ref.Digest))
		}
		_, err := r.store.Stat(ctx, entryKey(ref.Digest, entryJSON))
		if err == nil { // it is a layer's, or damaged
			_, err = r.metadata(ctx, ref.Digest)
		}
		switch {
		case errors.As(err, &torn):
			return image.ID{}, r.incomplete(torn)
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return image.ID{}, r.failure(err, "cannot read %s", r.name)
		}
		return image.ID{}, fault.New(fault.NotFound, "no image %s in %s", ref, r.name).
			Advise("See `dogestry list %s %s`.", r.name, ref.Repository)
	}
	if err != nil {
		return image.ID{}, r.failure(err, "cannot read %s", r.name)
	}
	if _, err := image.KindOf(doc); err != nil {
		return image.ID{}, fault.Wrap(fault.Other, err, "%s in %s is not an image", ref, r.name)
	}
	return ref.Digest, nil
}

// References yields the tags of a repository, or of all. What is no tag's key is ignored.
func (r *Repo) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	prefix := repositoryPrefix
	if repository != "" {
		prefix = tagPrefix(repository)
	}
	return r.references(ctx, repository, prefix, "")
}

// ReferencesAfter implements remote.Paged: in the order of keys, which is that of the
// tags of one repository.
func (r *Repo) ReferencesAfter(ctx context.Context, repository, tag string) iter.Seq2[remote.Tag, error] {
	prefix := tagPrefix(repository)
	if storage.ValidKey(prefix+tag) != nil { // no tag is called so
		return r.references(ctx, repository, prefix, "")
	}
	return r.references(ctx, repository, prefix, prefix+tag)
}

// references yields the tags whose keys have a prefix and come behind after.
func (r *Repo) references(ctx context.Context, repository, prefix, after string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		for info, err := range storage.ListAfter(ctx, r.store, prefix, after) {
			if err != nil {
				yield(remote.Tag{}, r.failure(err, "cannot list %s", r.name))
				return
			}
			ref, ok := parseTagKey(info.Key)
			if !ok || repository != "" && ref.Repository != repository {
				continue
			}
			if !yield(remote.Tag{Reference: ref, Version: version(info), Modified: info.Modified}, nil) {
				return
			}
		}
	}
}

// Tag lets ref name id, once everything it needs is there. For an image that
// has only a config it writes the synthesised manifest first.
func (r *Repo) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	return r.tag(ctx, ref, id, r.store.Put, nil)
}

// relier makes sure that nobody deletes ids and the layers there from now on. fresh
// says that they have to be looked for once more.
type relier func(ctx context.Context, ids []image.Digest, there []remote.Layer) (fresh bool, err error)

// tag is Tag with the way to write the object. rely is called for what the tag
// needs, before it is written; it may be nil.
func (r *Repo) tag(ctx context.Context, ref image.Reference, id image.ID, write func(context.Context, string, io.Reader) error, rely relier) error {
	conflict := func(other string) error { return r.conflict(ref, other) }
	other, err := r.inTheWay(ctx, tagKey(ref))
	if err != nil {
		return err
	}
	if other != "" {
		return conflict(other)
	}
	tree, closure, manifest, err := r.reliable(ctx, id, rely)
	if err == nil { // PutDocument has refused it, but an older version may have stored it
		_, docs := tree.Documents()
		err = remote.CheckOutside(ref.String(), docs...)
	}
	if err != nil {
		return err
	}
	if tree.Kind == image.ConfigKind {
		if err := r.putManifest(ctx, id, manifest); err != nil {
			return r.failure(err, "cannot store the manifest of %s in %s", ref, r.name)
		}
	}
	if err := r.markRoot(ctx); err != nil {
		return r.failure(err, "cannot write to %s", r.name)
	}
	named, err := r.named(ctx, ref)
	isNew := errors.Is(err, storage.ErrNotFound)
	if err != nil || named != id {
		err := write(r.guarded(ctx), tagKey(ref), strings.NewReader(id.Hex()))
		switch {
		case errors.Is(err, lease.ErrLost):
			return err
		case errors.Is(err, storage.ErrExists):
			return r.taken(ctx, ref, id)
		case errors.Is(err, storage.ErrConflict):
			return fault.Wrap(fault.Refused, err, "cannot name an image %s in %s", ref, r.name).
				Advise("Something else has this name there, or part of it: choose another name (--as names it in a push), or look at what is in the way.")
		case err != nil:
			return r.failure(err, "cannot write the tag %s in %s", ref, r.name)
		}
		if !named.IsZero() {
			r.tellUnsigned(ctx, ref, named, id)
		}
	}
	return r.lookAgain(ctx, root{tagKey(ref), isNew, conflict}, id, closure)
}

// reliable is whole, of an image that stays so. Of one that has only a config it
// returns the synthesised manifest too.
func (r *Repo) reliable(ctx context.Context, id image.ID, rely relier) (tree *image.Tree, closure remote.Closure, manifest []byte, err error) {
	if rely == nil {
		rely = func(context.Context, []image.Digest, []remote.Layer) (bool, error) { return false, nil }
	}
	for fresh := true; fresh; {
		var there []remote.Layer
		if tree, closure, there, err = r.whole(ctx, id); err != nil {
			return nil, closure, nil, err
		}
		if fresh, err = rely(ctx, slices.Concat(closure.Documents, closure.Layers), there); err != nil {
			return nil, closure, nil, err
		}
		if tree.Kind == image.ConfigKind {
			manifest = image.SynthesizeManifest(tree.Doc, remote.Ordered(tree.Config.DiffIDs, there))
		}
	}
	if manifest != nil { // whether it is there is asked when it is written
		_, err = rely(ctx, []image.Digest{image.DigestOf(manifest)}, nil)
	}
	return tree, closure, manifest, err
}

// root is an object that lets an image live: a tag, or what registries know besides.
type root struct {
	key      string
	isNew    bool                     // it was not there before
	conflict func(other string) error // the fault where another one is in the way
}

// lookAgain makes sure, behind a root, of what was sure before it: another
// writer, or a remover, may have been at work meanwhile. Of two that write
// conflicting names at once, each takes its new one back.
func (r *Repo) lookAgain(ctx context.Context, written root, id image.ID, closure remote.Closure) error {
	other, err := r.inTheWay(ctx, written.key)
	if err != nil {
		return err // it stays: another writer of it may have succeeded
	}
	if other != "" {
		err = written.conflict(other)
		if written.isNew {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
			defer cancel()
			err = errors.Join(err, r.store.Delete(late, written.key))
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

// putManifest writes the synthesised manifest of id and the pointer to it.
func (r *Repo) putManifest(ctx context.Context, id image.ID, manifest []byte) error {
	if err := r.PutDocument(ctx, manifest); err != nil {
		return err
	}
	return r.putSmall(ctx, entryKey(id, entryManifest), []byte(image.DigestOf(manifest).Hex()))
}

// inTheWay returns the key of another root that this one cannot live beside, "" where
// there is none: "a" with tag "b" and "a/b" cannot both lie in a directory.
func (r *Repo) inTheWay(ctx context.Context, key string) (other string, err error) {
	for info, err := range r.store.List(ctx, key+"/") {
		if err != nil {
			return "", r.failure(err, "cannot list %s", r.name)
		}
		return info.Key, nil
	}
	for {
		parent := key[:strings.LastIndexByte(key, '/')]
		if !strings.Contains(parent, "/") { // repositories, digests or referrers
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
		Advise("A repository cannot have the name of another repository and its tag. Choose another name (--as names it in a push).")
}
