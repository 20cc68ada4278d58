package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// brokenStore is a way to break the promises of a store, and the check that is to notice.
type brokenStore struct {
	check, name string
	open        func(*mem.Store) (a, b storage.Store)
	status      Status // Failed where it is empty
	detail      string // part of it
	skips       int    // how many checks build on that one
	leaves      bool   // it cannot be cleaned up either
}

// one bends both sides alike.
func one(change func(s *bent, inner *mem.Store)) func(*mem.Store) (a, b storage.Store) {
	return func(inner *mem.Store) (a, b storage.Store) {
		s := bend(inner)
		change(s, inner)
		return s, s
	}
}

// far bends b alone.
func far(change func(s *bent, inner *mem.Store)) func(*mem.Store) (a, b storage.Store) {
	return func(inner *mem.Store) (a, b storage.Store) {
		s := bend(inner)
		change(s, inner)
		return inner, s
	}
}

// testPart keeps large objects small, and is more than all other objects have.
const testPart = 512 << 10

var errServer = errors.New("500 Internal Server Error\n<html>")

func brokenStores() []brokenStore {
	most := len(checks)
	all := []brokenStore{
		{check: "read", name: "list refused", detail: "cannot be listed: permission denied", open: one(func(s *bent, inner *mem.Store) {
			s.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				if prefix != "" {
					return inner.List(ctx, prefix)
				}
				return func(yield func(storage.Info, error) bool) { yield(storage.Info{}, storage.ErrPermission) }
			}
		})},
		{check: "read", name: "get refused", detail: "can be listed, and not read: permission denied", open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
				if key == "images/object" {
					return nil, storage.ErrPermission
				}
				return inner.Get(ctx, key, offset, length)
			}
		})},
		{check: "write", name: "refused", detail: "500 Internal Server Error <html>", skips: most - 2, open: one(func(s *bent, _ *mem.Store) {
			s.put = func(context.Context, string, io.Reader) error { return errServer }
		})},
		{check: "read back", name: "other bytes", detail: "not the 12 written", skips: most - 3, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				return inner.Put(ctx, key, io.MultiReader(body, strings.NewReader("\r\n")))
			}
		})},
		{check: "read back", name: "everything is there", detail: "an object is there that nobody wrote", skips: most - 3, open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
				r, err := inner.Get(ctx, key, offset, length)
				if errors.Is(err, storage.ErrNotFound) {
					return io.NopCloser(strings.NewReader("<html>not found</html>")), nil
				}
				return r, err
			}
		})},
		{check: "empty object", name: "not kept", detail: "not found", open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				b, err := io.ReadAll(body)
				if err == nil && len(b) == 0 {
					return nil
				}
				return inner.Put(ctx, key, io.MultiReader(bytes.NewReader(b), failing(err)))
			}
		})},
		{check: "size and time", name: "size", detail: "is said to have", skips: 1, open: statted(func(i *storage.Info) { i.Size++ })},
		{check: "size and time", name: "time", detail: "no time", skips: 1, open: statted(func(i *storage.Info) { i.Modified = time.Time{} })},
		{check: "size and time", name: "version", detail: "version stays", skips: 1, open: statted(func(i *storage.Info) { i.Version = "1" })},
		{check: "clock", name: "ahead", status: Warning, detail: "clock is 10m0s ahead of this", open: statted(func(i *storage.Info) { i.Modified = i.Modified.Add(10 * time.Minute) })},
		{check: "clock", name: "behind", status: Warning, detail: "clock is 1h0m0s behind", open: statted(func(i *storage.Info) { i.Modified = i.Modified.Add(-time.Hour) })},
		{check: "list", name: "order", detail: "order of their bytes", skips: 1, open: listing(func(keys []storage.Info) []storage.Info {
			keys[3], keys[4] = keys[4], keys[3]
			return keys
		})},
		{check: "list", name: "incomplete", detail: "66 of 67 keys", skips: 1, open: listing(func(keys []storage.Info) []storage.Info { return keys[:len(keys)-1] })},
		{check: "list", name: "size", detail: "and is listed with", skips: 1, open: listing(func(keys []storage.Info) []storage.Info {
			keys[5].Size++
			return keys
		})},
		{check: "ranges", name: "none", status: Unsupported, detail: "from their beginning to their end only", open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
				if offset != 0 || length >= 0 {
					return nil, errors.ErrUnsupported
				}
				return inner.Get(ctx, key, offset, length)
			}
		})},
		{check: "ranges", name: "ignored", detail: "100000 came", open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, _, _ int64) (io.ReadCloser, error) {
				return inner.Get(ctx, key, 0, -1)
			}
		})},
		{check: "ranges", name: "416 at the end", detail: "416", open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
				if i, err := inner.Stat(ctx, key); err == nil && offset > 0 && offset >= i.Size {
					return nil, errors.New("416 Range Not Satisfiable")
				}
				return inner.Get(ctx, key, offset, length)
			}
		})},
		{check: "whole overwrite", name: "in two steps", detail: "a mix", open: one(func(s *bent, inner *mem.Store) {
			s.put = slowly(inner, func(ctx context.Context, key string, b []byte) error {
				return inner.Put(ctx, key, bytes.NewReader(b[:len(b)/2]))
			})
		})},
		{check: "whole overwrite", name: "gone for a moment", detail: "gone for a moment", open: one(func(s *bent, inner *mem.Store) {
			s.put = slowly(inner, func(ctx context.Context, key string, _ []byte) error { return inner.Delete(ctx, key) })
		})},
		{check: "whole overwrite", name: "no reader gets through", detail: "no reader got an object: broken pipe", open: one(func(s *bent, inner *mem.Store) {
			s.get = func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
				if strings.Contains(key, "/overwrite/") {
					return nil, errors.New("broken pipe")
				}
				return inner.Get(ctx, key, offset, length)
			}
		})},
		{check: "failed upload", name: "published", detail: "broken off after 0 bytes has changed the old object", skips: 1, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				b, err := io.ReadAll(body)
				return errors.Join(err, inner.Put(context.WithoutCancel(ctx), key, bytes.NewReader(b)))
			}
		})},
		{check: "failed upload", name: "new object", detail: "broken off after 0 bytes left an object", skips: 1, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				b, err := io.ReadAll(body)
				if _, statErr := inner.Stat(ctx, key); err != nil && statErr == nil {
					return err
				}
				return errors.Join(err, inner.Put(context.WithoutCancel(ctx), key, bytes.NewReader(b)))
			}
		})},
		{check: "failed upload", name: "parts", detail: "broken off after 589824 bytes has changed the old object", skips: 1, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				b, err := io.ReadAll(body)
				if err != nil && len(b) < testPart {
					return err
				}
				return errors.Join(err, inner.Put(context.WithoutCancel(ctx), key, bytes.NewReader(b)))
			}
		})},
		{check: "failed upload", name: "cancelled", detail: "broken off after 1000 bytes ends with: no error", skips: 1, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				return inner.Put(context.WithoutCancel(ctx), key, body)
			}
		})},
		{check: "failed upload", name: "other error", detail: "ends with: 500", skips: 1, open: one(func(s *bent, inner *mem.Store) {
			s.put = func(ctx context.Context, key string, body io.Reader) error {
				if err := inner.Put(ctx, key, body); err != nil {
					return errServer
				}
				return nil
			}
		})},
		{check: "large object", name: "too large", detail: "413", open: one(func(s *bent, inner *mem.Store) {
			s.put = atSize(inner, func([]byte) ([]byte, error) { return nil, errors.New("413 Request Entity Too Large") })
		})},
		{check: "large object", name: "last part lost", detail: "not what was written", open: one(func(s *bent, inner *mem.Store) {
			s.put = atSize(inner, func(b []byte) ([]byte, error) { return b[:2*testPart], nil })
		})},
		{check: "large object", name: "parts exchanged", detail: "not what was written", open: one(func(s *bent, inner *mem.Store) {
			s.put = atSize(inner, func(b []byte) ([]byte, error) {
				return append(append(bytes.Clone(b[testPart:2*testPart]), b[:testPart]...), b[2*testPart:]...), nil
			})
		})},
		{check: "delete", name: "does nothing", detail: "is still there", skips: 2, leaves: true, open: one(func(s *bent, _ *mem.Store) {
			s.remove = func(context.Context, string) error { return nil }
		})},
		{check: "delete", name: "fails twice", detail: "a second time: not found", skips: 2, leaves: true, open: one(func(s *bent, inner *mem.Store) {
			s.remove = func(ctx context.Context, key string) error {
				if _, err := inner.Stat(ctx, key); err != nil {
					return storage.ErrNotFound
				}
				return inner.Delete(ctx, key)
			}
		})},
		{check: "delete", name: "takes others along", detail: "the object beside a deleted one: ", skips: 2, open: one(func(s *bent, inner *mem.Store) {
			s.remove = func(ctx context.Context, key string) error {
				for info := range inner.List(ctx, key) {
					if err := inner.Delete(ctx, info.Key); err != nil {
						return err
					}
				}
				return nil
			}
		})},
		{check: "read after write", name: "remembers what was there", detail: "still reads the old content", open: far(func(s *bent, inner *mem.Store) {
			s.get = cachedGet(inner, false)
		})},
		{check: "read after write", name: "remembers that nothing was there", detail: "not there yet", open: far(func(s *bent, inner *mem.Store) {
			s.get = cachedGet(inner, true)
		})},
		{check: "list after write", name: "late", detail: "not listed yet", open: far(func(s *bent, inner *mem.Store) {
			var last []storage.Info
			s.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				now := last
				last = nil
				for info := range inner.List(ctx, prefix) {
					last = append(last, info)
				}
				return func(yield func(storage.Info, error) bool) {
					for _, info := range now {
						if !yield(info, nil) {
							return
						}
					}
				}
			}
		})},
		{check: "list after write", name: "keeps the deleted", detail: "still listed", open: far(func(s *bent, inner *mem.Store) {
			all := map[string]storage.Info{}
			s.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
				for info := range inner.List(ctx, prefix) {
					all[info.Key] = info
				}
				return func(yield func(storage.Info, error) bool) {
					for info := range maps.Values(all) {
						if !yield(info, nil) {
							return
						}
					}
				}
			}
		})},
		{check: "left-overs", name: "some", detail: "left 3 files or open uploads", open: swept(3, nil)},
		{check: "left-overs", name: "may not look", detail: "cannot be looked for: permission denied", open: swept(0, storage.ErrPermission)},
	}
	return append(all, brokenConditions()...)
}

func failing(err error) io.Reader {
	return endReader(func() error {
		if err == nil {
			return io.EOF
		}
		return err
	})
}

func statted(change func(*storage.Info)) func(*mem.Store) (a, b storage.Store) {
	return one(func(s *bent, inner *mem.Store) {
		s.stat = func(ctx context.Context, key string) (storage.Info, error) {
			info, err := inner.Stat(ctx, key)
			change(&info)
			return info, err
		}
	})
}

// listing changes lists that have many keys.
func listing(change func([]storage.Info) []storage.Info) func(*mem.Store) (a, b storage.Store) {
	return one(func(s *bent, inner *mem.Store) {
		s.list = func(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
			return func(yield func(storage.Info, error) bool) {
				var all []storage.Info
				for info := range inner.List(ctx, prefix) {
					all = append(all, info)
				}
				if len(all) > 20 {
					all = change(all)
				}
				for _, info := range all {
					if !yield(info, nil) {
						return
					}
				}
			}
		}
	})
}

// slowly replaces objects in two steps.
func slowly(inner *mem.Store, first func(ctx context.Context, key string, b []byte) error) func(context.Context, string, io.Reader) error {
	return func(ctx context.Context, key string, body io.Reader) error {
		b, err := io.ReadAll(body)
		if _, statErr := inner.Stat(ctx, key); err == nil && statErr == nil {
			if err = first(ctx, key, b); err == nil {
				time.Sleep(2 * time.Millisecond)
			}
		}
		return inner.Put(ctx, key, io.MultiReader(bytes.NewReader(b), failing(err)))
	}
}

// atSize changes bodies of more than a part.
func atSize(inner *mem.Store, change func([]byte) ([]byte, error)) func(context.Context, string, io.Reader) error {
	return func(ctx context.Context, key string, body io.Reader) error {
		b, err := io.ReadAll(body)
		if err == nil && len(b) > testPart {
			b, err = change(b)
		}
		return inner.Put(ctx, key, io.MultiReader(bytes.NewReader(b), failing(err)))
	}
}

// cachedGet remembers for ever what the first Get of a key gave, or that it gave nothing.
func cachedGet(inner *mem.Store, absence bool) func(context.Context, string, int64, int64) (io.ReadCloser, error) {
	var mu sync.Mutex
	seen := map[string][]byte{}
	return func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		if b, ok := seen[key]; ok {
			if b == nil {
				return nil, storage.ErrNotFound
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		r, err := inner.Get(ctx, key, offset, length)
		if err != nil {
			if absence {
				seen[key] = nil
			}
			return nil, err
		}
		b, err := io.ReadAll(r)
		seen[key] = append([]byte{}, b...)
		return io.NopCloser(bytes.NewReader(b)), err
	}
}

func swept(left int, err error) func(*mem.Store) (a, b storage.Store) {
	return func(inner *mem.Store) (a, b storage.Store) {
		s := untidy{bend(inner), left, err}
		return s, s
	}
}
