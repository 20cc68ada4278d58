package dockerarchive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/storage"
)

// output is a tar in the making, as a layout.Place: bytes are appended to a file,
// one blob after the other. What fails is overwritten by the next one.
type output struct {
	file *os.File      // nil in a plan
	turn chan struct{} // held by who appends

	mu    sync.Mutex
	end   int64 // of what is whole in file
	blobs map[image.Digest]span
	index *layout.Index
}

// span is where bytes lie in the file.
type span struct{ offset, size int64 }

var _ layout.Place = (*output)(nil)

func newOutput(file *os.File) *output {
	return &output{file: file, turn: make(chan struct{}, 1), blobs: map[image.Digest]span{}, index: layout.NewIndex()}
}

// errPlan is told by a plan that is written to all the same.
var errPlan = errors.New("a plan is not written to")

// take waits for the turn to append, and returns where.
func (o *output) take(ctx context.Context) (at int64, err error) {
	if o.file == nil {
		return 0, errPlan
	}
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		<-o.turn
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.end, nil
}

// Put implements layout.Place.
func (o *output) Put(ctx context.Context, id image.Digest, size int64, body io.Reader) error {
	at, err := o.take(ctx)
	if err != nil {
		return err
	}
	defer func() { <-o.turn }()
	if _, err := o.Stat(ctx, id); err == nil { // another was quicker
		return drain(ctx, body)
	}
	done, err := o.append(ctx, at, blobName(id), body)
	if err != nil {
		return err
	}
	if size >= 0 && done.size != size {
		return &image.MismatchError{Want: id, Size: size, Read: done.size}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[id], o.end = done, padded(done)
	return nil
}

// block is what a tar is made of, in bytes.
const block = 512

// padded is where the next entry begins.
func padded(s span) int64 { return s.offset + (s.size+block-1)/block*block }

// append writes an entry at an offset: the header when its size is known.
func (o *output) append(ctx context.Context, at int64, name string, body io.Reader) (span, error) {
	done := span{offset: at + block}
	to := io.NewOffsetWriter(o.file, done.offset)
	buffer := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return span{}, err
		}
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return span{}, writeError(err)
			}
			done.size += int64(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return span{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return span{}, err
	}
	if _, err := to.Write(make([]byte, padded(done)-done.offset-done.size)); err != nil {
		return span{}, writeError(err)
	}
	header, err := headerOf(name, done.size)
	if err == nil {
		_, err = o.file.WriteAt(header, at)
	}
	return done, writeError(err)
}

// headerOf returns an entry's header: a block, also where the size is none that
// plain tar can say.
func headerOf(name string, size int64) ([]byte, error) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}
	if size >= 1<<33 {
		h.Format = tar.FormatGNU
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, err
	}
	if b.Len() != block {
		return nil, fmt.Errorf("the header of %s has %d bytes", name, b.Len())
	}
	return b.Bytes(), nil
}

func drain(ctx context.Context, body io.Reader) error {
	buffer := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch _, err := body.Read(buffer); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// writeError says in package storage's words how a file cannot be written.
func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", storage.ErrNoSpace, plain(err))
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", storage.ErrPermission, plain(err))
	}
	return plain(err)
}

// Stat implements layout.Contents.
func (o *output) Stat(ctx context.Context, id image.Digest) (layout.Blob, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.blobs[id]
	if !ok {
		return layout.Blob{}, errors.Join(ctx.Err(), storage.ErrNotFound)
	}
	return layout.Blob{Object: blobName(id), Size: s.size}, ctx.Err()
}

// Open implements layout.Contents.
func (o *output) Open(ctx context.Context, b layout.Blob) (io.ReadCloser, error) {
	id, err := image.ParseHex(path.Base(b.Object))
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.blobs[id]
	if !ok {
		return nil, storage.ErrNotFound
	}
	return io.NopCloser(&reader{ctx, io.NewSectionReader(o.file, s.offset, s.size)}), nil
}

// Items implements layout.Contents.
func (o *output) Items(ctx context.Context) ([]layout.Item, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.index.Items(), ctx.Err()
}

// Set implements layout.Place.
func (o *output) Set(ctx context.Context, item layout.Item, only bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, other := range o.index.Items() {
		if only && other.Name == item.Name && (other.Root.Digest != item.Root.Digest || other.Config != item.Config) {
			return storage.ErrExists
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.index.Set(item)
	return nil
}
