package repo

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Uploads = (*Repo)(nil)

// pieceSize is the most that one object of an upload holds, in bytes: what a broken
// connection may cost. A layer of 10 GB is 320 of them.
const pieceSize = 32 << 20

// maxPieces bounds the objects of an upload besides those that are full: they are
// listed with each request for it.
const maxPieces = 10_000

// uploadDoc is the session of an upload.
type uploadDoc struct {
	Repository string `json:"repository"`
}

// upload is one as it was found.
type upload struct {
	uploadDoc
	id     string
	pieces []piece // in order, each from where the one before ends
	size   int64   // bytes of all
}

// piece is an object of an upload.
type piece struct{ offset, size int64 }

// CreateUpload implements remote.Uploads.
func (r *Repo) CreateUpload(ctx context.Context, repository string) (id string, err error) {
	if err := r.checkRepository(repository); err != nil {
		return "", err
	}
	var random [uploadDigits / 2]byte
	_, _ = rand.Read(random[:]) // it never fails
	id = hex.EncodeToString(random[:])
	session, err := json.Marshal(uploadDoc{repository})
	if err == nil {
		err = r.store.Put(ctx, uploadKey(id, uploadSession), strings.NewReader(string(session)+"\n"))
	}
	if err != nil {
		return "", r.failure(err, "cannot begin an upload to %s", r.name)
	}
	return id, nil
}

// UploadSize implements remote.Uploads.
func (r *Repo) UploadSize(ctx context.Context, id string) (size int64, repository string, err error) {
	u, err := r.upload(ctx, id)
	return u.size, u.Repository, err
}

// upload finds out what is there of an upload.
func (r *Repo) upload(ctx context.Context, id string) (upload, error) {
	u := upload{id: id}
	if err := r.readSession(ctx, &u); err != nil {
		return upload{}, err
	}
	prefix := uploadPrefix(id)
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return upload{}, r.failure(err, "cannot look at an upload to %s", r.name)
		}
		offset, ok := parsePiece(strings.TrimPrefix(info.Key, prefix))
		if !ok {
			continue
		}
		if offset != u.size {
			if err := r.readSession(ctx, &u); err != nil { // it is being removed
				return upload{}, err
			}
			return upload{}, r.broken(id)
		}
		u.pieces = append(u.pieces, piece{offset, info.Size})
		u.size += info.Size
	}
	return u, nil
}

func (r *Repo) readSession(ctx context.Context, u *upload) error {
	if !validUpload(u.id) {
		return r.noUpload(u.id)
	}
	content, err := r.small(ctx, uploadKey(u.id, uploadSession))
	if errors.Is(err, storage.ErrNotFound) {
		return r.noUpload(u.id)
	}
	if err == nil && json.Unmarshal(content, &u.uploadDoc) != nil {
		return r.broken(u.id)
	}
	return r.failure(err, "cannot look at an upload to %s", r.name)
}

func (r *Repo) noUpload(id string) error {
	return fault.New(fault.NotFound, "no upload %.100q in %s", id, r.name).
		Advise("Begin again. Uploads to which nothing is added for a day are removed.")
}

// broken says that the pieces of an upload do not make one.
func (r *Repo) broken(id string) error {
	return fault.New(fault.Damaged, "the upload %s in %s is damaged: its pieces do not follow each other", id, r.name).
		Advise("Remove it, and begin again.")
}

// AppendUpload implements remote.Uploads. Of two that append at one offset at
// once, one writes each piece and the other fails, where the store can create
// without replacing. Elsewhere the later piece stays; then what is read in the end
// has not the digest that it is said to have, or is not whole.
func (r *Repo) AppendUpload(ctx context.Context, id string, offset int64, from io.Reader) (size int64, err error) {
	u, err := r.upload(ctx, id)
	if err != nil {
		return 0, err
	}
	if u.size != offset {
		return u.size, r.wrongOffset(id, offset)
	}
	if n := int64(len(u.pieces)); n >= maxPieces+u.size/pieceSize {
		return u.size, fault.Wrap(fault.Refused, remote.ErrPieces, "cannot add to the upload %s in %s, which has %d pieces", id, r.name, n).
			Advise("Begin again, with larger pieces.")
	}
	body := bufio.NewReaderSize(from, 64<<10)
	for size = u.size; ; {
		if _, err := body.Peek(1); err == io.EOF {
			return size, ctx.Err()
		} else if err != nil {
			return size, err
		}
		n, err := r.putPiece(ctx, uploadKey(id, pieceName(size)), body)
		if errors.Is(err, storage.ErrExists) {
			return size, r.wrongOffset(id, size)
		}
		if err != nil {
			return size, r.failure(err, "cannot add to an upload to %s", r.name)
		}
		size += n
	}
}

// putPiece writes the next bytes of body, and returns how many they were.
func (r *Repo) putPiece(ctx context.Context, key string, body io.Reader) (n int64, err error) {
	count := &image.Watched{R: io.LimitReader(body, r.pieceSize)}
	if creator, ok := r.store.(storage.Creator); ok {
		err := creator.Create(ctx, key, bounded{count, r.pieceSize})
		if !errors.Is(err, errors.ErrUnsupported) || count.Count() > 0 {
			return count.Count(), err
		}
	}
	err = r.store.Put(ctx, key, bounded{count, r.pieceSize})
	return count.Count(), err
}

func (r *Repo) wrongOffset(id string, offset int64) error {
	return fault.Wrap(fault.Refused, remote.ErrOffset, "cannot add to the upload %s in %s at %d", id, r.name, offset).
		Advise("Ask how much of it is there, and go on behind that.")
}

// OpenUpload implements remote.Uploads.
func (r *Repo) OpenUpload(ctx context.Context, id string) (io.ReadCloser, error) {
	u, err := r.upload(ctx, id)
	if err != nil {
		return nil, err
	}
	return &uploadReader{ctx: ctx, repo: r, upload: u}, nil
}

// uploadReader reads one piece after the other.
type uploadReader struct {
	ctx  context.Context
	repo *Repo
	upload

	body io.ReadCloser // of the first of pieces; nil before it is opened
	left int64         // bytes of it
	err  error
}

func (u *uploadReader) Read(p []byte) (int, error) {
	for u.err == nil {
		if u.body == nil {
			u.err = u.next()
			continue
		}
		n, err := u.body.Read(p[:min(int64(len(p)), u.left)])
		u.left -= int64(n)
		switch {
		case u.left == 0:
			u.err, u.body, u.pieces = u.body.Close(), nil, u.pieces[1:]
		case err == io.EOF:
			u.err = u.repo.broken(u.id)
		case err != nil:
			u.err = u.repo.failure(err, "cannot read an upload to %s", u.repo.name)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, u.err
}

// next opens the next piece that has bytes; io.EOF where there is none.
func (u *uploadReader) next() (err error) {
	for len(u.pieces) > 0 && u.pieces[0].size == 0 {
		u.pieces = u.pieces[1:]
	}
	if len(u.pieces) == 0 {
		return io.EOF
	}
	u.body, err = storage.Part(u.ctx, u.repo.store, uploadKey(u.id, pieceName(u.pieces[0].offset)), 0, u.pieces[0].size)
	u.left = u.pieces[0].size
	if errors.Is(err, storage.ErrNotFound) {
		return u.repo.noUpload(u.id)
	}
	return u.repo.failure(err, "cannot read an upload to %s", u.repo.name)
}

func (u *uploadReader) Close() error {
	if u.body == nil {
		return nil
	}
	body := u.body
	u.body, u.err = nil, errStopped
	return body.Close()
}

// RemoveUpload implements remote.Uploads.
func (r *Repo) RemoveUpload(ctx context.Context, id string) error {
	if !validUpload(id) {
		return r.noUpload(id)
	}
	var keys []string
	for info, err := range r.store.List(ctx, uploadPrefix(id)) {
		if err != nil {
			return r.failure(err, "cannot remove an upload to %s", r.name)
		}
		keys = append(keys, info.Key)
	}
	return r.failure(r.removeUpload(ctx, id, keys), "cannot remove an upload to %s", r.name)
}

// removeUpload deletes the objects of an upload: the session first, so that nobody
// goes on with what is left.
func (r *Repo) removeUpload(ctx context.Context, id string, keys []string) error {
	if err := r.store.Delete(ctx, uploadKey(id, uploadSession)); err != nil {
		return err
	}
	return r.deleteAll(ctx, keys)
}
