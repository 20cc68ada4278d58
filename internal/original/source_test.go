package original_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestMeasuredOnce: layers are read once to learn their diffIDs, by one command
// however many images share them, and by later commands not at all, until the
// object is another.
func TestMeasuredOnce(t *testing.T) {
	cache := t.TempDir()
	s := &reading{Store: mem.New()}
	fill(t, s, small())
	resolve := func(cache, key string, refs ...string) (opened int) {
		t.Helper()
		s.opened = nil
		source := sourceOn(open(t, s), original.Options{CacheDir: cache, Key: key})
		for _, ref := range refs {
			if _, err := source.Resolve(t.Context(), remotetest.Ref(t, ref)); err != nil {
				t.Fatal(err)
			}
		}
		return len(s.opened)
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d layers were read, want %d: %q", what, got, want, s.opened)
		}
	}
	want("one image", resolve(cache, "here", "app:1"), 2)
	want("one that shares its base, and the one before", resolve(cache, "here", "team/deep/app:2", "app:1", "team/deep/app:2"), 1)
	want("both again", resolve(cache, "here", "app:1", "team/deep/app:2"), 0)
	want("another remote", resolve(cache, "there", "app:1", "team/deep/app:2"), 3)
	want("without a cache", resolve("", "here", "app:1", "team/deep/app:2"), 3)

	time.Sleep(time.Millisecond)
	base := "images/" + originaltest.ID("base") + "/layer.tar.lz4"
	fill(t, s, originaltest.Repository{base: small()[base]})
	want("an object that was written again", resolve(cache, "here", "app:1"), 1)
	if err := s.Delete(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	fill(t, s, originaltest.Repository{"images/" + originaltest.ID("base") + "/layer.tar": originaltest.Tar("other=1")})
	want("another object", resolve(cache, "here", "app:1"), 1)

	// A memory that is damaged is none.
	err := filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var b []byte
			if b, err = os.ReadFile(path); err == nil {
				b[len(b)-5] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want("a damaged memory", resolve(cache, "here", "app:1"), 2)
	want("a new one", resolve(cache, "here", "app:1"), 0)
}

// TestMemoryIsNoProof: bytes are compared with the remembered diffID when they are used.
func TestMemoryIsNoProof(t *testing.T) {
	cache := t.TempDir()
	now := time.Now()
	s := mem.New()
	s.Now = func() time.Time { return now } // objects that are replaced look as old
	r := originaltest.Repository{}
	id := r.Add("", originaltest.Step{Name: "one", Layer: originaltest.Tar("one=1"), Plain: true})
	r.Tag("app/1", id)
	fill(t, s, r)
	source := sourceOn(open(t, versionless{s}), original.Options{CacheDir: cache, Key: "here"})
	if _, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, "app:1")); err != nil {
		t.Fatal(err)
	}
	fill(t, s, originaltest.Repository{"images/" + id + "/layer.tar": originaltest.Tar("one=2")})
	source = sourceOn(open(t, versionless{s}), original.Options{CacheDir: cache, Key: "here"})
	_, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "images/"+id+"/layer.tar") {
		t.Errorf("other bytes behind the same time and size: %v", err)
	}
}

// TestWarning: one for each image, and none for others.
func TestWarning(t *testing.T) {
	s := mem.New()
	fill(t, s, small())
	r := open(t, s)
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "today:1"), remotetest.NewImage(t, "today")); err != nil {
		t.Fatal(err)
	}
	var warned []string
	source := sourceOn(r, original.Options{Warn: func(line string) { warned = append(warned, line) }})
	for _, ref := range []string{"app:1", "today:1", "app:1", "team/deep/app:2"} {
		if _, err := source.Resolve(t.Context(), remotetest.Ref(t, ref)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(ref string) string {
		return ref + " in the-remote is of format 1.0, by the original dogestry: nothing proves that its bytes are what was pushed"
	}
	if !slices.Equal(warned, []string{want("app:1"), want("team/deep/app:2")}) {
		t.Errorf("warnings %q", warned)
	}
}

// TestSourceOfToday: what is of today goes through as it is, beside what is not.
func TestSourceOfToday(t *testing.T) {
	s := mem.New()
	fill(t, s, small())
	r := open(t, s)
	img := remotetest.NewImage(t, "today", remotetest.FileLayer(t, "a", "a"))
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "today:1"), img); err != nil {
		t.Fatal(err)
	}
	source := sourceOn(r, original.Options{})
	old, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := source.Look(t.Context(), remote.Closure{
		Documents: []image.Digest{img.ID, old.ID, {1}}, Layers: slices.Concat(img.DiffIDs(), old.DiffIDs(), []image.Digest{{2}}),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := found.Documents[img.ID]; !ok || len(found.Documents) != 2 || len(found.Layers) != 3 || len(found.Torn) != 1 {
		t.Errorf("found %+v", found)
	}
	for _, c := range []struct {
		id  image.DiffID
		old bool
	}{{img.DiffIDs()[0], false}, {old.DiffIDs()[0], true}} {
		stored, err := source.OpenStored(t.Context(), found.Layers[c.id])
		if errors.Is(err, errors.ErrUnsupported) != c.old {
			t.Errorf("%s as it is stored: %v", c.id.Short(), err)
		}
		if err == nil {
			stored.Body.Close()
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sourceOn(r, original.Options{}).Resolve(ended, remotetest.Ref(t, "app:1")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFind: all tags on images of that format, or those that are asked for.
func TestFind(t *testing.T) {
	s := mem.New()
	fill(t, s, small())
	r := open(t, s)
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "today:1"), remotetest.NewImage(t, "today")); err != nil {
		t.Fatal(err)
	}
	fill(t, s, originaltest.Repository{"repositories/damaged/1": []byte("damaged"), "repositories/gone/1": []byte(strings.Repeat("1", 64))})
	one, two := "app:1 "+originaltest.ID("one"), "team/deep/app:2 "+originaltest.ID("two")
	for _, c := range []struct {
		refs []string
		want []string
		kind fault.Kind
	}{
		{nil, []string{one, two}, 0},
		{[]string{"today:1", "team/deep/app:2", "team/deep/app:2"}, []string{two}, 0},
		{[]string{"app:1", "app:9"}, nil, fault.NotFound},
		{[]string{"damaged:1"}, nil, fault.Damaged},
	} {
		var refs []image.Reference
		for _, ref := range c.refs {
			refs = append(refs, remotetest.Ref(t, ref))
		}
		found, err := original.Find(t.Context(), r, refs)
		var got []string
		for _, n := range found {
			got = append(got, fmt.Sprintf("%s %s", n.Reference, n.ID.Hex()))
		}
		if !slices.Equal(got, c.want) || c.kind == 0 && err != nil || c.kind != 0 && !fault.Is(err, c.kind) {
			t.Errorf("of %q: %q, %v; want %q", c.refs, got, err, c.want)
		}
	}
}

// TestThrowaway: an entry that was thrown away has no layer, also where a file is
// there, and its history says so; what it is marked by is not in the config.
func TestThrowaway(t *testing.T) {
	r := originaltest.Repository{}
	base := r.Add("", originaltest.Step{Name: "base", Layer: originaltest.Tar("base=1")})
	r.Tag("app/1", r.Add(base, originaltest.Step{Name: "top", Layer: originaltest.Tar("top=1"), Members: map[string]any{"throwaway": true, "docker_version": "1.9.0"}}))
	s := mem.New()
	fill(t, s, r)
	img, err := remotetest.Pull(t.Context(), sourceOn(open(t, s), original.Options{}), remotetest.Ref(t, "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ParseConfig(img.Config)
	if err != nil || len(config.DiffIDs) != 1 || len(config.History) != 2 || config.History[0].EmptyLayer || !config.History[1].EmptyLayer {
		t.Errorf("%s: %v", img.Config, err)
	}
	if strings.Contains(string(img.Config), "throwaway") {
		t.Errorf("it is told in %s", img.Config)
	}
}
