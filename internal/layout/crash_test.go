package layout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// updating is a store whose Update is a Get and a Put, each of which may fail.
type updating struct {
	storagetest.Inner
	mu sync.Mutex
}

func (s *updating) Update(ctx context.Context, key string, most int64, change func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := storage.Read(ctx, s, key, most)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	content, err := change(old)
	if err != nil || old != nil && bytes.Equal(old, content) {
		return err
	}
	return s.Put(ctx, key, bytes.NewReader(content))
}

// step is an image that a process copies into a layout.
type step struct {
	ref string
	img remotetest.Image
}

// run makes the calls of a process. It stops at the first error.
func run(s storagetest.Inner, steps []step) error {
	l, err := layout.Create(context.Background(), &updating{Inner: s}, "the-layout")
	if err != nil {
		return err
	}
	for _, p := range steps {
		ref, err := image.ParseReference(p.ref)
		if err != nil {
			return err
		}
		if _, err := remotetest.Push(context.Background(), l, ref, p.img); err != nil {
			return err
		}
	}
	return nil
}

// plain reads a layout as a foreign program does, and returns what its names stand
// for: the digests of configs. Whatever is named has to be there in full.
func plain(s storage.Store) (map[string]string, error) {
	read := func(key string) ([]byte, error) {
		r, err := s.Get(context.Background(), key, 0, -1)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	type descriptor struct {
		MediaType   string
		Digest      string
		Size        int
		Annotations map[string]string
	}
	blob := func(d descriptor) ([]byte, error) {
		b, err := read("blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:"))
		if err == nil && (image.DigestOf(b).String() != d.Digest || len(b) != d.Size) {
			err = fmt.Errorf("%s has %d other bytes, not %d", d.Digest, len(b), d.Size)
		}
		return b, err
	}
	if version, err := read("oci-layout"); errors.Is(err, storage.ErrNotFound) {
		return nil, nil // not begun
	} else if err != nil || string(version) != `{"imageLayoutVersion":"1.0.0"}` {
		return nil, fmt.Errorf("oci-layout is %q, %w", version, err)
	}
	var index struct {
		SchemaVersion int
		Manifests     []descriptor
	}
	doc, err := read("index.json")
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(doc, &index)
	}
	if err != nil || index.SchemaVersion != 2 {
		return nil, fmt.Errorf("index.json is %q, %w", doc, err)
	}
	names := map[string]string{}
	for _, root := range index.Manifests {
		var m struct {
			Config descriptor
			Layers []descriptor
		}
		doc, err := blob(root)
		if err == nil {
			err = json.Unmarshal(doc, &m)
		}
		if err != nil {
			return nil, err
		}
		for _, d := range append(m.Layers, m.Config) {
			if _, err := blob(d); err != nil {
				return nil, fmt.Errorf("%v: %w", root.Annotations, err)
			}
		}
		name := root.Annotations["org.opencontainers.image.ref.name"]
		if _, twice := names[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		names[name] = m.Config.Digest
	}
	return names, nil
}

// TestCrash kills a copy into a layout at every operation, in each of the ways: no
// name ever stands for an image that is not whole, index.json is never torn, and a
// second run completes what the first one did not.
func TestCrash(t *testing.T) {
	base, libs := remotetest.FileLayer(t, "base", "base"), remotetest.FileLayer(t, "libs", strings.Repeat("libs", 5000))
	one := remotetest.NewImage(t, "one", base, libs, remotetest.FileLayer(t, "one", "one"))
	two := remotetest.NewImage(t, "two", base, libs, base)
	for _, test := range []struct {
		name          string
		before, steps []step
		damage        func(t *testing.T, s storage.Store)
	}{
		{name: "two images", steps: []step{{"app:1", one}, {"team/app:2", two}}},
		{name: "a name moves", before: []step{{"app:1", one}, {"kept:1", two}}, steps: []step{{"app:1", two}}},
		{name: "torn blobs without a name", steps: []step{{"app:1", one}}, damage: func(t *testing.T, s storage.Store) {
			put(t, s, "blobs/sha256/"+image.DigestOf(libs).Hex(), libs[:1000])
			put(t, s, "blobs/sha256/"+one.ID.Hex(), one.Config[:10])
		}},
	} {
		prepare := func() *mem.Store {
			s := mem.New()
			if err := run(s, test.before); err != nil {
				t.Fatal(err)
			}
			if test.damage != nil {
				test.damage(t, s)
			}
			return s
		}
		count := storagetest.NewFaulty(prepare())
		if err := run(count, test.steps); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= count.Ops(); n++ {
			for _, mode := range storagetest.Modes {
				s := prepare()
				faulty := storagetest.NewFaulty(s)
				faulty.FailAt(n, mode)
				failure := run(faulty, test.steps)
				if failure != nil && !errors.Is(failure, storagetest.ErrInjected) {
					t.Errorf("%s, operation %d, %s: it failed by itself: %v", test.name, n, mode, failure)
				}
				names, err := plain(s)
				if err == nil {
					err = expected(names, test.before, test.steps, failure == nil)
				}
				if err != nil {
					t.Errorf("%s, operation %d, %s: after %v: %v\n%s", test.name, n, mode, failure, err, strings.Join(faulty.Log(), "\n"))
					continue
				}
				if err := run(s, test.steps); err != nil {
					t.Errorf("%s, operation %d, %s: the rerun: %v", test.name, n, mode, err)
				}
				names, err = plain(s)
				if err == nil {
					err = expected(names, test.before, test.steps, true)
				}
				if err != nil {
					t.Errorf("%s, operation %d, %s: after the rerun: %v", test.name, n, mode, err)
				}
			}
		}
		t.Logf("%s: %d operations", test.name, count.Ops())
	}
}

// expected proves that names stand for what they stood for, or are to stand for;
// done says that they must.
func expected(names map[string]string, before, steps []step, done bool) error {
	allowed := map[string][]string{}
	for _, p := range before {
		allowed[p.ref] = []string{p.img.ID.String()}
	}
	for _, p := range steps {
		was := allowed[p.ref]
		if was == nil {
			was = []string{""}
		}
		if allowed[p.ref] = []string{p.img.ID.String()}; !done {
			allowed[p.ref] = append(allowed[p.ref], was...)
		}
	}
	for ref, ids := range allowed {
		ok := false
		for _, id := range ids {
			ok = ok || names[ref] == id
		}
		if !ok {
			return fmt.Errorf("%s is %q, not one of %q", ref, names[ref], ids)
		}
	}
	if len(names) > len(allowed) {
		return fmt.Errorf("there are names that nobody wrote: %v", names)
	}
	return nil
}

func put(t testing.TB, s storage.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}
