package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestBundleRoundTrip: a bundle of everything, unpacked by tar, is the very
// repository; so is a remote that has imported it, from a pipe and from a file.
// A second import writes nothing.
func TestBundleRoundTrip(t *testing.T) {
	from := newStock(t)
	sign(t, from, "app:1", "team/app:1")
	want := objects(t, from.store)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	unpacked, names := unpack(t, bundle)
	sameObjects(t, want, objects(t, unpacked))
	if names[0] != ".bundle" || names[1] != "VERSION" {
		t.Errorf("the first members are %q", names[:2])
	}
	inOrderOfNeed(t, names, objects(t, unpacked))
	read := map[string]int{} // by the second import
	for how, reader := range map[string]func() io.Reader{
		"pipe": func() io.Reader { return struct{ io.Reader }{bytes.NewReader(bundle)} },
		"file": func() io.Reader { return bytes.NewReader(bundle) },
	} {
		target := &logbook{Store: mem.New()}
		for round := range 2 {
			target.puts = nil
			source := &tally{r: reader()}
			var in io.Reader = source
			if how == "file" {
				in = &seeking{tally: source, s: source.r.(io.Seeker)}
			}
			done, err := importFrom(t, in, remoteOn(t, target, codec.None))
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			if len(done.Images) != 6 {
				t.Errorf("%s: %d images", how, len(done.Images))
			}
			if n := movedOf(done.Layers); (n == 0) != (round == 1) || round == 0 && n != len(done.Layers) {
				t.Errorf("%s, round %d: %d of %d layers moved", how, round, n, len(done.Layers))
			}
			written := slices.DeleteFunc(target.puts, func(key string) bool {
				return strings.HasPrefix(key, "run/leases/") || strings.HasPrefix(key, "signatures/")
			})
			if round == 1 && len(written) > 0 {
				t.Errorf("%s: %q was written again", how, written)
			}
			sameObjects(t, want, objects(t, target))
			read[how] = source.n
		}
	}
	if stored := storedIn(t, bundle); read["file"] > read["pipe"]-stored/2 {
		t.Errorf("of a file %d bytes were read for nothing, of a pipe %d; there are %d of layers", read["file"], read["pipe"], stored)
	}
}

// storedIn returns how many bytes of layers are in a bundle.
func storedIn(t *testing.T, bundle []byte) (n int) {
	t.Helper()
	for _, m := range members(t, bundle) {
		if len(layerKeys([]string{m.Name})) > 0 {
			n += len(m.content)
		}
	}
	return n
}

// TestBundleOfOne: each image alone is whole in a bundle, and nothing else is there.
func TestBundleOfOne(t *testing.T) {
	from := newStock(t)
	all := objects(t, from.store)
	for _, name := range tagsOf(t, from) {
		bundle := mustExport(t, from, nil, name)
		unpacked, _ := unpack(t, bundle)
		for key, content := range objects(t, unpacked) {
			if all[key] != content {
				t.Errorf("%s: %s is %.80q, want %.80q", name, key, content, all[key])
			}
		}
		target := mem.New()
		if _, err := importFrom(t, bytes.NewReader(bundle), remoteOn(t, target, codec.LZ4)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		sameObjects(t, objects(t, unpacked), objects(t, target))
		if tags := tagsOf(t, remoteOn(t, target, codec.LZ4)); !slices.Equal(tags, []string{name}) {
			t.Errorf("%s came as %q", name, tags)
		}
	}
}

// TestBundleSince: what is there already is left out, by whatever tells it, and a
// remote without it is refused before anything is written there.
func TestBundleSince(t *testing.T) {
	from := newStock(t)
	base := mem.New()
	if _, err := Copy(t.Context(), from, remoteOn(t, base, codec.None), copies(t, "app:1", blobbed), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	full := mustExport(t, from, nil, "app:1", blobbed)
	list, err := repo.ReadBundleList(bytes.NewReader(full), "full.tar")
	if err != nil {
		t.Fatal(err)
	}
	var alone bytes.Buffer
	if err := repo.WriteBundleList(&alone, list); err != nil {
		t.Fatal(err)
	}
	again, err := repo.ReadBundleList(&alone, "list")
	if err != nil {
		t.Fatal(err)
	}
	for how, since := range map[string]Since{
		"remote": SinceRemote(remoteOn(t, base, codec.None)), "bundle": SinceBundle(list), "list": SinceBundle(again),
	} {
		next := mustExport(t, from, since, "app:2", blobbed, multi, "aliased:1")
		_, names := unpack(t, next)
		if got := layerKeys(names); len(got) != 1+4 { // app:2's own one, and the platforms of the index
			t.Errorf("%s: the layers %q are in it", how, got)
		}
		empty := &logbook{Store: mem.New()}
		_, err := importFrom(t, bytes.NewReader(next), remoteOn(t, empty, codec.None))
		if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "which it leaves out, is missing there") {
			t.Errorf("%s: without its base: %v", how, err)
		}
		if written := slices.DeleteFunc(empty.puts, func(key string) bool { return strings.HasPrefix(key, "run/leases/") }); len(written) > 0 {
			t.Errorf("%s: %q was written", how, written)
		}
		target := mem.New()
		if _, err := importFrom(t, bytes.NewReader(full), remoteOn(t, target, codec.None)); err != nil {
			t.Fatal(err)
		}
		if _, err := importFrom(t, bytes.NewReader(next), remoteOn(t, target, codec.None)); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		for _, name := range []string{"app:2", multi, "aliased:1"} {
			if _, err := Copy(t.Context(), remoteOn(t, target, codec.None), remoteOn(t, mem.New(), codec.None), copies(t, name), CopyOptions{}); err != nil {
				t.Errorf("%s: %s is not whole: %v", how, name, err)
			}
		}
		// A later bundle can be made since this one: what that left out is there too.
		if list, err = repo.ReadBundleList(bytes.NewReader(next), "next.tar"); err != nil {
			t.Fatal(err)
		}
		if _, names := unpack(t, mustExport(t, from, SinceBundle(list), "app:2", blobbed, multi, "aliased:1")); len(layerKeys(names)) > 0 {
			t.Errorf("%s: since itself: %q", how, layerKeys(names))
		}
	}
}

// TestBundleSinceHalf: a compressed layer that is there by one of its names alone
// is in the bundle, and not relied on.
func TestBundleSinceHalf(t *testing.T) {
	from := newStock(t)
	plan, err := PlanExport(t.Context(), from, copies(t, blobbed), nil, CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packed := 0
	for _, l := range plan.Bundle.Layers {
		if len(l.Tars) == 0 {
			continue
		}
		packed++
		for _, known := range l.Digests() {
			since := func(context.Context, []image.Digest) (map[image.Digest]bool, error) {
				return map[image.Digest]bool{known: true}, nil
			}
			target := mem.New()
			if _, err := importFrom(t, bytes.NewReader(mustExport(t, from, since, blobbed)), remoteOn(t, target, codec.None)); err != nil {
				t.Errorf("%s known alone: %v", known.Short(), err)
			}
			wholeTags(t, "half", target)
		}
	}
	if packed != 2 {
		t.Errorf("%d compressed layers, want 2", packed)
	}
}

// TestBundleSinceTwice: a layer that is there by itself and in a blob, of which
// somebody has the first alone, is relied on, and not in the bundle besides.
func TestBundleSinceTwice(t *testing.T) {
	from := newStock(t)
	tar := layered("x", "blob-a").Layers()[0].Bytes()
	id := image.DigestOf(tar)
	r := remoteOn(t, from.store, codec.LZ4)
	if _, err := r.PutLayer(t.Context(), image.Descriptor{Digest: id, Size: int64(len(tar))}, bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	since := func(context.Context, []image.Digest) (map[image.Digest]bool, error) {
		return map[image.Digest]bool{id: true}, nil
	}
	plan, err := PlanExport(t.Context(), r, copies(t, "aliased:1", blobbed), since, CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(plan.Bundle.Without, id) || !plan.Bundle.Has()[id] || plan.There[id].Packed != (image.Digest{}) {
		t.Errorf("without %v, %+v", plan.Bundle.Without, plan.There[id])
	}
	bundle := mustExport(t, r, since, "aliased:1", blobbed)
	_, names := unpack(t, bundle)
	for _, key := range layerKeys(names) {
		if strings.Contains(key, id.Hex()) {
			t.Errorf("%s is in the bundle", key)
		}
	}
	target := mem.New()
	to := remoteOn(t, target, codec.LZ4)
	if _, err := to.PutLayer(t.Context(), image.Descriptor{Digest: id, Size: int64(len(tar))}, bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	if _, err := importFrom(t, bytes.NewReader(bundle), to); err != nil {
		t.Error(err)
	}
	wholeTags(t, "twice", target)
}

// TestBundleSinceOddSize: a layer beside which another size is noted is there, for
// who makes a bundle and for who imports it.
func TestBundleSinceOddSize(t *testing.T) {
	from := newStock(t)
	target := mem.New()
	to := remoteOn(t, target, codec.LZ4)
	if _, err := Copy(t.Context(), from, to, copies(t, "app:1"), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	odd := 0
	for key, was := range objects(t, target) {
		if at := strings.Index(was, `"storedSize":`); at >= 0 && strings.HasSuffix(key, "/json") { // of one who has pushed it at the same time
			write(t, target, key, was[:at]+`"storedSize":7}`+"\n")
			odd++
		}
	}
	bundle := mustExport(t, from, SinceRemote(to), "app:1", "app:2")
	b, err := repo.OpenBundle(bytes.NewReader(bundle), "in.tar")
	if err != nil {
		t.Fatal(err)
	}
	if odd == 0 || len(b.Bundle().Without) != odd {
		t.Errorf("%d layers are left out, of %d", len(b.Bundle().Without), odd)
	}
	if err := CheckBase(t.Context(), b.Bundle(), to, ImportOptions{}); err != nil {
		t.Errorf("asked before: %v", err)
	}
	if _, err := importFrom(t, bytes.NewReader(bundle), to); err != nil {
		t.Error(err)
	}
	wholeTags(t, "odd", target)
}

// TestBundleCut: of a bundle that ends anywhere no tag of an image comes that is
// not whole, what came stays, and the whole bundle completes it.
func TestBundleCut(t *testing.T) {
	from := newStock(t)
	want := objects(t, from.store)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	step := 3 * 512
	if testing.Short() {
		step = 15 * 512
	}
	last := len(bundle) - 2*512 - 512 // of the last tag; behind its content come zeros alone
	ends := []int{0, 1, 511, last - 1, last, last + 63}
	for n := 512; n < last; n += step {
		ends = append(ends, n, n+7)
	}
	for _, n := range ends {
		target := mem.New()
		_, err := importFrom(t, bytes.NewReader(bundle[:n]), remoteOn(t, target, codec.None))
		if !fault.Is(err, fault.Damaged) {
			t.Fatalf("cut at %d of %d: %v", n, len(bundle), err)
		}
		wholeTags(t, fmt.Sprintf("cut at %d", n), target)
		if n%5 > 0 {
			continue
		}
		if _, err := importFrom(t, bytes.NewReader(bundle), remoteOn(t, target, codec.None)); err != nil {
			t.Fatalf("again, after a cut at %d: %v", n, err)
		}
		sameObjects(t, want, objects(t, target))
	}
}

// TestBundleFlipped: a byte that is wrong anywhere never comes into a remote.
func TestBundleFlipped(t *testing.T) {
	from := newStock(t)
	want := objects(t, from.store)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	step := 997
	if testing.Short() {
		step = 4999
	}
	for n := 0; n < len(bundle); n += step {
		wrong := bytes.Clone(bundle)
		wrong[n] ^= 0x20
		target := mem.New()
		_, _ = importFrom(t, bytes.NewReader(wrong), remoteOn(t, target, codec.None)) // much of a tar means nothing
		wholeTags(t, fmt.Sprintf("flipped at %d", n), target)
		for key, content := range objects(t, target) {
			if strings.HasPrefix(key, "images/") && !strings.HasSuffix(key, "/json") && want[key] != content {
				t.Errorf("flipped at %d: %s is %.80q", n, key, content)
			}
		}
	}
}

// TestBundleTornStore: whatever operation of the target fails, no tag is torn, and
// the same import goes on.
func TestBundleTornStore(t *testing.T) {
	from := newStock(t)
	want := objects(t, from.store)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	broken := errors.New("broken")
	for n := 0; ; n++ {
		target := mem.New()
		faulty := &logbook{Store: target}
		var puts atomic.Int64
		faulty.beforePut = func(string) error {
			if puts.Add(1) > int64(n) { // as if it were killed there
				return broken
			}
			return nil
		}
		_, err := importFrom(t, bytes.NewReader(bundle), remoteOn(t, faulty, codec.None))
		if err == nil {
			break
		}
		wholeTags(t, fmt.Sprintf("put %d fails", n), target)
		if n%9 == 0 {
			if _, err := importFrom(t, bytes.NewReader(bundle), remoteOn(t, target, codec.None)); err != nil {
				t.Fatalf("again, after put %d: %v", n, err)
			}
			sameObjects(t, want, objects(t, target))
		}
	}
}

// TestExportDamaged: bytes that are wrong at the source make no bundle.
func TestExportDamaged(t *testing.T) {
	for _, how := range []string{"flipped", "cut", "gone"} {
		from := newStock(t)
		for _, key := range layerKeys(sortedKeys(objects(t, from.store))) {
			was := content(t, from.store, key)
			wrong := was[:len(was)-1] + "\xff"
			if how == "cut" {
				wrong = was[:len(was)/2]
			}
			var err error
			if how == "gone" {
				err = from.store.Delete(t.Context(), key)
			} else {
				err = from.store.Put(t.Context(), key, strings.NewReader(wrong))
			}
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = export(t, from, nil, &out, tagsOf(t, from)...)
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s %s: %v", key, how, err)
			}
			if _, err := importFrom(t, &out, remoteOn(t, mem.New(), codec.None)); !fault.Is(err, fault.Damaged) {
				t.Errorf("%s %s: what was written is taken: %v", key, how, err)
			}
			if err := from.store.Put(t.Context(), key, strings.NewReader(was)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestExportMovedTag: what was planned is exported, whatever a tag names meanwhile.
func TestExportMovedTag(t *testing.T) {
	from := newStock(t)
	plan, err := PlanExport(t.Context(), from, copies(t, "app:1"), nil, CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	was := plan.Bundle.Tags[0].ID
	other, err := from.Resolve(t.Context(), reference(t, "app:2"))
	if err == nil {
		err = from.Tag(t.Context(), reference(t, "app:1"), other)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	to, err := repo.NewBundle(&out, "out", plan.Bundle, plan.There)
	if err == nil {
		err = Export(t.Context(), from, to, plan, CopyOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	done, err := importFrom(t, &out, remoteOn(t, mem.New(), codec.None))
	if err != nil || done.Images[0].ID != was {
		t.Errorf("it came as %s, %v", done.Images[0].ID.Short(), err)
	}
}

// TestExportFullDisk: an output that fails is told, and makes no bundle.
func TestExportFullDisk(t *testing.T) {
	from := newStock(t)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	for n := 0; n < len(bundle); n += 1500 {
		err := export(t, from, nil, &full{left: n}, tagsOf(t, from)...)
		if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "cannot write the bundle out.tar") {
			t.Fatalf("full after %d bytes: %v", n, err)
		}
	}
}

// TestImportStops: an import whose context ends returns, and leaves no torn tag.
func TestImportStops(t *testing.T) {
	from := newStock(t)
	bundle := mustExport(t, from, nil, tagsOf(t, from)...)
	for n := 600; n < len(bundle); n += 5000 {
		ctx, cancel := context.WithCancel(t.Context())
		b, err := repo.OpenBundle(&stopping{bytes.NewReader(bundle), n, cancel}, "in.tar")
		if err == nil {
			target := mem.New()
			_, err = Import(ctx, b, remoteOn(t, target, codec.None), ImportOptions{From: "in.tar", To: "dst"})
			wholeTags(t, fmt.Sprintf("stopped at %d", n), target)
		}
		if ctx.Err() != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stopped at %d: %v", n, err)
		}
		cancel()
	}
}

// TestImportDryRun reads the list alone, and writes nothing.
func TestImportDryRun(t *testing.T) {
	from := newStock(t)
	bundle := mustExport(t, from, nil, "app:1", "app:2")
	first := len(pack(t, members(t, bundle)[:1])) // the list, and the end of a tar
	target := &logbook{Store: mem.New()}
	b, err := repo.OpenBundle(bytes.NewReader(bundle[:first]), "in.tar")
	if err != nil {
		t.Fatal(err)
	}
	done, err := Import(t.Context(), b, remoteOn(t, target, codec.None), ImportOptions{Options: Options{DryRun: true}})
	if err != nil || len(done.Images) != 2 || movedOf(done.Layers) != 3 || len(target.puts) > 0 {
		t.Errorf("%+v, %v; %q was written", done, err, target.puts)
	}
}

// TestImportIfAbsent: a tag that names another image stays, and nothing is written.
func TestImportIfAbsent(t *testing.T) {
	from := newStock(t)
	bundle := mustExport(t, from, nil, "app:1", "app:2")
	store := mem.New()
	target := remoteOn(t, store, codec.None)
	if _, err := Copy(t.Context(), from, target, []CopyImage{{Source: reference(t, "app:1"), Target: reference(t, "app:2")}}, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	was := objects(t, store)
	b, err := repo.OpenBundle(bytes.NewReader(bundle), "in.tar")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Import(t.Context(), b, target, ImportOptions{Options: Options{IfAbsent: true}}); !fault.Is(err, fault.Refused) {
		t.Errorf("%v, want a refused fault", err)
	}
	sameObjects(t, was, objects(t, store))
}
