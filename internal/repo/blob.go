package repo

import (
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// putBlob stores bytes as they are, then VERSION, then json. While they pass
// they are unpacked, to know the diffID of the tar that may be compressed in them.
func (r *Repo) putBlob(ctx context.Context, blob image.Descriptor, from io.Reader) (remote.Layer, error) {
	source := &image.Watched{R: from}
	verified := image.Verify(source, blob.Digest, blob.Size)
	done := remote.Layer{Digest: blob.Digest, Object: entryKey(blob.Digest, entryBlob)}
	packed := codec.NewContents()
	err := r.putFile(ctx, done, sized(io.TeeReader(verified, packed), blob.Size))
	sum, size, unpackErr := packed.End(err)
	diffID := image.DiffID(sum)
	if err != nil {
		return remote.Layer{}, err
	}
	done.Size = source.Count()
	done.Stored = done.Size
	if unpackErr == nil {
		done.Tar = diffID
	}
	err = r.putEntry(ctx, blob.Digest, metadata{Size: done.Size, File: entryBlob, StoredSize: &done.Stored})
	if err == nil && unpackErr == nil {
		err = r.putAlias(ctx, metadata{DiffID: diffID, Size: size, Blob: blob.Digest})
	}
	if err != nil {
		return remote.Layer{}, r.failure(err, "cannot store layer %s in %s", blob.Digest.Short(), r.name)
	}
	if tar, _ := blob.Tar(); unpackErr != nil && tar {
		return remote.Layer{}, fault.Wrap(fault.Damaged, unpackErr, "layer %s is not what its media type %.100q says", blob.Digest.Short(), blob.MediaType)
	}
	return done, nil
}

// putAlias says which blob holds a layer, unless the layer is there already by
// itself, in the size that its json says. Of two aliases the later one stays: it
// is proved, and the earlier one may lie.
func (r *Repo) putAlias(ctx context.Context, alias metadata) error {
	in, err := r.files(ctx, alias.DiffID)
	if err != nil {
		return err
	}
	there, err := r.layer(ctx, alias.DiffID, in, remote.Layer{})
	var torn *tornError
	if err == nil && there.fits && there.Packed.IsZero() || err != nil && !errors.As(err, &torn) {
		return err
	}
	return r.putEntry(ctx, alias.DiffID, alias)
}
