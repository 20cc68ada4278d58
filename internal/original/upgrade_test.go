package original_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
	"github.com/dogestry/dogestry/internal/transfer"
)

// upgrade is what the command does.
func upgrade(ctx context.Context, s storage.Store) (transfer.Copied, error) {
	r, err := repo.Open(ctx, s, repo.Options{Name: "the-remote", Codec: codec.LZ4})
	if err != nil {
		return transfer.Copied{}, err
	}
	tags, err := original.Find(ctx, r, nil)
	if err != nil {
		return transfer.Copied{}, err
	}
	var images []transfer.CopyImage
	for _, tag := range tags {
		images = append(images, transfer.CopyImage{Source: tag.Reference, Target: tag.Reference, Moves: tag.ID})
	}
	return transfer.Copy(ctx, sourceOn(r, original.Options{Parallel: 1}), r, images, transfer.CopyOptions{All: true, Options: transfer.Options{Parallel: 1}})
}

// smallIDs are the images of small, by the names of their tags' keys.
func smallIDs(t *testing.T) map[string]image.ID {
	t.Helper()
	s := mem.New()
	fill(t, s, small())
	source := sourceOn(open(t, s), original.Options{})
	ids := map[string]image.ID{}
	for key, ref := range map[string]string{"repositories/app/1": "app:1", "repositories/team/deep/app/2": "team/deep/app:2"} {
		id, err := source.Resolve(t.Context(), remotetest.Ref(t, ref))
		if err != nil {
			t.Fatal(err)
		}
		ids[key] = id
	}
	return ids
}

func keysOf(t testing.TB, s storage.Store, prefix string) (keys []string) {
	t.Helper()
	for info, err := range s.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// holds proves that both tags name their old images or their new ones, whole. Where
// done is set it is the new ones.
func holds(s storage.Store, ids map[string]image.ID, done bool) error {
	ctx := context.Background()
	r, err := repo.Open(ctx, s, repo.Options{Name: "the-remote"})
	if err != nil {
		return err
	}
	source := sourceOn(r, original.Options{})
	for key, id := range ids {
		ref, err := image.ParseReference(strings.Replace(strings.TrimPrefix(key, "repositories/"), "app/", "app:", 1))
		if err != nil {
			return err
		}
		img, err := remotetest.Pull(ctx, source, ref)
		if err != nil {
			return err
		}
		if img.ID != id {
			return fmt.Errorf("%s is %s, want %s", ref, img.ID.Short(), id.Short())
		}
		named, err := r.Resolve(ctx, ref)
		if err != nil {
			return err
		}
		if done && named != id {
			return fmt.Errorf("%s names its old image", ref)
		}
		if named == id { // also for who knows nothing of old ones
			if again, err := remotetest.Pull(ctx, r, ref); err != nil || again.Diff(img) != "" {
				return fmt.Errorf("%s as an image of today: %w, %s", ref, err, again.Diff(img))
			}
		}
	}
	return nil
}

// TestUpgrade: the tags name images of today, with the same files, the layers as
// lz4; the old entries are there until they are collected, and then gone.
func TestUpgrade(t *testing.T) {
	ids := smallIDs(t)
	s := mem.New()
	fill(t, s, small())
	old := keysOf(t, s, "images/")
	done, err := upgrade(t.Context(), s)
	if err != nil || len(done.Images) != 2 || len(done.Failed) > 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := holds(s, ids, true); err != nil {
		t.Error(err)
	}
	for key, id := range ids {
		if b, err := storage.Read(t.Context(), s, key, 100); err != nil || string(b) != id.Hex() {
			t.Errorf("%s: %q, %v", key, b, err)
		}
	}
	now := keysOf(t, s, "images/")
	for _, key := range old {
		if !slices.Contains(now, key) {
			t.Errorf("%s is gone", key)
		}
	}
	for _, key := range now {
		if strings.HasSuffix(key, "/layer.tar") && !slices.Contains(old, key) {
			t.Errorf("%s is stored as it is", key)
		}
	}
	if left := keysOf(t, s, "run/"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if again, err := upgrade(t.Context(), s); err != nil || len(again.Images) > 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	time.Sleep(time.Millisecond)
	c, err := open(t, s).Collect(t.Context(), repo.CollectOptions{Grace: time.Nanosecond})
	if err != nil || c.Freed.Count != 3 {
		t.Errorf("collected %+v, %v", c, err)
	}
	if err := holds(s, ids, true); err != nil {
		t.Error(err)
	}
	for _, key := range keysOf(t, s, "images/") {
		if slices.Contains(old, key) {
			t.Errorf("%s is left", key)
		}
	}
}

// TestUpgradeCrash kills an upgrade at each operation in each way, with -short at
// every fourth in two ways: no tag ever names what is not whole, and a rerun does the rest.
func TestUpgradeCrash(t *testing.T) {
	ids := smallIDs(t)
	prepared := func() *mem.Store {
		s := mem.New()
		fill(t, s, small())
		return s
	}
	count := storagetest.NewFaulty(prepared())
	if _, err := upgrade(t.Context(), count); err != nil {
		t.Fatal(err)
	}
	ops := count.Ops()
	modes, step := storagetest.Modes, 1
	if testing.Short() {
		step = 4
		modes = []storagetest.Mode{storagetest.After, storagetest.Dead}
	}
	killed, broken := 0, 0
	for n := 1; n <= ops; n += step {
		for _, mode := range modes {
			killed++
			if err := crash(t, prepared(), ids, n, mode); err != nil {
				if broken++; broken < 5 {
					t.Errorf("operation %d of %d, %s: %v", n, ops, mode, err)
				}
			}
		}
	}
	t.Logf("%d operations, %d kills, %d violations", ops, killed, broken)
	if ops < 50 {
		t.Errorf("%d operations: what was killed?", ops)
	}
}

func crash(t *testing.T, s *mem.Store, ids map[string]image.ID, n int, mode storagetest.Mode) error {
	faulty := storagetest.NewFaulty(s)
	faulty.FailAt(n, mode)
	_, failure := upgrade(t.Context(), faulty)
	if failure != nil && !errors.Is(failure, storagetest.ErrInjected) && !fault.Is(failure, fault.Partial) {
		return fmt.Errorf("it failed by itself: %w", failure)
	}
	if err := holds(s, ids, failure == nil); err != nil {
		return fmt.Errorf("after %v: %w", failure, err)
	}
	// Garbage collection in between loses nothing that a rerun needs.
	time.Sleep(100 * time.Microsecond)
	if _, err := open(t, s).Collect(t.Context(), repo.CollectOptions{Grace: time.Nanosecond}); err != nil {
		return fmt.Errorf("collecting after %v: %w", failure, err)
	}
	if err := holds(s, ids, false); err != nil {
		return fmt.Errorf("after %v and a collection: %w", failure, err)
	}
	if _, err := upgrade(t.Context(), s); err != nil {
		return fmt.Errorf("the rerun after %v: %w", failure, err)
	}
	return holds(s, ids, true)
}

// TestUpgradeRaces: a tag that somebody moves meanwhile stays, at whatever moment;
// two upgrades at once do the same.
func TestUpgradeRaces(t *testing.T) {
	ids := smallIDs(t)
	other := remotetest.NewImage(t, "other", remotetest.FileLayer(t, "o", "o"))
	s := mem.New()
	fill(t, s, small())
	count := storagetest.NewFaulty(s)
	if _, err := upgrade(t.Context(), count); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for n := 1; n <= count.Ops(); n++ {
		s := mem.New()
		fill(t, s, small())
		if _, err := remotetest.Push(t.Context(), open(t, s), remotetest.Ref(t, "other:1"), other); err != nil {
			t.Fatal(err)
		}
		at := &acting{Inner: s, at: n, act: func() {
			fill(t, s, originaltest.Repository{"repositories/app/1": []byte(other.ID.Hex())})
		}}
		done, err := upgrade(t.Context(), at)
		if err != nil && !fault.Is(err, fault.Partial) {
			t.Errorf("moved before operation %d: %v", n, err)
		}
		named, err := open(t, s).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
		if err != nil || at.acted && named != other.ID {
			t.Errorf("moved before operation %d, and then it names %s: %v", n, named.Short(), err)
		}
		for _, f := range done.Failed {
			moved++
			if !fault.Is(f.Err, fault.Refused) {
				t.Errorf("moved before operation %d: %v", n, f.Err)
			}
		}
	}
	if moved == 0 {
		t.Error("no upgrade met a tag that was moved")
	}

	s = mem.New()
	fill(t, s, small())
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := upgrade(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if err := holds(s, ids, true); err != nil {
		t.Error(err)
	}
}

// TestReadBesideUpgrade: an image that is upgraded, and of which a collection deletes
// all that is of format 1.0, at any moment of a copy, is copied all the same.
func TestReadBesideUpgrade(t *testing.T) {
	want := smallIDs(t)["repositories/app/1"]
	ref := remotetest.Ref(t, "app:1")
	for n := 1; ; n++ {
		s := mem.New()
		fill(t, s, small())
		at := &acting{Inner: s, at: n, act: func() {
			if _, err := upgrade(t.Context(), s); err != nil {
				t.Error(err)
			}
			for key := range small() {
				if !strings.HasPrefix(key, "images/") {
					continue
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		}}
		to := open(t, mem.New())
		source := sourceOn(open(t, at), original.Options{Parallel: 1})
		_, err := transfer.Copy(t.Context(), source, to, []transfer.CopyImage{{Source: ref, Target: ref}}, transfer.CopyOptions{Options: transfer.Options{Parallel: 1}})
		if err != nil {
			t.Errorf("before operation %d: %v", n, err)
		} else if got, err := to.Resolve(t.Context(), ref); err != nil || got != want {
			t.Errorf("before operation %d: %s, want %s: %v", n, got.Short(), want.Short(), err)
		}
		if !at.acted {
			if n < 10 {
				t.Errorf("a copy is %d operations", n)
			}
			return
		}
	}
}

// TestUpgradeBesideCollections lets a collection without a grace run at each moment
// of an upgrade: it takes nothing that the upgrade relies on, for that is leased, and
// nothing that a tag still needs.
func TestUpgradeBesideCollections(t *testing.T) {
	ids := smallIDs(t)
	mine := slices.Collect(maps.Keys(small()))
	leased := 0
	for n := 1; n <= 200; n++ {
		s := mem.New()
		fill(t, s, small())
		at := &acting{Inner: s, at: n, act: func() {
			time.Sleep(100 * time.Microsecond) // for what was just written to be older
			before := keysOf(t, s, "images/")
			c, err := open(t, s).Collect(context.Background(), repo.CollectOptions{Grace: time.Nanosecond})
			if err != nil {
				t.Errorf("collection before operation %d: %v", n, err)
				return
			}
			leased += c.Leased.Count
			after := keysOf(t, s, "images/")
			for _, key := range before {
				if !slices.Contains(mine, key) && !slices.Contains(after, key) && strings.HasSuffix(key, "/json") {
					t.Errorf("collection before operation %d: it takes %s", n, key)
				}
			}
		}}
		if _, err := upgrade(t.Context(), at); err != nil {
			t.Errorf("collection before operation %d: %v", n, err)
		}
		if err := holds(s, ids, true); err != nil {
			t.Errorf("collection before operation %d: %v", n, err)
		}
		if !at.acted {
			break
		}
	}
	if leased == 0 {
		t.Error("no collection met a lease")
	}
}

// TestUpgradeS3 upgrades a bucket on a real server.
func TestUpgradeS3(t *testing.T) {
	server := s3test.For(t)
	for _, v := range server.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	o, err := s3.Parse("s3://" + server.Bucket(t) + "/images?endpoint=" + url.QueryEscape(server.Endpoint))
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ids := smallIDs(t)
	fill(t, s, small())
	if err := holds(s, ids, false); err != nil {
		t.Error(err)
	}
	if done, err := upgrade(t.Context(), s); err != nil || len(done.Images) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := holds(s, ids, true); err != nil {
		t.Error(err)
	}
	if again, err := upgrade(t.Context(), s); err != nil || len(again.Images) > 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
}
