package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// brokenConditions are those of brokenStores whose conditional writes are broken.
func brokenConditions() []brokenStore {
	none := func(inner *mem.Store) (a, b storage.Store) {
		s := struct {
			storage.Store
			storage.Swapper
		}{inner, inner}
		return s, s
	}
	noSwap := func(inner *mem.Store) (a, b storage.Store) {
		s := struct {
			storage.Store
			storage.Creator
		}{inner, inner}
		return s, s
	}
	creates := func(create func(inner *mem.Store, ctx context.Context, key string, body io.Reader) error) func(*mem.Store) (a, b storage.Store) {
		return one(func(s *bent, inner *mem.Store) {
			s.create = func(ctx context.Context, key string, body io.Reader) error { return create(inner, ctx, key, body) }
		})
	}
	swaps := func(swap func(inner *mem.Store, ctx context.Context, key string, old, new []byte) error) func(*mem.Store) (a, b storage.Store) {
		return one(func(s *bent, inner *mem.Store) {
			s.swap = func(ctx context.Context, key string, old, new []byte) error { return swap(inner, ctx, key, old, new) }
		})
	}
	put := func(inner *mem.Store, ctx context.Context, key string, new []byte) error {
		return inner.Put(ctx, key, bytes.NewReader(new))
	}
	beforeCreate, beforeSwap := meeting(), meeting()
	return []brokenStore{
		{check: "create if absent", name: "no method", status: Unsupported, detail: "dogestry cannot do that", open: none},
		{check: "create if absent", name: "unsupported", status: Unsupported, detail: "501: unsupported operation", open: creates(func(*mem.Store, context.Context, string, io.Reader) error {
			return fmt.Errorf("501: %w", errors.ErrUnsupported)
		})},
		{check: "create if absent", name: "ignored", detail: "is overwritten", open: creates((*mem.Store).Put)},
		{check: "create if absent", name: "not atomic", detail: "winners of 8", open: creates(func(inner *mem.Store, ctx context.Context, key string, body io.Reader) error {
			if _, err := inner.Stat(ctx, key); err == nil {
				return storage.ErrExists
			}
			beforeCreate(key)
			return inner.Put(ctx, key, body)
		})},
		{check: "create if absent", name: "other error", detail: "creating what is there: 500", open: creates(func(inner *mem.Store, ctx context.Context, key string, body io.Reader) error {
			if err := inner.Create(ctx, key, body); err != nil {
				return errServer
			}
			return nil
		})},
		{check: "create if absent", name: "refused and written", detail: "refused, and overwritten", open: creates(func(inner *mem.Store, ctx context.Context, key string, body io.Reader) error {
			_, there := inner.Stat(ctx, key)
			if err := inner.Put(ctx, key, body); err != nil || there != nil {
				return err
			}
			return storage.ErrExists
		})},
		{check: "create if absent", name: "nobody wins", detail: "nobody wins of 8", open: creates(func(inner *mem.Store, ctx context.Context, key string, body io.Reader) error {
			if strings.Contains(key, "race") {
				return storage.ErrExists
			}
			return inner.Create(ctx, key, body)
		})},
		{check: "compare and swap", name: "no method", status: Unsupported, detail: "dogestry cannot do that", open: noSwap},
		{check: "compare and swap", name: "unsupported", status: Unsupported, detail: "unsupported operation", open: swaps(func(*mem.Store, context.Context, string, []byte, []byte) error {
			return errors.ErrUnsupported
		})},
		{check: "compare and swap", name: "ignored", detail: "has changed is overwritten", open: swaps(func(inner *mem.Store, ctx context.Context, key string, _, new []byte) error {
			return put(inner, ctx, key, new)
		})},
		{check: "compare and swap", name: "makes what is missing", detail: "made where nothing was", open: swaps(func(inner *mem.Store, ctx context.Context, key string, old, new []byte) error {
			if _, err := inner.Stat(ctx, key); err != nil {
				return put(inner, ctx, key, new)
			}
			return inner.Swap(ctx, key, old, new)
		})},
		{check: "compare and swap", name: "not atomic", detail: "winners of 8", open: swaps(func(inner *mem.Store, ctx context.Context, key string, old, new []byte) error {
			r, err := inner.Get(ctx, key, 0, -1)
			if err != nil {
				return storage.ErrChanged
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, old) {
				return storage.ErrChanged
			}
			beforeSwap(key)
			return put(inner, ctx, key, new)
		})},
		{check: "compare and swap", name: "does nothing", detail: "after a swap: ", open: swaps(func(*mem.Store, context.Context, string, []byte, []byte) error { return nil })},
		{check: "compare and swap", name: "other error", detail: "swapping what has changed: 500", open: swaps(func(inner *mem.Store, ctx context.Context, key string, old, new []byte) error {
			if err := inner.Swap(ctx, key, old, new); err != nil {
				return errServer
			}
			return nil
		})},
		{check: "compare and swap", name: "refused and written", detail: "refused, and overwritten", open: swaps(func(inner *mem.Store, ctx context.Context, key string, old, new []byte) error {
			if err := inner.Swap(ctx, key, old, new); err == nil {
				return nil
			}
			return errors.Join(storage.ErrChanged, put(inner, ctx, key, new))
		})},
	}
}

// meeting lets those who race wait until two have come: each of them has looked, and not written yet.
func meeting() func(key string) {
	var come atomic.Int32
	met := make(chan struct{})
	return func(key string) {
		if !strings.Contains(key, "race") {
			return
		}
		if come.Add(1) == 2 {
			close(met)
		}
		select {
		case <-met:
		case <-time.After(20 * time.Second): // the others have not looked in time
		}
	}
}
