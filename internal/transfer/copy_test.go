package transfer

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestCopyAll: the target of a copy of all has the very objects that the source
// has, and a second copy writes nothing and reads no layer.
func TestCopyAll(t *testing.T) {
	from := newStock(t)
	source, target := &logbook{Store: from.store}, &logbook{Store: mem.New()}
	for round, moves := range []int{11, 0} {
		source.gets, target.puts = nil, nil
		done, err := copyAll(t, remoteOn(t, source, codec.None), remoteOn(t, target, codec.None), CopyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(done.Images) != 6 || len(done.Failed) != 0 {
			t.Errorf("round %d: %d images, %d failed", round, len(done.Images), len(done.Failed))
		}
		if n := movedIn(done.Images); n != moves {
			t.Errorf("round %d: %d layers moved, want %d", round, n, moves)
		}
		if n := len(layerKeys(source.gets)); n != moves {
			t.Errorf("round %d: %d layers were read, want %d", round, n, moves)
		}
		written := slices.DeleteFunc(target.puts, func(key string) bool { return strings.HasPrefix(key, "run/leases/") })
		if moves == 0 && len(written) > 0 {
			t.Errorf("%q was written again", written)
		}
		sameObjects(t, objects(t, from.store), objects(t, target))
	}
	for name, img := range from.classic {
		got, err := remotetest.Pull(t.Context(), remoteOn(t, target, codec.None), reference(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := img.Diff(got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestCopyOne: each image alone, with all that it needs, under its own name and under another.
func TestCopyOne(t *testing.T) {
	from := newStock(t)
	for _, name := range tagsOf(t, from) {
		to := &logbook{Store: mem.New()}
		images := append(copies(t, name), CopyImage{Source: reference(t, name), Target: reference(t, "other/name:now")})
		done, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), images, CopyOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		id, err := from.Resolve(t.Context(), reference(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if done.Images[0].ID != id || done.Images[1].ID != id || done.Images[1].Image != "other/name:now" {
			t.Errorf("%s is %s and %s, want %s", name, done.Images[0].ID, done.Images[1].ID, id)
		}
		if n, _, _ := done.Images[1].Moved(); n > 0 {
			t.Errorf("%s: %d layers moved twice", name, n)
		}
		inOrder(t, name, to.puts[:slices.Index(to.puts, "repositories/"+strings.Replace(name, ":", "/", 1))+1], objects(t, to))
		all := objects(t, from.store)
		for key, content := range objects(t, to) {
			if !strings.HasPrefix(key, "repositories/") && all[key] != content {
				t.Errorf("%s: %s is %.80q, want %.80q", name, key, content, all[key])
			}
		}
		// Whole: it can be copied on.
		if _, err := Copy(t.Context(), remoteOn(t, to, codec.LZ4), remoteOn(t, mem.New(), codec.LZ4), copies(t, name), CopyOptions{}); err != nil {
			t.Errorf("%s cannot be copied on: %v", name, err)
		}
	}
}

// inOrder proves that layers came first, then documents, marks, and the tag.
func inOrder(t *testing.T, name string, puts []string, objects map[string]string) {
	t.Helper()
	const document, mark, tag = 1, 2, 3
	stage := 0
	for _, key := range puts {
		now := stage
		switch entry, file, _ := strings.Cut(strings.TrimPrefix(key, "images/"), "/"); {
		case strings.HasPrefix(key, "repositories/"):
			now = tag
		case strings.HasPrefix(file, "held-"):
			now = mark
		case file == "json" && image.DigestOf([]byte(objects[key])).Hex() == entry:
			now = document
		case len(layerKeys([]string{key})) > 0, file == "json":
			now = 0
		}
		if now < stage {
			t.Errorf("%s: %s was written late: %q", name, key, puts)
		}
		stage = now
	}
	if stage != tag {
		t.Errorf("%s: the tag was not last: %q", name, puts)
	}
}

// TestCopyDecoded: a target, or a source, that knows nothing of stored bytes gets
// the layers all the same.
func TestCopyDecoded(t *testing.T) {
	from := newStock(t)
	for what, sides := range map[string]func(r remote.Remote) (remote.Source, remote.Target){
		"target": func(r remote.Remote) (remote.Source, remote.Target) { return from, plainTarget{r, r.(remote.Holder)} },
		"source": func(r remote.Remote) (remote.Source, remote.Target) { return plainSource{from, from}, r },
	} {
		to := mem.New()
		r := remoteOn(t, to, codec.None)
		src, dst := sides(r)
		if _, err := copyAll(t, src, dst, CopyOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for name, img := range from.classic {
			got, err := remotetest.Pull(t.Context(), r, reference(t, name))
			if err != nil || img.Diff(got) != "" {
				t.Errorf("%s, %s: %v, %s", what, name, err, img.Diff(got))
			}
		}
		if got, want := tagsOf(t, r), tagsOf(t, from); !slices.Equal(got, want) {
			t.Errorf("%s: tags %q, want %q", what, got, want)
		}
		if encoded := slices.DeleteFunc(layerKeys(slices.Collect(maps.Keys(objects(t, to)))), func(k string) bool { return !strings.Contains(k, "layer.tar.") }); len(encoded) > 0 {
			t.Errorf("%s: %q was stored as it came", what, encoded)
		}
	}
}

type plainTarget struct {
	remote.Target
	remote.Holder
}

type plainSource struct {
	remote.Source
	remote.Holder
}

// TestCopyPlatforms: of an index all that the source has, or what was asked for.
func TestCopyPlatforms(t *testing.T) {
	from := newStock(t)
	id, err := from.Resolve(t.Context(), reference(t, multi))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what string
		o    Options
		held int // manifests at the target
		kind fault.Kind
	}{
		{what: "all", held: 3},
		{what: "arm64", o: Options{Platform: image.Platform{OS: "linux", Architecture: "arm64"}}, held: 1},
		{what: "amd64", o: Options{Platform: image.Platform{OS: "linux", Architecture: "amd64"}}, held: 2}, // and what attests it
		{what: "one that the source lacks", o: Options{Platform: image.Platform{OS: "linux", Architecture: "riscv64"}}, kind: fault.NotFound},
		{what: "all that there are", o: Options{AllPlatforms: true}, kind: fault.NotFound},
	} {
		to := mem.New()
		r := remoteOn(t, to, codec.LZ4)
		_, err := Copy(t.Context(), from, r, copies(t, multi), CopyOptions{Options: test.o, From: "src", To: "dst"})
		if test.kind != 0 {
			if !fault.Is(err, test.kind) || fault.AdviceOf(err) == "" || len(objects(t, to)) > 0 {
				t.Errorf("%s: %v, %d objects", test.what, err, len(objects(t, to)))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		held, err := r.Held(t.Context(), id)
		if err != nil || len(held) != test.held {
			t.Errorf("%s: %d manifests, %v, want %d", test.what, len(held), err, test.held)
		}
		if got, err := r.Resolve(t.Context(), reference(t, multi)); err != nil || got != id {
			t.Errorf("%s: the tag names %s, %v", test.what, got, err)
		}
		// What is there already stays, and the rest comes.
		if _, err := Copy(t.Context(), from, r, copies(t, multi), CopyOptions{}); err != nil {
			t.Errorf("%s, and then all: %v", test.what, err)
		}
		if held, err := r.Held(t.Context(), id); err != nil || len(held) != 3 {
			t.Errorf("%s, and then all: %d manifests, %v", test.what, len(held), err)
		}
	}
	arm := Options{Platform: image.Platform{OS: "linux", Architecture: "arm64"}}
	if _, err := Copy(t.Context(), from, remoteOn(t, mem.New(), codec.LZ4), copies(t, "app:1"), CopyOptions{Options: arm}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image of one platform: %v", err)
	}
}

// TestCopyIfAbsent: tags do not move, and nothing else does.
func TestCopyIfAbsent(t *testing.T) {
	from := newStock(t)
	to := mem.New()
	r := remoteOn(t, to, codec.LZ4)
	if _, err := Copy(t.Context(), from, r, []CopyImage{{Source: reference(t, "app:2"), Target: reference(t, "app:1")}}, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	before := objects(t, to)
	absent := CopyOptions{Options: Options{IfAbsent: true}}
	if _, err := Copy(t.Context(), from, r, copies(t, "team/app:1", "app:1"), absent); !fault.Is(err, fault.Refused) {
		t.Errorf("app:1 names another image: %v", err)
	}
	sameObjects(t, before, objects(t, to))
	done, err := copyAll(t, from, r, absent)
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Image.String() != "app:1" || !fault.Is(done.Failed[0].Err, fault.Refused) {
		t.Errorf("all: %v, %+v", err, done.Failed)
	}
	if got := objects(t, to)["repositories/app/1"]; got != before["repositories/app/1"] {
		t.Errorf("app:1 names %s", got)
	}
	if _, err := Copy(t.Context(), from, r, copies(t, "app:2"), absent); err != nil {
		t.Errorf("again: %v", err)
	}
	// A tag that comes while the layers are on their way stays.
	racing := &logbook{Store: mem.New()}
	inner := remoteOn(t, racing.Store, codec.LZ4)
	racing.beforePut = func(key string) error {
		if len(layerKeys([]string{key})) == 0 {
			return nil
		}
		_, err := remotetest.Push(t.Context(), inner, reference(t, "app:1"), from.classic["app:2"])
		return err
	}
	if _, err := Copy(t.Context(), from, remoteOn(t, creating{racing}, codec.LZ4), copies(t, "app:1"), absent); !fault.Is(err, fault.Refused) {
		t.Errorf("a tag that came meanwhile: %v", err)
	}
	if id, err := inner.Resolve(t.Context(), reference(t, "app:1")); err != nil || id != from.classic["app:2"].ID {
		t.Errorf("app:1 names %s, %v", id, err)
	}
	if _, err := Copy(t.Context(), from, plainTarget{r, r}, copies(t, "app:2"), absent); !fault.Is(err, fault.Refused) {
		t.Errorf("a target that cannot promise it: %v", err)
	}
}

// creating is a logbook on a store that can create.
type creating struct{ *logbook }

func (c creating) Create(ctx context.Context, key string, body io.Reader) error {
	return c.Store.(storage.Creator).Create(ctx, key, body)
}

// TestCopyDryRun says what would move, and changes nothing.
func TestCopyDryRun(t *testing.T) {
	from := newStock(t)
	to := &logbook{Store: mem.New()}
	r := remoteOn(t, to, codec.LZ4)
	source := &logbook{Store: from.store}
	dry := CopyOptions{Options: Options{DryRun: true}}
	done, err := copyAll(t, remoteOn(t, source, codec.LZ4), r, dry)
	if err != nil || movedIn(done.Images) != 11 {
		t.Errorf("%d layers would move, %v", movedIn(done.Images), err)
	}
	for _, img := range done.Images {
		for _, l := range img.Layers {
			if l.Size < 0 || l.Stored <= 0 || !img.DryRun {
				t.Errorf("%s: %+v", img.Image, l)
			}
		}
	}
	if len(to.puts) > 0 || len(layerKeys(source.gets)) > 0 {
		t.Errorf("written: %q, read: %q", to.puts, layerKeys(source.gets))
	}
	if _, err := Copy(t.Context(), from, r, copies(t, "app:1", "app:2"), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	done, err = Copy(t.Context(), from, r, copies(t, "app:1", "team/app:1"), dry)
	if err != nil || movedIn(done.Images) != 1 {
		t.Errorf("%d layers would move, %v", movedIn(done.Images), err)
	}
}

// TestCopyAtOnce: copies of the same, as it were by other processes, and with other ones that push.
func TestCopyAtOnce(t *testing.T) {
	from := newStock(t)
	for range 5 {
		to := mem.New()
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if i == 5 {
					for name, img := range from.classic {
						if _, err := remotetest.Push(t.Context(), remoteOn(t, to, codec.Zstd), reference(t, name), img); err != nil {
							t.Errorf("push %s: %v", name, err)
						}
					}
					return
				}
				if _, err := copyAll(t, from, remoteOn(t, to, codec.LZ4), CopyOptions{}); err != nil {
					t.Errorf("copy %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		r := remoteOn(t, to, codec.LZ4)
		for name, img := range from.classic {
			got, err := remotetest.Pull(t.Context(), r, reference(t, name))
			if err != nil || img.Diff(got) != "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := copyAll(t, r, remoteOn(t, mem.New(), codec.LZ4), CopyOptions{}); err != nil {
			t.Errorf("it cannot be copied on: %v", err)
		}
	}
}

// TestCopyMispacked: a compressed layer that is not what the config says is found
// out, and the image gets no tag.
func TestCopyMispacked(t *testing.T) {
	from := newStock(t)
	var l enginetest.Layout
	right, wrong := layered("x", "right"), layered("x", "wrong")
	blob := l.Image(wrong, enginetest.Gzip)
	manifest := strings.ReplaceAll(string(l.Blob(blob.Digest)), image.DigestOf(wrong.Config()).Hex(), image.DigestOf(right.Config()).Hex())
	id := image.DigestOf([]byte(manifest))
	from.node(t, &l, blob, "wrong:1")
	// The other way into a repository: the diffID is there as a layer of its own.
	from.push(t, from, "right:1", remotetest.NewImage(t, "right", right.Layers()[0].Bytes()))
	for _, doc := range [][]byte{right.Config(), []byte(manifest)} {
		if err := from.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Tag(t.Context(), reference(t, "mixed:1"), id); err != nil {
		t.Fatal(err)
	}
	for _, to := range []remote.Remote{remoteOn(t, mem.New(), codec.LZ4), layoutIn(t, t.TempDir())} {
		_, err := Copy(t.Context(), from, to, copies(t, "mixed:1"), CopyOptions{})
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "mixed:1") {
			t.Errorf("got %v", err)
		}
		if tags := tagsOf(t, to); len(tags) > 0 {
			t.Errorf("tags %q", tags)
		}
	}
}
