package repo

import (
	"context"
	"errors"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

var _ remote.Holder = (*Repo)(nil)

// tree reads the documents of an image, of an index those of the manifests that
// are marked. A document that is missing is an *IncompleteError.
func (r *Repo) tree(ctx context.Context, id image.ID) (*image.Tree, error) {
	tree, err := image.ReadTree(ctx, id, image.Reader{
		Document: func(ctx context.Context, doc image.Digest) ([]byte, error) {
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
		},
		Pick: func(ctx context.Context, index image.Digest, in *image.Index) ([]image.Digest, error) {
			held, err := r.Held(ctx, index)
			if err == nil && len(held) == 0 && len(in.Manifests) > 0 {
				err = fault.New(fault.Other, "none of the platforms of %s is in %s", index.Short(), r.name)
			}
			return held, err
		},
	})
	var wrong *image.TreeError
	if errors.As(err, &wrong) {
		return nil, fault.Wrap(fault.Other, err, "%s in %s is no image that this version can tag", id.Short(), r.name)
	}
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
		return nil, closure, nil, fault.Wrap(fault.Other, err, "%s in %s is no image that this version can tag", id.Short(), r.name)
	}
	missing, there, err := r.missing(ctx, closure, false)
	if err == nil && !missing.Empty() {
		// A blob's alias is written with it, whatever is in the blob. Where what the
		// config says of it is not there, the config is wrong, or the blob is packed in a
		// way that nobody here unpacks: neither is mended by a push (docs/format.md, "Collection").
		if closure, missing = withoutAliases(tree, closure, missing); !missing.Empty() {
			err = &remote.IncompleteError{ID: id, Missing: missing}
		}
	}
	return tree, closure, there, err
}

// withoutAliases leaves out the diffIDs of layers that manifests name compressed,
// where those layers are there and the diffIDs are not: only a config needs them.
func withoutAliases(tree *image.Tree, closure, missing remote.Closure) (remote.Closure, remote.Closure) {
	lacks := make(map[image.Digest]bool, len(missing.Layers))
	for _, id := range missing.Layers {
		lacks[id] = true
	}
	named := map[image.Digest]bool{}
	for _, l := range tree.Layers() {
		named[l.Digest] = true
	}
	packed, _ := tree.Packed() // its error is that of ClosureOf
	left := func(id image.Digest) bool {
		blob, is := packed[id]
		return is && !named[id] && lacks[id] && !lacks[blob.Digest]
	}
	closure.Layers = slices.DeleteFunc(slices.Clone(closure.Layers), left)
	missing.Layers = slices.DeleteFunc(slices.Clone(missing.Layers), left)
	return closure, missing
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
	for _, id := range manifests {
		if _, _, _, err := r.whole(ctx, id); err != nil {
			return err
		}
		if err := r.putSmall(r.guarded(ctx), entryKey(index, heldBase+id.Hex()), nil); err != nil {
			return r.failure(err, "cannot write to %s", r.name)
		}
	}
	return nil
}
