package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// read looks at what is there before anything is written: a store that may
// only be read is of use, too.
func (p *probe) read(ctx context.Context) (string, error) {
	for info, err := range p.a.List(ctx, "") {
		if err != nil {
			return "", fmt.Errorf("cannot be listed: %w", err)
		}
		r, err := p.a.Get(ctx, info.Key, 0, -1)
		if errors.Is(err, storage.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return "", fmt.Errorf("can be listed, and not read: %w", err)
		}
		defer r.Close()
		n, err := r.Read(make([]byte, 1))
		if err != nil && err != io.EOF || n == 0 && info.Size > 0 {
			return "", fmt.Errorf("can be listed, and not read: %s: %w", info.Key, err)
		}
		return "what is there can be listed and read", nil
	}
	return "can be listed; nothing is there yet", nil
}

const first = "first/object"

func (p *probe) write(ctx context.Context) (string, error) {
	return "allowed", p.put(ctx, p.a, first, []byte(first))
}

func (p *probe) readBack(ctx context.Context) (string, error) {
	if err := p.absent(ctx, p.a, "first/other", "an object is there that nobody wrote"); err != nil {
		return "", err
	}
	return "byte for byte", p.holds(ctx, p.a, first, []byte(first))
}

func (p *probe) empty(ctx context.Context) (string, error) {
	if err := p.put(ctx, p.a, "empty/object", nil); err != nil {
		return "", err
	}
	return "kept", p.holds(ctx, p.a, "empty/object", nil)
}

func (p *probe) stat(ctx context.Context) (string, error) {
	const name = "stat/object"
	versions := map[string]bool{}
	bodies := []string{"content", "Content", "other content"}
	for _, body := range bodies {
		if err := p.put(ctx, p.a, name, []byte(body)); err != nil {
			return "", err
		}
		info, err := p.a.Stat(ctx, p.prefix+name)
		switch {
		case err != nil:
			return "", err
		case info.Key != p.prefix+name || info.Size != int64(len(body)):
			return "", fmt.Errorf("an object of %d bytes is said to have %d", len(body), info.Size)
		case info.Modified.IsZero():
			return "", errors.New("no time is told")
		}
		versions[info.Version] = true
	}
	if !versions[""] && len(versions) < len(bodies) {
		return "", errors.New("the version stays the same when the content changes")
	}
	if _, err := p.a.Stat(ctx, p.prefix+"stat/other"); !errors.Is(err, storage.ErrNotFound) {
		return "", fmt.Errorf("asked about an object that is not there, the store says: %w", orNil(err))
	}
	return "told, and right", nil
}

// orNil gives a nil error a text, for a place where another one was due.
func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

// clockTolerance is by how much the store's clock may be wrong before it is told.
const clockTolerance = 5 * time.Minute

func (p *probe) clock(ctx context.Context) (string, error) {
	before := time.Now()
	if err := p.put(ctx, p.a, "clock/object", []byte("now")); err != nil {
		return "", err
	}
	after := time.Now()
	info, err := p.a.Stat(ctx, p.prefix+"clock/object")
	if err != nil {
		return "", err
	}
	var skew time.Duration
	how := ""
	if info.Modified.Before(before) {
		skew, how = before.Sub(info.Modified), "behind"
	} else if info.Modified.After(after) {
		skew, how = info.Modified.Sub(after), "ahead of"
	}
	if skew > clockTolerance {
		return "", warning(fmt.Sprintf("the store's clock is %s %s this host's; ages count by the store's", skew.Round(time.Second), how))
	}
	return "within 5 minutes of this host's", nil
}

// listed are names that go wrong where keys are sorted by their elements
// ("a-b" before "a/b"), where case or length counts, and where pages or
// directories end. None is the beginning of another's path.
func listed() []string {
	names := []string{
		"a-b", "a.b", "a/b", "a/b-c", "a/c/d", "a/c-d", "a/c.d/e", "a0", "A-x", "Z/x", "~", "z~", "aa/b/c", "aa/b-", "aa/b.c", "aa/b0",
		"host%3A5000/app", "a b/c d", "plus+plus",
	}
	for i := range 24 {
		names = append(names, fmt.Sprintf("many/%02d/json", i*7%24), fmt.Sprintf("many/%02d-", i))
	}
	return names
}

func (p *probe) list(ctx context.Context) (string, error) {
	names := listed()
	for i, name := range names {
		if err := p.put(ctx, p.a, "list/"+name, make([]byte, i+1)); err != nil {
			return "", err
		}
	}
	sizes := map[string]int64{}
	for i, name := range names {
		sizes["list/"+name] = int64(i + 1)
	}
	for _, start := range []string{"list/", "list/a", "list/a/c", "list/many/0", "list/none"} {
		var want, got []string
		for name := range sizes {
			if strings.HasPrefix(name, start) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		infos, err := p.infos(ctx, p.a, start)
		if err != nil {
			return "", err
		}
		for _, info := range infos {
			name := strings.TrimPrefix(info.Key, p.prefix)
			if size, ours := sizes[name]; ours && size != info.Size {
				return "", fmt.Errorf("%s has %d bytes, and is listed with %d", name, size, info.Size)
			}
			got = append(got, name)
		}
		if slices.Equal(got, want) {
			continue
		}
		if slices.Sort(got); slices.Equal(got, want) {
			return "", errors.New("the keys are not listed in the order of their bytes")
		}
		return "", fmt.Errorf("%d of %d keys that begin with %s are listed", len(got), len(want), start)
	}
	return fmt.Sprintf("%d keys, complete and in order", len(names)), nil
}

func (p *probe) ranges(ctx context.Context) (string, error) {
	const size = 100_000
	body := bytesOf(1, size)
	if err := p.put(ctx, p.a, "range/object", body); err != nil {
		return "", err
	}
	for _, r := range []struct{ offset, length int64 }{
		{0, 10}, {40_000, 20_000}, {size - 10, -1}, {size - 10, 10}, {size - 10, 100}, {0, 2 * size}, {size, 10}, {size + 10, 10},
	} {
		from := min(r.offset, size)
		want := body[from:]
		if r.length >= 0 {
			want = body[from:min(from+r.length, size)]
		}
		got, err := p.piece(ctx, p.a, "range/object", r.offset, r.length)
		if errors.Is(err, errors.ErrUnsupported) {
			return "", missing("objects are read from their beginning to their end only, and a part costs as much as all")
		}
		if err != nil {
			return "", fmt.Errorf("bytes from %d on, of %d: %w", r.offset, size, err)
		}
		if !slices.Equal(got, want) {
			return "", fmt.Errorf("bytes from %d on, of %d: %d came that are not the %d asked for", r.offset, size, len(got), len(want))
		}
	}
	return "middle, end and beyond", nil
}

func (p *probe) delete(ctx context.Context) (string, error) {
	for _, name := range []string{"delete/object", "delete/object-2"} {
		if err := p.put(ctx, p.a, name, []byte(name)); err != nil {
			return "", err
		}
	}
	for _, how := range []string{"", "a second time: "} {
		if err := p.a.Delete(ctx, p.prefix+"delete/object"); err != nil {
			return "", fmt.Errorf("%s%w", how, err)
		}
		if err := p.absent(ctx, p.a, "delete/object", "a deleted object is still there"); err != nil {
			return "", err
		}
	}
	if err := p.holds(ctx, p.a, "delete/object-2", []byte("delete/object-2")); err != nil {
		return "", fmt.Errorf("the object beside a deleted one: %w", err)
	}
	return "gone at once, and a second time no error", nil
}
