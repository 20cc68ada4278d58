package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// push is one image that a scenario pushes.
type push struct {
	ref string
	img remotetest.Image
}

// scenario is what runs until it dies, and then runs again.
type scenario struct {
	name   string
	before []push                              // whole before anything fails
	damage func(t *testing.T, s storage.Store) // done to that; then no tag may be left
	pushes []push
	codec  codec.Codec // how the pushes store layers; those before and the rerun do not encode them
}

func scenarios(t *testing.T) []scenario {
	base := remotetest.FileLayer(t, "base", "base")
	libs := remotetest.FileLayer(t, "libs", strings.Repeat("libs", 5000))
	one := remotetest.NewImage(t, "one", base, libs, remotetest.FileLayer(t, "one", "one"))
	two := remotetest.NewImage(t, "two", base, libs, remotetest.FileLayer(t, "two", "two"), base)
	inner := remotetest.NewImage(t, "one, as a layer", base, one.Config)
	entry := func(l []byte, file string) string { return "images/" + digest(l) + "/" + file }
	return []scenario{
		{name: "two images", pushes: []push{{"app:1", one}, {"team/app:2", two}}},
		{name: "a tag moves", before: []push{{"app:1", one}}, pushes: []push{{"app:1", two}}},
		{name: "a layer that is a config too", before: []push{{"app:1", one}}, pushes: []push{{"app:2", inner}}},
		{name: "a config that is a layer too", before: []push{{"app:2", inner}}, pushes: []push{{"app:1", one}}},
		{
			name: "a torn copy", codec: codec.Zstd, before: []push{{"app:1", one}}, pushes: []push{{"app:1", one}, {"app:2", two}},
			damage: func(t *testing.T, s storage.Store) {
				remove(t, s, "repositories/app/1")
				remove(t, s, entry(base, "layer.tar"))
				put(t, s, entry(libs, "layer.tar"), get(t, s, entry(libs, "layer.tar"))[:30])
				remove(t, s, entry(one.Layers[2], "json"))
				put(t, s, entry(one.Config, "json"), one.Config[:10])
			},
		},
	}
}

// run makes the calls of a process. It stops at the first error.
func (sc scenario) run(s storage.Store, c codec.Codec) error {
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: c})
	if err != nil {
		return err
	}
	for _, p := range sc.pushes {
		ref, err := image.ParseReference(p.ref)
		if err != nil {
			return err
		}
		if _, err := remotetest.Push(context.Background(), r, ref, p.img); err != nil {
			return err
		}
	}
	return nil
}

func (sc scenario) prepare(t *testing.T, s storage.Store) {
	t.Helper()
	before := scenario{pushes: sc.before}
	if err := before.run(s, codec.None); err != nil {
		t.Fatal(err)
	}
	if sc.damage != nil {
		sc.damage(t, s)
	}
}

// crash lets the scenario fail at operation n and returns what is broken
// afterwards: behind the failure, and behind a rerun.
func (sc scenario) crash(t *testing.T, inner storagetest.Inner, n int, mode storagetest.Mode) error {
	t.Helper()
	sc.prepare(t, inner)
	faulty := storagetest.NewFaulty(inner)
	faulty.FailAt(n, mode)
	failure := sc.run(faulty, sc.codec)
	if failure != nil && !errors.Is(failure, storagetest.ErrInjected) {
		return fmt.Errorf("it failed by itself: %w", failure)
	}
	if failure == nil && mode == storagetest.Dead {
		for _, line := range faulty.Log()[n-1:] {
			if !strings.Contains(line, " run/leases/") { // all was done by then but to take the lease away
				return errors.New("it reports success, and was dead")
			}
		}
	}
	tags, err := plain{inner}.check()
	if err == nil && sc.damage == nil {
		err = plain{inner}.order()
	}
	if err != nil {
		return fmt.Errorf("after %v: %w\n%s", failure, err, strings.Join(faulty.Log(), "\n"))
	}
	if err := sc.expected(tags, failure == nil); err != nil {
		return fmt.Errorf("after %v: %w", failure, err)
	}
	if err := sc.run(inner, codec.None); err != nil {
		return fmt.Errorf("the rerun after %v: %w", failure, err)
	}
	tags, err = plain{inner}.check()
	if err == nil {
		err = plain{inner}.order()
	}
	if err != nil {
		return fmt.Errorf("after the rerun: %w", err)
	}
	if err := sc.expected(tags, true); err != nil {
		return fmt.Errorf("after the rerun: %w", err)
	}
	return sc.complete(inner)
}

// expected proves that a tag names what it named, or what it is to name; done says that it must.
func (sc scenario) expected(tags map[string]string, done bool) error {
	allowed := map[string][]string{}
	for _, p := range sc.before {
		if sc.damage == nil {
			allowed[tagKey(p.ref)] = []string{p.img.ID.Hex()}
		}
	}
	for _, p := range sc.pushes {
		if key := tagKey(p.ref); done || allowed[key] == nil {
			allowed[key] = []string{p.img.ID.Hex()}
			if !done {
				allowed[key] = append(allowed[key], "")
			}
		} else {
			allowed[key] = append(allowed[key], p.img.ID.Hex())
		}
	}
	for key, ids := range allowed {
		if !slices.Contains(ids, tags[key]) {
			return fmt.Errorf("%s names %q, not one of %q", key, tags[key], ids)
		}
	}
	if len(tags) > len(allowed) {
		return fmt.Errorf("there are tags that nobody wrote: %v", tags)
	}
	return nil
}

// complete proves that a push finds nothing to do.
func (sc scenario) complete(s storage.Store) error {
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote"})
	if err != nil {
		return err
	}
	for _, p := range slices.Concat(sc.before, sc.pushes) {
		missing, _, err := r.Missing(context.Background(), p.img.Closure())
		if err != nil {
			return err
		}
		if !missing.Empty() {
			return fmt.Errorf("%s lacks %v after the rerun", p.ref, missing)
		}
	}
	return nil
}

// matrix kills every operation of the scenarios in each of the modes.
func matrix(t *testing.T, all []scenario, modes []storagetest.Mode, store func(t *testing.T) storagetest.Inner, check func() error) {
	killed, violations := 0, 0
	for _, sc := range all {
		inner := store(t)
		sc.prepare(t, inner)
		count := storagetest.NewFaulty(inner)
		if err := sc.run(count, sc.codec); err != nil {
			t.Fatal(err)
		}
		ops := count.Ops()
		for n := 1; n <= ops; n++ {
			for _, mode := range modes {
				killed++
				err := sc.crash(t, store(t), n, mode)
				if err == nil {
					err = check()
				}
				if err != nil {
					if violations++; violations < 5 {
						t.Errorf("%s, operation %d of %d, %s: %v", sc.name, n, ops, mode, err)
					}
				}
			}
		}
		t.Logf("%s: %d operations", sc.name, ops)
	}
	t.Logf("%d operations killed, %d violations", killed, violations)
	if killed < 50 || violations > 0 {
		t.Errorf("%d operations killed, %d violations", killed, violations)
	}
}

// TestCrashMem kills all; with -short, in two modes of four.
func TestCrashMem(t *testing.T) {
	modes := storagetest.Modes
	if testing.Short() {
		modes = []storagetest.Mode{storagetest.Before, storagetest.Dead}
	}
	matrix(t, scenarios(t), modes, func(*testing.T) storagetest.Inner { return mem.New() }, func() error { return nil })
}

// TestCrashFile kills less: every operation of a directory waits for its disk.
func TestCrashFile(t *testing.T) {
	var dir string
	store := func(t *testing.T) storagetest.Inner {
		dir = t.TempDir()
		return openDir(t, dir)
	}
	leftovers := func() error {
		return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != dir && strings.HasPrefix(filepath.Base(path), ".") {
				err = fmt.Errorf("%s is left over", filepath.Base(path))
			}
			return err
		})
	}
	matrix(t, scenarios(t)[1:2], []storagetest.Mode{storagetest.Inside, storagetest.Dead}, store, leftovers)
}
