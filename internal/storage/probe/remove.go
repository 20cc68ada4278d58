package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

// leftovers asks the store what the broken-off uploads of this run left. By its contract, a store that is no
// storage.Sweeper cannot have any.
func (p *probe) leftovers(ctx context.Context) (string, error) {
	s, ok := p.a.(storage.Sweeper)
	if !ok {
		return "this kind of remote has none", nil
	}
	n, err := s.Sweep(ctx, p.prefix, 0)
	if err != nil {
		return "", fmt.Errorf("cannot be looked for: %w", err)
	}
	if n > 0 {
		return "", fmt.Errorf("broken-off uploads left %d files or open uploads", n)
	}
	return "broken-off uploads leave nothing", nil
}

// removal is how long the removal may take once the context has ended.
const removal = 10 * time.Second

// remove removes all that this run wrote.
func (p *probe) remove(ctx context.Context) error {
	err := p.removeAll(ctx)
	if ctx.Err() != nil {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
		defer cancel()
		err = p.removeAll(detached)
	}
	return err
}

func (p *probe) removeAll(ctx context.Context) error {
	if len(p.keys) == 0 {
		return nil
	}
	var group errgroup.Group
	group.SetLimit(8)
	errs := make(chan error, len(p.keys))
	for key := range p.keys {
		group.Go(func() error {
			errs <- p.a.Delete(ctx, key)
			return nil
		})
	}
	_ = group.Wait()
	close(errs)
	var first error
	for err := range errs {
		if first == nil {
			first = err
		}
	}
	left, err := p.infos(ctx, p.a, "")
	if err != nil && first == nil {
		first = err
	}
	switch {
	case len(left) > 0:
		return fmt.Errorf("%d objects are left under %s, and the store says: %w", len(left), p.prefix, orNil(first))
	case first != nil:
		return fmt.Errorf("objects may be left under %s: %w", p.prefix, first)
	}
	return nil
}

// Sweep removes from store what killed processes left there, unless it is
// younger than age: temporary files and open uploads, where the store has such
// things, and objects of killed probes. It returns how many it removed. A probe
// that runs meanwhile is disturbed where age is less than it takes.
func Sweep(ctx context.Context, store storage.Store, age time.Duration) (removed int, err error) {
	if s, ok := store.(storage.Sweeper); ok {
		if removed, err = s.Sweep(ctx, "", age); err != nil {
			return removed, err
		}
	}
	var old []storage.Info
	for info, err := range store.List(ctx, Prefix) {
		if err != nil {
			return removed, err
		}
		if isOurs(info.Key) {
			old = append(old, info)
		}
	}
	if len(old) == 0 {
		return removed, nil
	}
	var now time.Time
	if age > 0 {
		if now, err = storeTime(ctx, store); err != nil {
			return removed, err
		}
	}
	for _, info := range old {
		if age > 0 && now.Sub(info.Modified) < age {
			continue
		}
		if err := store.Delete(ctx, info.Key); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// storeTime is what time it is for the store, by an object that is written now:
// this host's clock may be another.
func storeTime(ctx context.Context, store storage.Store) (time.Time, error) {
	p := &probe{a: store, prefix: newPrefix(), keys: map[string]bool{}}
	err := p.put(ctx, store, "now", nil)
	var info storage.Info
	if err == nil {
		info, err = store.Stat(ctx, p.prefix+"now")
	}
	return info.Modified, errors.Join(err, p.remove(ctx))
}

// isOurs reports whether a key that begins with Prefix goes on as those of probes do.
func isOurs(key string) bool {
	id, _, ok := strings.Cut(strings.TrimPrefix(key, Prefix), "/")
	return ok && len(id) == 16 && strings.Trim(id, "0123456789abcdef") == ""
}
