package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

// copyOf is a remote with the same objects, undamaged.
func (w *world) copyOf(t testing.TB) *mem.Store {
	t.Helper()
	store := mem.New()
	for key, content := range w.objects {
		put(t, store, key, content)
	}
	return store
}

func (w *world) repairFrom(t testing.TB, source storage.Store) *verify.Report {
	t.Helper()
	return w.verify(t, verify.Options{Mender: &verify.Copier{From: open(t, source, codec.LZ4), To: w.repo(t)}})
}

// damages are ways to damage an object.
func (w *world) damages(t testing.TB, key string) map[string]func() {
	content := w.objects[key]
	flipped := bytes.Clone(content)
	if len(content) > 0 {
		flipped[len(content)/2] ^= 0x10
	}
	return map[string]func(){
		"removed": func() { remove(t, w.store, key) },
		"cut":     func() { put(t, w.store, key, content[:len(content)/2]) },
		"flipped": func() { put(t, w.store, key, flipped) },
		"emptied": func() { put(t, w.store, key, nil) },
		"garbage": func() { put(t, w.store, key, []byte("garbage")) },
		"a lie":   func() { put(t, w.store, key, bytes.Replace(content, []byte(`"size":`), []byte(`"size":1`), 1)) },
	}
}

// TestRepair damages every object in every way and mends it from a copy. What
// was found is repaired, is whole when it is read again, and no tag has moved.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	source := w.copyOf(t)
	repaired := map[string]int{}
	for _, key := range w.keys() {
		if key == "VERSION" || strings.HasPrefix(key, "repositories/") || strings.Contains(key, "held-") {
			continue
		}
		for how, damage := range w.damages(t, key) {
			damage()
			report := w.repairFrom(t, source)
			if report.Left() > 0 || report.Stopped != nil {
				t.Errorf("%s is %s, and not repaired: %s", key, how, findings(report))
			}
			repaired[path.Base(key)] += len(report.Findings)
			expect(t, key+" was "+how, w.verify(t, verify.Options{}))
			if err := w.pull(t); err != nil {
				t.Errorf("%s was %s and is repaired: %v", key, how, err)
			}
			for tag, id := range w.objects {
				if strings.HasPrefix(tag, "repositories/") && !bytes.Equal(tree(t, w.store)[tag], id) {
					t.Errorf("%s was %s: the repair moves %s", key, how, tag)
				}
			}
			w.restore(t)
		}
	}
	t.Logf("repaired: %v", repaired)
	for _, kind := range []string{"json", "manifest", "blob", "layer.tar.lz4", "layer.tar.zst", "layer.tar"} {
		if repaired[kind] == 0 {
			t.Errorf("no object %s was repaired", kind)
		}
	}
}

// TestRepairAll repairs a remote of which nothing is left but its tags, and one
// whose every entry is damaged at once.
func TestRepairAll(t *testing.T) {
	w := newWorld(t)
	source := w.copyOf(t)
	for key := range w.objects {
		if strings.HasPrefix(key, "images/") && !strings.Contains(key, "held-") {
			remove(t, w.store, key)
		}
	}
	report := w.repairFrom(t, source)
	if report.Left() > 0 || len(report.Findings) < 12 {
		t.Errorf("%d findings, %d left:\n%s", len(report.Findings), report.Left(), findings(report))
	}
	if err := w.pull(t); err != nil {
		t.Error(err)
	}
	if report.Unreferenced == nil || report.Unreferenced.Entries != 0 {
		t.Errorf("no tag reaches %+v", report.Unreferenced)
	}

	w.restore(t)
	for key, content := range w.objects {
		if strings.HasPrefix(key, "images/") && len(content) > 0 && path.Base(key) != "VERSION" {
			put(t, w.store, key, content[:len(content)/2])
		}
	}
	if report := w.repairFrom(t, source); report.Left() > 0 || report.Unreferenced == nil {
		t.Errorf("left:\n%s", findings(report))
	}
	if err := w.pull(t); err != nil {
		t.Error(err)
	}
}

// TestRepairPointer: a pointer is judged once the layers that it follows from are repaired.
func TestRepairPointer(t *testing.T) {
	w := newWorld(t)
	layer, pointer := fileOf(w.two.DiffIDs()[1], "layer.tar"), fileOf(w.two.ID, "manifest")
	put(t, w.store, layer, []byte("x"))
	put(t, w.store, pointer, []byte("x"))
	expect(t, "not repaired", w.verify(t, verify.Options{}), "truncated "+layer+" [app:2]")
	report := w.repairFrom(t, w.copyOf(t))
	expect(t, "repaired", report, "truncated "+layer+" [app:2]", "manifest "+pointer+" [app:2]")
	if report.Left() > 0 || !bytes.Equal(tree(t, w.store)[pointer], w.objects[pointer]) {
		t.Errorf("left: %s", findings(report))
	}
	// Where not all of them are read, nothing is made of their sizes.
	put(t, w.store, pointer, []byte("x"))
	report = w.verify(t, verify.Options{Part: verify.Part{Number: 1000, Of: 1000}, Mender: &verify.Copier{From: open(t, w.copyOf(t), 0), To: w.repo(t)}})
	if report.Left() != 1 || report.Findings[0].Failure == "" || string(tree(t, w.store)[pointer]) != "x" {
		t.Errorf("a part: %s", findings(report))
	}
}

// liar is a Mender that does nothing and says that all is well.
type liar struct{}

func (liar) Mend(context.Context, remote.Loss) error { return nil }

// TestNothingMended: what was not proved is not repaired, whatever the Mender says.
func TestNothingMended(t *testing.T) {
	w := newWorld(t)
	for _, key := range w.keys() {
		if !strings.HasPrefix(key, "images/") || strings.Contains(key, "held-") || w.isManifest(key) || path.Base(key) == "manifest" {
			continue
		}
		for how, damage := range w.damages(t, key) {
			damage()
			found := w.verify(t, verify.Options{})
			report := w.verify(t, verify.Options{Mender: liar{}})
			if report.Left() != len(found.Findings) || len(report.Findings) != len(found.Findings) {
				t.Errorf("%s is %s: %s", key, how, findings(report))
			}
			for _, f := range report.Findings {
				if f.Failure == "" {
					t.Errorf("%s is %s, and no failure told: %s", key, how, findings(report))
				}
			}
			w.restore(t)
		}
	}
}

// TestHidden: what a repaired document names is found then, and is told as what it is.
func TestHidden(t *testing.T) {
	w := newWorld(t)
	id := w.putIndex(t, w.one.ID, w.here[0])
	put(t, w.store, fileOf(id, "held-"+w.one.ID.Hex()), nil)
	put(t, w.store, fileOf(id, "held-"+w.here[0].Hex()), nil)
	put(t, w.store, "repositories/odd/1", []byte(id.Hex()))
	w.objects = tree(t, w.store)
	remove(t, w.store, fileOf(id, "json"))
	report := w.repairFrom(t, w.copyOf(t))
	expect(t, "an index that was gone and is wrong", report, "missing "+fileOf(id, "json")+" [odd:1]", "kind "+fileOf(w.one.ID, "json")+" [odd:1]")
	for _, f := range report.Findings {
		if f.Repaired != (f.Problem == verify.Missing) || f.Failure != "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestRepairPart repairs what is missing of all parts, and proves it.
func TestRepairPart(t *testing.T) {
	w := newWorld(t)
	for n := range 3 {
		for _, id := range w.one.DiffIDs() {
			remove(t, w.store, fileOf(id, "json"))
		}
		report := w.verify(t, verify.Options{
			Part:   verify.Part{Number: n + 1, Of: 3},
			Mender: &verify.Copier{From: open(t, w.copyOf(t), codec.LZ4), To: w.repo(t)},
		})
		if report.Left() > 0 || len(report.Findings) != 3 || report.Layers < 3 {
			t.Errorf("part %d: %d layers, %s", n+1, report.Layers, findings(report))
		}
		w.restore(t)
	}
}

// TestMarks writes again which platforms of an index are here.
func TestMarks(t *testing.T) {
	w := newWorld(t)
	for _, id := range w.here {
		remove(t, w.store, fileOf(w.index, "held-"+id.Hex()))
	}
	report := w.repairFrom(t, w.copyOf(t))
	if len(report.Findings) != 1 || !report.Findings[0].Repaired || report.Findings[0].Problem != verify.Unmarked {
		t.Errorf("found %s", findings(report))
	}
	held, err := w.repo(t).Held(t.Context(), w.index)
	if err != nil || len(held) != 2 {
		t.Errorf("held: %v, %v", held, err)
	}
	// A source that has none of them either.
	w.restore(t)
	for _, id := range w.here {
		remove(t, w.store, fileOf(w.index, "held-"+id.Hex()))
	}
	if report := w.repairFrom(t, mem.New()); report.Left() != 1 || report.Findings[0].Failure == "" {
		t.Errorf("found %s", findings(report))
	}
}

// TestRepairOtherCodec repairs layers from a remote that has them stored otherwise,
// and those that lie in a blob from one that has their tars alone.
func TestRepairOtherCodec(t *testing.T) {
	w := newWorld(t)
	source := mem.New()
	for ref, img := range map[string]remotetest.Image{"a:1": w.one, "a:2": w.two, "a:3": w.packed} {
		if _, err := remotetest.Push(t.Context(), open(t, source, codec.Zstd), remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	put(t, w.store, fileOf(w.one.DiffIDs()[0], "layer.tar.lz4"), []byte("x"))
	put(t, w.store, fileOf(w.one.DiffIDs()[1], "layer.tar.zst"), []byte("x"))
	if report := w.repairFrom(t, source); report.Left() > 0 || len(report.Findings) != 2 {
		t.Errorf("found %s", findings(report))
	}
	// A manifest needs its blob as it was.
	put(t, w.store, fileOf(w.blobs[0].Digest, "blob"), []byte("x"))
	if report := w.repairFrom(t, source); report.Left() != 1 || !strings.Contains(report.Findings[0].Failure, "the other remote cannot give it") {
		t.Errorf("found %s", findings(report))
	}
	// A classic image that was never pushed as such finds its layer in the blob; its tar does as well.
	w.tag(t, "classic:1", w.packed.ID)
	remove(t, w.store, "repositories/blobs/1")
	report := w.repairFrom(t, source)
	if report.Left() > 0 || len(report.Findings) != 1 {
		t.Errorf("found %s", findings(report))
	}
	got, err := remotetest.Pull(t.Context(), w.repo(t), remotetest.Ref(t, "classic:1"))
	if diff := w.packed.Diff(got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

// TestDamagedSource proves that a source with the same damage, or with nothing,
// changes nothing.
func TestDamagedSource(t *testing.T) {
	w := newWorld(t)
	for _, key := range w.keys() {
		if !strings.HasPrefix(key, "images/") || strings.Contains(key, "held-") || bytes.Contains(w.objects[key], []byte(`"blob":"sha256:`)) {
			continue // an alias follows from its blob
		}
		for _, how := range []string{"flipped", "cut", "removed"} {
			w.damages(t, key)[how]()
			before := tree(t, w.store)
			if path.Base(key) == "manifest" || w.isManifest(key) {
				w.restore(t)
				continue // follows from what is there
			}
			found := w.verify(t, verify.Options{}).Findings
			source := mem.New()
			for k, content := range before {
				put(t, source, k, content)
			}
			report := w.repairFrom(t, source)
			if report.Left() != len(found) || len(report.Findings) != len(found) {
				t.Errorf("%s is %s here and there:\n%s", key, how, findings(report))
			}
			for _, f := range report.Findings {
				if f.Failure == "" {
					t.Errorf("%s is %s here and there, and no reason told: %s", key, how, findings(report))
				}
			}
			after := tree(t, w.store)
			for k, content := range before {
				if !bytes.Equal(after[k], content) {
					t.Errorf("%s is %s here and there: the repair changes %s", key, how, k)
				}
			}
			if len(after) != len(before) {
				t.Errorf("%s is %s here and there: the repair adds objects", key, how)
			}
			w.restore(t)
		}
	}
}

// TestRepairRefused ends where the remote cannot be written.
func TestRepairRefused(t *testing.T) {
	w := newWorld(t)
	source := w.copyOf(t)
	remove(t, w.store, fileOf(w.one.DiffIDs()[0], "layer.tar.lz4"))
	remove(t, w.store, fileOf(w.packed.ID, "json"))
	locked := &readOnly{Store: w.store}
	r := open(t, locked, codec.LZ4)
	report, err := verify.Run(t.Context(), r, verify.Options{Mender: &verify.Copier{From: open(t, source, codec.LZ4), To: r}})
	if err != nil || report.Left() != 2 || !fault.Is(report.Stopped, fault.Refused) {
		t.Errorf("%v, stopped by %v, found\n%s", err, report.Stopped, findings(report))
	}
	if n := locked.puts.Load(); n > 2 {
		t.Errorf("%d tries to write", n)
	}
}

type readOnly struct {
	storage.Store
	puts atomic.Int64
}

func (s *readOnly) Put(_ context.Context, _ string, body io.Reader) error {
	s.puts.Add(1)
	return storage.ErrPermission
}

// TestRepairInterrupted stops a repair at each of its writes, and runs it again.
func TestRepairInterrupted(t *testing.T) {
	w := newWorld(t)
	source := w.copyOf(t)
	tear := func() {
		for key := range w.objects {
			if strings.HasPrefix(key, "images/") && !strings.Contains(key, "held-") {
				remove(t, w.store, key)
			}
		}
	}
	for n := 1; ; n++ {
		tear()
		ctx, cancel := context.WithCancel(t.Context())
		r := open(t, &puts{Store: w.store, at: n, do: cancel}, codec.LZ4)
		_, err := verify.Run(ctx, r, verify.Options{Mender: &verify.Copier{From: open(t, source, codec.LZ4), To: r}})
		ended := ctx.Err() != nil
		cancel()
		if !ended {
			if n < 20 {
				t.Errorf("only %d writes", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at Put %d: %v", n, err)
		}
		if n%5 == 0 {
			if report := w.repairFrom(t, source); report.Left() > 0 {
				t.Errorf("again after Put %d: %s", n, findings(report))
			}
		}
	}
}

type puts struct {
	storage.Store
	n, at int
	do    func()
}

func (p *puts) Put(ctx context.Context, key string, body io.Reader) error {
	if p.n++; p.n == p.at {
		p.do()
	}
	return p.Store.Put(ctx, key, body)
}

// TestParallelFindings has much damage found at once.
func TestParallelFindings(t *testing.T) {
	w := newWorld(t)
	var images []remotetest.Image
	for i := range 40 {
		img := remotetest.NewImage(t, "many", w.one.Layers[0], remotetest.Noise(string(rune('a'+i)), 5000))
		if _, err := remotetest.Push(t.Context(), w.repo(t), image.Reference{Repository: "many", Tag: string(rune('A'+i%26)) + string(rune('A'+i/26))}, img); err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	source := mem.New()
	for key, content := range tree(t, w.store) {
		put(t, source, key, content)
	}
	for _, img := range images {
		put(t, w.store, fileOf(img.DiffIDs()[1], "layer.tar.lz4"), []byte("x"))
	}
	put(t, w.store, fileOf(w.one.DiffIDs()[0], "layer.tar.lz4"), []byte("x"))
	report := w.verify(t, verify.Options{Parallel: 8})
	if len(report.Findings) != 41 {
		t.Errorf("%d findings", len(report.Findings))
	}
	for _, f := range report.Findings {
		if f.Object == fileOf(w.one.DiffIDs()[0], "layer.tar.lz4") && len(f.Images) != 43 {
			t.Errorf("the shared layer is needed by %v", f.Images)
		}
	}
	if report := w.repairFrom(t, source); report.Left() > 0 || len(report.Findings) != 41 {
		t.Errorf("left:\n%s", findings(report))
	}
}

var _ verify.Mender = (*verify.Copier)(nil)
