// Package mem is a storage.Store in memory, for tests and for plans of what is not
// there yet. It keeps to the contract where a directory does, conflicts of "a" and "a/b" included.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Store keeps objects in a map. It is safe for concurrent use, starts no
// goroutines and needs no closing. It holds no lock while it reads a body or yields.
type Store struct {
	// Now is the store's clock, which may be set before it is used; nil means the
	// machine's.
	Now func() time.Time

	mu      sync.Mutex
	objects map[string]object
	below   map[string]int // how many objects there are below a directory
}

type object struct {
	bytes    []byte // never changed
	modified time.Time
	version  string // as S3's ETag: it follows from the bytes
}

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Creator = (*Store)(nil)
	_ storage.Swapper = (*Store)(nil)
	_ storage.Remover = (*Store)(nil)
)

// New returns an empty store.
func New() *Store {
	return &Store{objects: map[string]object{}, below: map[string]int{}}
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 && storage.ValidKey(key) == nil {
		return nil, fmt.Errorf("%s: negative offset %d", key, offset)
	}
	o, err := s.object(ctx, key)
	if err != nil {
		return nil, err
	}
	rest := o.bytes[min(offset, int64(len(o.bytes))):]
	if length >= 0 {
		rest = rest[:min(length, int64(len(rest)))]
	}
	return &reader{ctx: ctx, key: key, bytes: bytes.NewReader(rest)}, nil
}

type reader struct {
	ctx   context.Context
	key   string
	bytes *bytes.Reader // nil when closed
}

func (r *reader) Read(p []byte) (int, error) {
	if r.bytes == nil {
		return 0, errors.New(r.key + ": read after Close")
	}
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", r.key, err)
	}
	return r.bytes.Read(p)
}

func (r *reader) Close() error {
	r.bytes = nil
	return nil
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	o, err := s.object(ctx, key)
	if err != nil {
		return storage.Info{}, err
	}
	return o.info(key), nil
}

func (o object) info(key string) storage.Info {
	return storage.Info{Key: key, Size: int64(len(o.bytes)), Modified: o.modified, Version: o.version}
}

func (s *Store) object(ctx context.Context, key string) (object, error) {
	if err := check(ctx, key); err != nil {
		return object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s: %w", key, storage.ErrNotFound)
	}
	return o, nil
}

func check(ctx context.Context, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, true)
}

// Create implements storage.Creator.
func (s *Store) Create(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, false)
}

func (s *Store) write(ctx context.Context, key string, body io.Reader, replace bool) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.allowed(key, replace)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var buffer bytes.Buffer
	_, err = buffer.ReadFrom(&bodyReader{ctx: ctx, body: body})
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, ctxErr) {
		err = errors.Join(ctxErr, err)
	}
	if err != nil {
		return fmt.Errorf("%s not written: %w", key, err)
	}
	if err := storage.Allowed(ctx); err != nil {
		return fmt.Errorf("%s not written: %w", key, err)
	}
	sum := sha256.Sum256(buffer.Bytes())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.allowed(key, replace); err != nil {
		return err
	}
	if _, there := s.objects[key]; !there {
		s.count(key, 1)
	}
	s.objects[key] = object{bytes: buffer.Bytes(), modified: s.now(), version: hex.EncodeToString(sum[:])}
	return nil
}

// Swap implements storage.Swapper.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if len(new) > storage.MaxSwap {
		return fmt.Errorf("%s: %d bytes are too many to swap", key, len(new))
	}
	if err := storage.Allowed(ctx); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, there := s.objects[key]
	if !there || !bytes.Equal(o.bytes, old) {
		return fmt.Errorf("%s: %w", key, storage.ErrChanged)
	}
	s.objects[key] = object{bytes: bytes.Clone(new), modified: s.now()}
	return nil
}

// bodyReader ends with the context.
type bodyReader struct {
	ctx  context.Context
	body io.Reader
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

// allowed returns why key may not be written. s.mu is held.
func (s *Store) allowed(key string, replace bool) error {
	if s.below[key] > 0 {
		return fmt.Errorf("%s: %w", key, storage.ErrConflict)
	}
	for directory := range directories(key) {
		if _, there := s.objects[directory]; there {
			return fmt.Errorf("%s: %w", key, storage.ErrConflict)
		}
	}
	if _, there := s.objects[key]; there && !replace {
		return fmt.Errorf("%s: %w", key, storage.ErrExists)
	}
	return nil
}

// count adds n to the objects below each directory of key. s.mu is held.
func (s *Store) count(key string, n int) {
	for directory := range directories(key) {
		if s.below[directory] += n; s.below[directory] == 0 {
			delete(s.below, directory)
		}
	}
}

// directories yields "a" and "a/b" for "a/b/c".
func directories(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(key) {
			if key[i] == '/' && !yield(key[:i]) {
				return
			}
		}
	}
}

// List implements storage.Store. It yields what was there when it began, and is still there.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var keys []string
		s.mu.Lock()
		for key := range s.objects {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		s.mu.Unlock()
		slices.Sort(keys)
		if err := ctx.Err(); err != nil {
			yield(storage.Info{}, fmt.Errorf("%s: %w", prefix, err))
			return
		}
		for _, key := range keys {
			o, err := s.object(ctx, key)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				yield(storage.Info{}, err)
				return
			}
			if !yield(o.info(key), nil) {
				return
			}
		}
	}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := storage.Allowed(ctx); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
	return nil
}

// DeleteIf implements storage.Remover.
func (s *Store) DeleteIf(ctx context.Context, key string, old []byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := storage.Allowed(ctx); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(old) > storage.MaxSwap {
		return fmt.Errorf("%s: %d bytes are too many to compare", key, len(old))
	}
	if o, there := s.objects[key]; there && !bytes.Equal(o.bytes, old) {
		return fmt.Errorf("%s: %w", key, storage.ErrChanged)
	}
	s.remove(key)
	return nil
}

// remove forgets key, if it is there. s.mu is held.
func (s *Store) remove(key string) {
	if _, there := s.objects[key]; there {
		delete(s.objects, key)
		s.count(key, -1)
	}
}
