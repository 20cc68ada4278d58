package repo

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

var _ remote.Holder = (*Repo)(nil)

// tree reads the documents of an image, of an index those of the manifests that
// are marked. A document that is missing is an *IncompleteError.
func (r *Repo) tree(ctx context.Context, id image.ID) (*image.Tree, error) {
	tree, err := remote.TreeToTag(ctx, id, r.name, func(ctx context.Context, doc image.Digest) ([]byte, error) {
		b, err := r.document(ctx, doc)
		var torn *tornError
		if !errors.As(err, &torn) {
			return b, err
		}
		switch is, err := r.isOriginal(ctx, doc); {
		case err != nil:
			return nil, err
		case is && doc == id:
			return nil, r.oldImage(id)
		case is:
			return nil, r.noDocument(doc)
		}
		return nil, &remote.IncompleteError{ID: id, Missing: remote.Closure{Documents: []image.Digest{doc}}}
	}, r.Held)
	var incomplete *remote.IncompleteError
	if errors.As(err, &incomplete) {
		return nil, incomplete
	}
	return tree, r.failure(err, "cannot read %s", r.name)
}

// whole returns an image that is there with all that it needs, and its layers;
// else an *IncompleteError.
func (r *Repo) whole(ctx context.Context, id image.ID) (*image.Tree, remote.Closure, []remote.Layer, error) {
	tree, err := r.tree(ctx, id)
	if err != nil {
		return nil, remote.Closure{}, nil, err
	}
	closure, err := remote.ClosureOf(tree)
	if err != nil {
		return nil, closure, nil, remote.NoImage(id, r.name, err)
	}
	missing, there, err := r.missing(ctx, closure, false)
	if err == nil && !missing.Empty() {
		if closure, missing, err = r.withoutLies(ctx, tree, closure, missing, there); err == nil && !missing.Empty() {
			err = &remote.IncompleteError{ID: id, Missing: missing}
		}
	}
	return tree, closure, there, err
}

// withoutLies leaves out the diffIDs that a config has for layers which are there
// compressed, and which they do not unpack to: no push would bring them. Where an
// alias alone is missing it stays missed. To know which it is the layer is unpacked.
func (r *Repo) withoutLies(ctx context.Context, tree *image.Tree, closure, missing remote.Closure, there []remote.Layer) (remote.Closure, remote.Closure, error) {
	stored := make(map[image.Digest]remote.Layer, len(there))
	for _, l := range there {
		stored[l.Digest] = l
	}
	named := map[image.Digest]bool{}
	for _, l := range tree.Layers() {
		named[l.Digest] = true
	}
	packed, _ := tree.Packed() // its error is that of ClosureOf
	lies := map[image.Digest]bool{}
	for _, id := range missing.Layers {
		blob, there := stored[packed[id].Digest]
		if named[id] || !there {
			continue
		}
		right, err := r.unpacksTo(ctx, blob, id)
		if err != nil {
			return closure, missing, err
		}
		lies[id] = !right
	}
	lie := func(id image.Digest) bool { return lies[id] }
	closure.Layers = slices.DeleteFunc(slices.Clone(closure.Layers), lie)
	missing.Layers = slices.DeleteFunc(slices.Clone(missing.Layers), lie)
	return closure, missing, nil
}

// unpacksTo reports whether a blob has the tar with this diffID in it. One that
// nobody here unpacks has not.
func (r *Repo) unpacksTo(ctx context.Context, blob remote.Layer, id image.DiffID) (bool, error) {
	stored, err := r.openLayer(ctx, blob)
	if err != nil {
		return false, err
	}
	defer stored.Close()
	tar := codec.Inflate(stored)
	defer tar.Close()
	_, err = io.Copy(io.Discard, image.Verify(tar, id, -1))
	var wrong *image.MismatchError
	if errors.Is(err, codec.ErrDamaged) || errors.As(err, &wrong) {
		return false, nil
	}
	return err == nil, r.failure(err, "cannot read layer %s from %s", blob.Digest.Short(), r.name)
}

// Held returns the manifests of an index that are marked.
func (r *Repo) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	in, err := r.files(ctx, index)
	if err != nil || in == nil {
		return nil, r.failure(err, "cannot look into %s", r.name)
	}
	return in.held, nil
}

// Hold marks manifests of an index, each once everything that it needs is there.
func (r *Repo) Hold(ctx context.Context, index image.Digest, manifests []image.Digest) error {
	return r.hold(ctx, index, manifests, nil)
}

// hold is Hold; rely is as in tag: a mark makes an index that a tag names need the
// manifest, and all that this needs.
func (r *Repo) hold(ctx context.Context, index image.Digest, manifests []image.Digest, rely relier) error {
	for _, id := range manifests {
		if _, _, _, err := r.reliable(ctx, id, rely); err != nil {
			return err
		}
		if err := r.putSmall(r.guarded(ctx), entryKey(index, heldBase+id.Hex()), nil); err != nil {
			return r.failure(err, "cannot write to %s", r.name)
		}
	}
	return nil
}
