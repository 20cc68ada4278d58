package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/dogestry/dogestry/internal/storage"
)

// put writes an object below the prefix by store.
func (p *probe) put(ctx context.Context, store storage.Store, name string, body []byte) error {
	return p.writing(name, func(key string) error { return store.Put(ctx, key, bytes.NewReader(body)) })
}

// writing lets write make an object, and keeps in mind that it is to be removed.
func (p *probe) writing(name string, write func(key string) error) error {
	key := p.prefix + name
	p.mu.Lock()
	p.keys[key] = true
	p.mu.Unlock()
	err := write(key)
	if errors.Is(err, storage.ErrPermission) {
		p.mu.Lock()
		delete(p.keys, key) // surely nothing is there, and removing it would be refused, too
		p.mu.Unlock()
	}
	return err
}

// content reads an object below the prefix, all of it.
func (p *probe) content(ctx context.Context, store storage.Store, name string) ([]byte, error) {
	return p.piece(ctx, store, name, 0, -1)
}

func (p *probe) piece(ctx context.Context, store storage.Store, name string, offset, length int64) ([]byte, error) {
	r, err := store.Get(ctx, p.prefix+name, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// holds returns an error unless an object has that content.
func (p *probe) holds(ctx context.Context, store storage.Store, name string, want []byte) error {
	got, err := p.content(ctx, store, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back that are not the %d written", len(got), len(want))
	}
	return nil
}

// absent returns an error unless nothing is there. what says why nothing should be.
func (p *probe) absent(ctx context.Context, store storage.Store, name, what string) error {
	switch _, err := p.content(ctx, store, name); {
	case err == nil:
		return errors.New(what)
	case !errors.Is(err, storage.ErrNotFound):
		return fmt.Errorf("reading what is not there: %w", err)
	}
	return nil
}

// infos lists what is below the prefix and begins with start.
func (p *probe) infos(ctx context.Context, store storage.Store, start string) ([]storage.Info, error) {
	var all []storage.Info
	for info, err := range store.List(ctx, p.prefix+start) {
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

// random returns an endless stream that does not compress, the same for the same seed.
func random(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// bytesOf returns size bytes of random(seed).
func bytesOf(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = io.ReadFull(random(seed), b)
	return b
}

// side returns a for even numbers and b for odd ones.
func (p *probe) side(i int) storage.Store {
	if i%2 == 0 {
		return p.a
	}
	return p.b
}
