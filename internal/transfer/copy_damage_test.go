package transfer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func write(t testing.TB, s storage.Store, key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// TestCopyDamaged damages each object of the source in turn. What was damaged
// never comes to the target, an image that needs it is told by a Damaged fault
// that names it, and the others come.
func TestCopyDamaged(t *testing.T) {
	from := newStock(t)
	whole := objects(t, from.store)
	told := map[string]int{}
	for key, was := range whole {
		for how, damaged := range map[string]string{
			"flipped": flipped(was, len(was)/2), "flipped at its end": flipped(was, len(was)-1), "cut": was[:len(was)/2], "longer": was + "x", "removed": "",
		} {
			if key == "VERSION" || strings.HasSuffix(key, "/VERSION") || strings.HasSuffix(key, "/manifest") || strings.Contains(key, "/held-") || damaged == was {
				continue // whatever they say, the images are as they are
			}
			if how == "removed" {
				if err := from.store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, from.store, key, damaged)
			}
			what := fmt.Sprintf("%s is %s", key, how)
			to := mem.New()
			r := remoteOn(t, to, codec.LZ4)
			done, err := copyAll(t, from, r, CopyOptions{})
			listed := len(tagsOf(t, from))
			switch {
			case err == nil && len(done.Images) != listed, err != nil && len(done.Images)+len(done.Failed) != listed:
				t.Errorf("%s: of %d images %d came and %d failed: %v", what, listed, len(done.Images), len(done.Failed), err)
			case err != nil && !fault.Is(err, fault.Partial):
				t.Errorf("%s: %v, want a partial fault", what, err)
			}
			for _, f := range done.Failed {
				told[how]++
				if fault.KindOf(f.Err) != fault.Damaged && !strings.Contains(key, "repositories/") || !strings.Contains(f.Err.Error(), f.Image.String()) {
					t.Errorf("%s: %s: %v", what, f.Image, f.Err)
				}
				if _, err := r.Resolve(t.Context(), f.Image); !fault.Is(err, fault.NotFound) {
					t.Errorf("%s: %s has a tag: %v", what, f.Image, err)
				}
			}
			for key, got := range objects(t, to) {
				if got != whole[key] && !strings.HasPrefix(key, "repositories/") {
					t.Errorf("%s: and the target's %s is %.60q", what, key, got)
				}
			}
			isLayer := len(layerKeys([]string{key})) > 0
			if err == nil && (isLayer || strings.HasPrefix(key, "repositories/") && how == "cut") {
				t.Errorf("%s: nobody saw it", what)
			}
			write(t, from.store, key, was)
		}
	}
	t.Logf("told: %v", told)
	if len(told) != 5 || told["flipped"] < 20 {
		t.Errorf("too little was told: %v", told)
	}
}

func flipped(s string, at int) string {
	if len(s) == 0 {
		return s
	}
	b := []byte(s)
	b[at] ^= 1
	return string(b)
}

// TestCopyDamagedAlone: without --all the failure is the command's own, and names what the user named.
func TestCopyDamagedAlone(t *testing.T) {
	from := newStock(t)
	own := from.classic["team/app:1"].DiffIDs()[1]
	key := "images/" + own.Hex() + "/layer.tar"
	write(t, from.store, key, flipped(content(t, from.store, key), 700))
	done, err := Copy(t.Context(), from, remoteOn(t, mem.New(), codec.LZ4), copies(t, "app:1", "team/app:1", "app:2"), CopyOptions{})
	if fault.KindOf(err) != fault.Damaged || len(done.Images) != 1 {
		t.Errorf("%v, %d images", err, len(done.Images))
	}
	for _, want := range []string{"team/app:1", own.Short(), key, remoteName} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// TestCopyCompletes: a target that is torn is completed, and one that has lost part of an image meanwhile too.
func TestCopyCompletes(t *testing.T) {
	from := newStock(t)
	want := objects(t, from.store)
	for key, was := range want {
		if key == "VERSION" || strings.HasSuffix(key, "/VERSION") {
			continue
		}
		for how, damaged := range map[string]string{"removed": "", "cut": was[:len(was)/2]} {
			to := mem.New()
			for k, v := range want {
				write(t, to, k, v)
			}
			switch {
			case how == "removed":
				if err := to.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			case strings.HasPrefix(key, "repositories/"), damaged == was:
				continue // a damaged tag is refused below
			default:
				write(t, to, key, damaged)
			}
			if _, err := copyAll(t, from, remoteOn(t, to, codec.LZ4), CopyOptions{}); err != nil {
				t.Errorf("%s is %s at the target: %v", key, how, err)
			}
			sameObjects(t, want, objects(t, to))
		}
	}
}

// TestCopyVanishing: what goes away at the target between the layers and the tag is written again.
func TestCopyVanishing(t *testing.T) {
	from := newStock(t)
	for _, name := range []string{"app:1", blobbed, multi} {
		to := mem.New()
		lost := ""
		vanish := func(context.Context, image.ID) {
			for key := range objects(t, to) {
				if lost == "" && len(layerKeys([]string{key})) > 0 {
					lost = key
					if err := to.Delete(t.Context(), key); err != nil {
						t.Error(err)
					}
				}
			}
		}
		inner := remoteOn(t, to, codec.LZ4)
		r := &hookedTarget{hooked{Target: inner, beforeTag: vanish}, inner, inner}
		done, err := Copy(t.Context(), from, r, copies(t, name), CopyOptions{})
		if err != nil || lost == "" {
			t.Errorf("%s lost %q: %v", name, lost, err)
			continue
		}
		for _, l := range done.Images[0].Layers {
			if !l.Moved {
				t.Errorf("%s: layer %s did not move", name, l.Digest.Short())
			}
		}
		if _, err := Copy(t.Context(), inner, remoteOn(t, mem.New(), codec.LZ4), copies(t, name), CopyOptions{}); err != nil {
			t.Errorf("%s is not whole: %v", name, err)
		}
		// And one that goes away for ever.
		r.beforeTag = func(ctx context.Context, id image.ID) { lost = ""; vanish(ctx, id) }
		if _, err := Copy(t.Context(), from, r, copies(t, name), CopyOptions{To: "dst"}); fault.KindOf(err) != fault.Other || !strings.Contains(err.Error(), "keeps vanishing from dst") {
			t.Errorf("%s vanishes always: %v", name, err)
		}
	}
}

// hookedTarget is one that takes stored layers, and indexes.
type hookedTarget struct {
	hooked
	remote.StoredTarget
	remote.Holder
}

// TestCopyOnAFaultyStore fails operation N of a copy at the target in each way,
// for every N, without -every in one of the ways: no tag reaches an incomplete
// image, and a rerun completes and moves only the rest.
func TestCopyOnAFaultyStore(t *testing.T) {
	from := newStock(t)
	names := []string{"app:1", blobbed, multi, "aliased:1"}
	whole := mem.New()
	if _, err := Copy(t.Context(), from, remoteOn(t, whole, codec.LZ4), copies(t, names...), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	want := objects(t, whole)
	step, failed := len(storagetest.Modes), 0
	switch {
	case *every:
		step = 1
	case testing.Short():
		step = 10
	}
	for i, mode := range storagetest.Modes {
		n := 1 + i%step
		for ; ; n += step {
			store := mem.New()
			faulty := storagetest.NewFaulty(store)
			broken := remoteOn(t, faulty, codec.LZ4)
			ops := faulty.Ops()
			faulty.FailAt(ops+n, mode)
			_, err := Copy(t.Context(), from, broken, copies(t, names...), CopyOptions{Options: Options{Parallel: 1}})
			what := fmt.Sprintf("operation %d %s", n, mode)
			if err != nil {
				failed++
				if !errors.Is(err, storagetest.ErrInjected) || fault.KindOf(err) != fault.Other {
					t.Errorf("%s: error %v", what, err)
				}
			}
			r := remoteOn(t, store, codec.LZ4)
			tags := tagsOf(t, r)
			if err == nil && len(tags) != len(names) {
				t.Errorf("%s: no error, and the tags %q", what, tags)
			}
			for _, name := range tags { // each is whole
				if _, err := Copy(t.Context(), r, remoteOn(t, mem.New(), codec.LZ4), copies(t, name), CopyOptions{}); err != nil {
					t.Errorf("%s: %s: %v", what, name, err)
				}
			}
			there := slices.Collect(maps.Keys(objects(t, store)))
			second := &logbook{Store: store}
			if _, err := Copy(t.Context(), from, remoteOn(t, second, codec.LZ4), copies(t, names...), CopyOptions{}); err != nil {
				t.Errorf("%s: the rerun: %v", what, err)
			}
			sameObjects(t, want, objects(t, store))
			for _, key := range layerKeys(second.puts) {
				entry := key[:strings.LastIndexByte(key, '/')+1]
				if slices.Contains(there, key) && slices.Contains(there, entry+"json") && !strings.HasSuffix(key, "/blob") {
					t.Errorf("%s: the rerun moved %s again", what, key)
				}
			}
			if faulty.Ops()-ops < n { // there is no operation N any more
				break
			}
			if t.Failed() {
				t.Fatalf("%s: %q", what, faulty.Log())
			}
		}
		if n < 50 {
			t.Errorf("only %d operations were tried", n)
		}
	}
	t.Logf("%d copies failed", failed)
}

// TestCopyFromAFaultyStore: the same of the source.
func TestCopyFromAFaultyStore(t *testing.T) {
	from := newStock(t)
	names := []string{"app:1", multi, "aliased:1"}
	for _, mode := range storagetest.Modes {
		for n := 1; ; n++ {
			faulty := storagetest.NewFaulty(from.store)
			source := remoteOn(t, faulty, codec.LZ4)
			ops := faulty.Ops()
			faulty.FailAt(ops+n, mode)
			to := remoteOn(t, mem.New(), codec.LZ4)
			_, err := Copy(t.Context(), source, to, copies(t, names...), CopyOptions{})
			ended := faulty.Ops()-ops < n
			if (err == nil) != ended {
				t.Fatalf("operation %d %s: error %v: %q", n, mode, err, faulty.Log())
			}
			if ended {
				break
			}
			if !errors.Is(err, storagetest.ErrInjected) || fault.KindOf(err) != fault.Other {
				t.Errorf("operation %d %s: error %v", n, mode, err)
			}
			for _, name := range tagsOf(t, to) {
				if _, err := Copy(t.Context(), to, remoteOn(t, mem.New(), codec.LZ4), copies(t, name), CopyOptions{}); err != nil {
					t.Errorf("operation %d %s: %s: %v", n, mode, name, err)
				}
			}
		}
	}
}

// TestCopyInterrupted ends the context at each operation of the target, which is
// a directory, and of the source, and within the layers: it says so, leaves no
// temporary file, and a rerun completes.
func TestCopyInterrupted(t *testing.T) {
	from := newStock(t)
	big := remotetest.NewImage(t, "big", remotetest.Noise("big", 5<<20))
	from.push(t, remoteOn(t, from.store, codec.None), "big:1", big)
	try := func(side string, ops, bytes int64) (ended bool) {
		t.Helper()
		names := []string{"app:1", blobbed, multi}
		if bytes > 0 {
			names = append(names, "big:1")
		}
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tripped := false
		trip := func() { tripped = true; cancel() }
		var source remote.Source = from
		to := remoteIn(t, dir)
		if side == "target" {
			to = wired(t, dir, trip, ops, bytes)
		} else {
			w := &tripwire{Store: from.store, trip: trip}
			source = remoteOn(t, w, codec.LZ4)
			w.ops.Store(ops)
			w.bytes.Store(bytes)
		}
		leaks := goleak.IgnoreCurrent()
		_, err := Copy(ctx, source, to, copies(t, names...), CopyOptions{Options: Options{Parallel: 1}})
		if leak := remotetest.Leaks(leaks); leak != nil {
			t.Errorf("%s, operation %d, byte %d: %v", side, ops, bytes, leak)
		}
		noTemporary(t, dir)
		if !tripped {
			if err != nil {
				t.Errorf("%s: not interrupted: %v", side, err)
			}
			return true
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, operation %d, byte %d: error %v", side, ops, bytes, err)
		}
		fresh := remoteIn(t, dir)
		if tags := tagsOf(t, fresh); len(tags) == len(names) && side == "source" {
			t.Errorf("%s, operation %d, byte %d: all tags are there", side, ops, bytes)
		}
		if _, err := Copy(t.Context(), from, fresh, copies(t, names...), CopyOptions{}); err != nil {
			t.Errorf("%s, operation %d, byte %d: the rerun: %v", side, ops, bytes, err)
		}
		return false
	}
	step := int64(8) // `make crash` interrupts a copy at each of its operations
	switch {
	case *every:
		step = 1
	case testing.Short():
		step = 37
	}
	for _, side := range []string{"source", "target"} {
		n := int64(1)
		for ; !try(side, n, 0); n += step {
		}
		if n < 20 {
			t.Errorf("%s: only %d operations were tried", side, n)
		}
		for _, bytes := range []int64{20_000, 1 << 20, 4 << 20, 5 << 20} {
			if try(side, 0, bytes) {
				t.Errorf("%s: byte %d was never reached", side, bytes)
			}
		}
	}
}

// TestCopyAllInterrupted: cancelled is never success, with many images at once either.
func TestCopyAllInterrupted(t *testing.T) {
	from := newStock(t)
	for n := int64(1); n < 200; n += 7 {
		ctx, cancel := context.WithCancel(t.Context())
		w := &tripwire{Store: mem.New(), trip: cancel}
		to := remoteOn(t, w, codec.LZ4)
		w.ops.Store(n)
		images, err := AllOf(t.Context(), from, CopyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		done, err := Copy(ctx, from, to, images, CopyOptions{All: true})
		if ctx.Err() != nil && !errors.Is(err, context.Canceled) || len(done.Failed) > 0 {
			t.Errorf("operation %d: %v, %d failed", n, err, len(done.Failed))
		}
		cancel()
	}
}

// TestCopyDirectories: from directory to directory, the files are the same.
func TestCopyDirectories(t *testing.T) {
	from := newStock(t)
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for i, source := range []remote.Source{from, remoteIn(t, dirs[0])} {
		if _, err := copyAll(t, source, remoteIn(t, dirs[i]), CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		s, err := file.Open(dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		sameObjects(t, objects(t, from.store), objects(t, s))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		noTemporary(t, dirs[i])
	}
}

// TestCopyGolden: the images of the golden repository come as they are, all kinds
// of files in them; what no tag reaches and what is not the format's stays away.
func TestCopyGolden(t *testing.T) {
	golden, err := file.Open("../../testdata/golden/2.0")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	to := mem.New()
	done, err := copyAll(t, remoteOn(t, golden, codec.None), remoteOn(t, to, codec.None), CopyOptions{})
	if err != nil || len(done.Images) != 3 {
		t.Fatalf("%d images, %v", len(done.Images), err)
	}
	was, files := objects(t, golden), map[string]bool{}
	for key, got := range objects(t, to) {
		if want := was[key]; got != want && got != strings.TrimSuffix(want, "\n") {
			t.Errorf("%s is %.80q, want %.80q", key, got, want)
		}
		files[key[strings.LastIndexByte(key, '/')+1:]] = true
	}
	for _, name := range []string{"layer.tar", "layer.tar.lz4", "layer.tar.zst", "json", "manifest", "VERSION"} {
		if !files[name] {
			t.Errorf("no %s came", name)
		}
	}
	for key := range was {
		if _, ok := objects(t, to)[key]; !ok && (strings.HasSuffix(key, "/json") || strings.HasSuffix(key, "/manifest")) {
			t.Errorf("%s did not come", key)
		}
	}
}
