package verify_test

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/verify"
)

func TestWhole(t *testing.T) {
	w := newWorld(t)
	var entries []remote.Entry
	report := w.verify(t, verify.Options{Unreferenced: func(e remote.Entry) { entries = append(entries, e) }})
	expect(t, "a whole remote", report)
	// Documents: two configs, a manifest and its config, an index, its two manifests and their configs.
	// Layers: four of the two images, a blob, a blob of the index, an attestation.
	if report.Images != 4 || report.Documents != 9 || report.Layers != 7 {
		t.Errorf("%d images, %d documents, %d layers", report.Images, report.Documents, report.Layers)
	}
	if report.Unreferenced == nil || report.Unreferenced.Entries != 0 || len(entries) > 0 {
		t.Errorf("no tag reaches %+v, %v", report.Unreferenced, entries)
	}
	if report.Bytes < 1000 {
		t.Errorf("%d bytes", report.Bytes)
	}

	// What a removed tag named alone, its synthesised manifest with it.
	remove(t, w.store, "repositories/app/2")
	report = w.verify(t, verify.Options{Unreferenced: func(e remote.Entry) { entries = append(entries, e) }})
	expect(t, "a removed tag", report)
	want := []image.Digest{w.two.ID, w.two.DiffIDs()[1], image.DigestOf(w.two.Manifest())}
	var got []image.Digest
	for _, e := range entries {
		got = append(got, e.ID)
	}
	slices.SortFunc(want, func(a, b image.Digest) int { return bytes.Compare(a[:], b[:]) })
	if !slices.Equal(got, want) || report.Unreferenced.Entries != 3 || report.Unreferenced.Bytes < 500 {
		t.Errorf("no tag reaches %v, %+v; want %v", got, report.Unreferenced, want)
	}

	// Damage of a layer does not make the manifest of its image unreferenced; that of a document hides what is.
	put(t, w.store, fileOf(w.one.DiffIDs()[1], "layer.tar.zst"), []byte("x"))
	if report = w.verify(t, verify.Options{}); report.Unreferenced == nil || report.Unreferenced.Entries != 3 {
		t.Errorf("with a damaged layer no tag reaches %+v", report.Unreferenced)
	}
	put(t, w.store, fileOf(w.one.ID, "json"), []byte("x"))
	if report = w.verify(t, verify.Options{}); report.Unreferenced != nil {
		t.Errorf("with a damaged config no tag reaches %+v", report.Unreferenced)
	}

	// Of some images that is not known, and other images' damage is not looked for.
	put(t, w.store, fileOf(w.one.DiffIDs()[1], "layer.tar.zst"), []byte("x"))
	report = w.verify(t, verify.Options{Images: []image.Reference{remotetest.Ref(t, "blobs:1")}})
	expect(t, "one image", report)
	if report.Unreferenced != nil || report.Images != 1 || report.Layers != 2 {
		t.Errorf("one image: %+v", report)
	}
	_, err := verify.Run(t.Context(), w.repo(t), verify.Options{Images: []image.Reference{remotetest.Ref(t, "blobs:2")}})
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
}

// TestFlips flips a bit of every byte of every object. Either it is told, with an
// object of the same entry, or everything can be pulled as if nothing was.
func TestFlips(t *testing.T) {
	w := newWorld(t)
	found, harmless := map[string]int{}, map[string]int{}
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, key := range w.keys() {
		if key == "VERSION" {
			continue // refused before anything is read, or another minor version
		}
		for i := 0; i < len(w.objects[key]); i += step {
			damaged := bytes.Clone(w.objects[key])
			damaged[i] ^= 1 << (i % 8)
			put(t, w.store, key, damaged)
			report := w.verify(t, verify.Options{})
			kind := path.Base(key)
			if len(report.Findings) == 0 {
				harmless[kind]++
				if err := w.pull(t); err != nil {
					t.Errorf("%s: byte %d is flipped, and nothing found: %v", key, i, err)
				}
				continue
			}
			found[kind]++
			f := report.Findings[0]
			if len(f.Images) == 0 || f.Repaired || !strings.Contains(findings(report), folder(key)) && !strings.HasPrefix(key, "repositories/") {
				t.Errorf("%s: byte %d is flipped: %s", key, i, findings(report))
			}
			if kind != "manifest" && !w.isManifest(key) && w.pull(t) == nil {
				t.Errorf("%s: byte %d is flipped, which harms nobody, and is told: %s", key, i, findings(report))
			}
		}
		put(t, w.store, key, w.objects[key])
	}
	t.Logf("told: %v, harmless: %v", found, harmless)
	for kind, n := range harmless {
		if kind != "VERSION" && kind != "json" && !(kind == "blob" && n < 10) && !strings.HasPrefix(kind, "layer.tar.") {
			t.Errorf("%d flips in objects %s are said to be harmless", n, kind)
		}
	}
	for _, kind := range []string{"json", "manifest", "blob", "layer.tar.lz4", "layer.tar.zst", "layer.tar", "1", "2"} {
		if found[kind] == 0 {
			t.Errorf("no flip in an object %s is told", kind)
		}
	}
}

// isManifest reports whether key is of a synthesised manifest: no pull by a tag needs it.
func (w *world) isManifest(key string) bool {
	for _, img := range []remotetest.Image{w.one, w.two} {
		if strings.Contains(key, image.DigestOf(img.Manifest()).Hex()) {
			return true
		}
	}
	return false
}

// TestLosses removes, cuts and empties each object.
func TestLosses(t *testing.T) {
	w := newWorld(t)
	for _, key := range w.keys() {
		if key == "VERSION" {
			continue
		}
		content := w.objects[key]
		for how, damage := range map[string]func(){
			"removed": func() { remove(t, w.store, key) },
			"cut":     func() { put(t, w.store, key, content[:len(content)/2]) },
			"emptied": func() { put(t, w.store, key, nil) },
			"longer":  func() { put(t, w.store, key, append(bytes.Clone(content), "more"...)) },
		} {
			damage()
			report := w.verify(t, verify.Options{})
			harm := w.pull(t)
			optional := path.Base(key) == "manifest" || w.isManifest(key)
			switch {
			case harm != nil && len(report.Findings) == 0 && !strings.HasPrefix(key, "repositories/"):
				t.Errorf("%s is %s, and nothing found: %v", key, how, harm)
			case harm == nil && !optional && len(report.Findings) > 0:
				t.Errorf("%s is %s, which harms nobody: %s", key, how, findings(report))
			case strings.HasPrefix(key, "repositories/") && how != "removed" && len(report.Findings) != 1:
				t.Errorf("%s is %s: %s", key, how, findings(report))
			case strings.Contains(key, "/layer.tar") && how == "cut" && report.Findings[0].Problem != verify.Truncated,
				strings.HasSuffix(key, "/blob") && how == "cut" && report.Findings[0].Problem != verify.Truncated,
				harm != nil && how == "removed" && !strings.HasPrefix(key, "repositories/") && !strings.Contains(key, "held-") && report.Findings[0].Problem != verify.Missing:
				t.Errorf("%s is %s: %s", key, how, findings(report))
			}
			w.restore(t)
		}
	}
}

// TestNames proves what a finding is called and whom it concerns.
func TestNames(t *testing.T) {
	w := newWorld(t)
	shared, second, plain := w.one.DiffIDs()[0], w.one.DiffIDs()[1], w.two.DiffIDs()[1]
	gz, tar := w.blobs[0].Digest, w.packed.DiffIDs()[0]
	of := func(key string) []byte { return w.objects[key] }
	sizes := func(key, size string) []byte {
		from := string(of(key))
		i := strings.Index(from, `"size":`) + len(`"size":`)
		j := i + strings.IndexAny(from[i:], ",}")
		return []byte(from[:i] + size + from[j:])
	}
	marks := func() {
		for _, id := range w.here {
			remove(t, w.store, fileOf(w.index, "held-"+id.Hex()))
		}
	}
	for _, c := range []struct {
		what   string
		damage func()
		want   []string
	}{
		{
			"a shared layer", func() { put(t, w.store, fileOf(shared, "layer.tar.lz4"), of(fileOf(shared, "layer.tar.lz4"))[:20]) },
			[]string{"truncated " + fileOf(shared, "layer.tar.lz4") + " [app:1 app:2 blobs:1]"},
		},
		{
			"a swapped layer", func() {
				put(t, w.store, fileOf(shared, "layer.tar.lz4"), of(fileOf(w.one.DiffIDs()[2], "layer.tar.lz4")))
			},
			[]string{"swapped " + fileOf(shared, "layer.tar.lz4") + " [app:1 app:2 blobs:1]"},
		},
		{
			"a plain layer of the same size", func() { put(t, w.store, fileOf(plain, "layer.tar"), make([]byte, len(of(fileOf(plain, "layer.tar"))))) },
			[]string{"damaged " + fileOf(plain, "layer.tar") + " [app:2]"},
		},
		{
			"a size that lies", func() { put(t, w.store, fileOf(second, "json"), sizes(fileOf(second, "json"), "7")) },
			[]string{"metadata " + fileOf(second, "json") + " [app:1]"},
		},
		{
			"a size that lies much", func() { put(t, w.store, fileOf(second, "json"), sizes(fileOf(second, "json"), "9223372036854775807")) },
			[]string{"metadata " + fileOf(second, "json") + " [app:1]"},
		},
		{
			"an alias that lies", func() { put(t, w.store, fileOf(tar, "json"), sizes(fileOf(tar, "json"), "7")) },
			[]string{"metadata " + fileOf(tar, "json") + " [blobs:1]"},
		},
		{
			"an alias to another blob", func() {
				put(t, w.store, fileOf(tar, "json"), bytes.ReplaceAll(of(fileOf(tar, "json")), []byte(gz.Hex()), []byte(w.blobOf(t).Hex())))
			},
			[]string{"metadata " + fileOf(tar, "json") + " [blobs:1]"},
		},
		{
			"a blob", func() { put(t, w.store, fileOf(gz, "blob"), make([]byte, len(of(fileOf(gz, "blob"))))) },
			[]string{"damaged " + fileOf(gz, "blob") + " [blobs:1]"},
		},
		{
			"a blob that is gone", func() { remove(t, w.store, fileOf(gz, "blob")) },
			[]string{"missing " + fileOf(gz, "blob") + " [blobs:1]"},
		},
		{
			"json that is of another layer", func() { put(t, w.store, fileOf(second, "json"), of(fileOf(shared, "json"))) },
			[]string{"metadata " + fileOf(second, "json") + " [app:1]"},
		},
		{
			"a tag", func() { put(t, w.store, "repositories/app/2", []byte("not an ID")) },
			[]string{"tag repositories/app/2 [app:2]"},
		},
		{
			"a tag that is too large", func() { put(t, w.store, "repositories/app/2", make([]byte, 1<<17)) },
			[]string{"tag repositories/app/2 [app:2]"},
		},
		{
			"a config", func() { put(t, w.store, fileOf(w.two.ID, "json"), []byte("{}")) },
			[]string{"damaged " + fileOf(w.two.ID, "json") + " [app:2]"},
		},
		{
			"a manifest pointer", func() { put(t, w.store, fileOf(w.two.ID, "manifest"), []byte("garbage")) },
			[]string{"manifest " + fileOf(w.two.ID, "manifest") + " [app:2]"},
		},
		{
			"a pointer to another manifest", func() { put(t, w.store, fileOf(w.two.ID, "manifest"), []byte(w.one.ID.Hex())) },
			[]string{"manifest " + fileOf(w.two.ID, "manifest") + " [app:2]"},
		},
		{"a pointer that is gone", func() { remove(t, w.store, fileOf(w.two.ID, "manifest")) }, nil},
		{
			"a synthesised manifest", func() { put(t, w.store, fileOf(image.DigestOf(w.two.Manifest()), "json"), []byte("{}")) },
			[]string{"manifest " + fileOf(image.DigestOf(w.two.Manifest()), "json") + " [app:2]"},
		},
		{
			"both manifests of an index", func() {
				put(t, w.store, fileOf(w.here[0], "json"), []byte("{}"))
				remove(t, w.store, fileOf(w.here[1], "json"))
			},
			[]string{"damaged " + fileOf(w.here[0], "json") + " [multi:1]", "missing " + fileOf(w.here[1], "json") + " [multi:1]"},
		},
		{
			"one manifest of an index, and a layer of the other", func() {
				put(t, w.store, fileOf(w.here[1], "json"), []byte("{}"))
				put(t, w.store, fileOf(w.blobOf(t), "blob"), make([]byte, len(of(fileOf(w.blobOf(t), "blob")))))
			},
			[]string{"damaged " + fileOf(w.here[1], "json") + " [multi:1]", "damaged " + fileOf(w.blobOf(t), "blob") + " [multi:1]"},
		},
		{
			"a config, and a layer that its manifest names", func() {
				remove(t, w.store, fileOf(w.packed.ID, "json"))
				put(t, w.store, fileOf(gz, "blob"), make([]byte, len(of(fileOf(gz, "blob")))))
			},
			[]string{"missing " + fileOf(w.packed.ID, "json") + " [blobs:1]", "damaged " + fileOf(gz, "blob") + " [blobs:1]"},
		},
		{"the marks of an index", marks, []string{"unmarked " + fileOf(w.index, "json") + " [multi:1]"}},
		{"a mark with bytes in it", func() { put(t, w.store, fileOf(w.index, "held-"+w.here[0].Hex()), []byte("x")) }, nil},
		{"a mark of a manifest that the index does not name", func() { put(t, w.store, fileOf(w.index, "held-"+w.one.ID.Hex()), nil) }, nil},
		{
			"a mark of one that is not here", func() {
				put(t, w.store, fileOf(w.index, "held-"+image.DigestOf([]byte("a manifest that is not here")).Hex()), nil)
			},
			[]string{"missing " + fileOf(image.DigestOf([]byte("a manifest that is not here")), "json") + " [multi:1]"},
		},
		{
			"a tag of what is no image", func() {
				id := w.putDocuments(t, []byte(`{"neither":"nor"}`))
				put(t, w.store, "repositories/odd/1", []byte(id.Hex()))
			},
			[]string{"kind " + fileOf(image.DigestOf([]byte(`{"neither":"nor"}`)), "json") + " [odd:1]"},
		},
		{
			"an index of a config", func() {
				id := w.putIndex(t, w.one.ID, w.here[0])
				put(t, w.store, fileOf(id, "held-"+w.one.ID.Hex()), nil)
				put(t, w.store, "repositories/odd/1", []byte(id.Hex()))
			},
			[]string{"kind " + fileOf(w.one.ID, "json") + " [odd:1]"},
		},
	} {
		c.damage()
		report := w.verify(t, verify.Options{})
		expect(t, c.what, report, c.want...)
		w.restore(t)
	}
}

// TestSharedDocuments names all images that need a document.
func TestSharedDocuments(t *testing.T) {
	w := newWorld(t)
	w.tag(t, "direct:1", w.here[0])
	w.tag(t, "direct:2", w.here[0])
	m, err := image.ParseManifest(w.objects[fileOf(w.here[0], "json")])
	if err != nil {
		t.Fatal(err)
	}
	remove(t, w.store, fileOf(m.Config.Digest, "json"))
	expect(t, "a config of an index and of a manifest", w.verify(t, verify.Options{}),
		"missing "+fileOf(m.Config.Digest, "json")+" [direct:1 direct:2 multi:1]")
}

// TestByDigest verifies what is named by its digest.
func TestByDigest(t *testing.T) {
	w := newWorld(t)
	name := "blobs@" + w.manifest.String()
	o := verify.Options{Images: []image.Reference{remotetest.Ref(t, name), remotetest.Ref(t, name)}}
	if report := w.verify(t, o); report.Images != 1 || report.Layers != 2 || len(report.Findings) > 0 {
		t.Errorf("whole: %+v", report)
	}
	remove(t, w.store, fileOf(w.packed.ID, "json"))
	expect(t, "without its config", w.verify(t, o), "missing "+fileOf(w.packed.ID, "json")+" ["+name+"]")
	put(t, w.store, fileOf(w.manifest, "json"), []byte("{}"))
	expect(t, "damaged", w.verify(t, o), "damaged "+fileOf(w.manifest, "json")+" ["+name+"]")
	o.Mender = &verify.Copier{From: open(t, w.copyOf(t), 0), To: w.repo(t)}
	if report := w.verify(t, o); report.Left() > 0 || len(report.Findings) != 2 || w.pull(t) != nil {
		t.Errorf("repaired: %s", findings(report))
	}
}

// TestAliases is about what an alias says of a blob that is sound itself.
func TestAliases(t *testing.T) {
	w := newWorld(t)
	tar := w.packed.DiffIDs()[0]
	json := fileOf(tar, "json")
	point := func(blob []byte) {
		t.Helper()
		b := image.DigestOf(blob)
		put(t, w.store, fileOf(b, "blob"), blob)
		put(t, w.store, fileOf(b, "json"), fmt.Appendf(nil, `{"size":%d,"file":"blob","storedSize":%d}`, len(blob), len(blob)))
		put(t, w.store, json, bytes.ReplaceAll(w.objects[json], []byte(w.blobs[0].Digest.Hex()), []byte(b.Hex())))
	}
	same := bytes.Clone(w.packed.Layers[0])
	same[len(same)/2] ^= 1
	for what, blob := range map[string][]byte{
		"another layer of the same size": gzipped(t, same),
		"something behind the layer":     append(gzipped(t, w.packed.Layers[0]), "garbage"...),
		"no compressed layer":            []byte("neither gzip nor zstd"),
	} {
		point(blob)
		if w.pull(t) == nil {
			t.Errorf("%s: a pull takes it", what)
		}
		expect(t, what, w.verify(t, verify.Options{}), "metadata "+json+" [blobs:1]")
		if report := w.repairFrom(t, w.copyOf(t)); report.Left() > 0 || w.pull(t) != nil {
			t.Errorf("%s: %s", what, findings(report))
		}
		w.restore(t)
	}
	// Another compression of the same layer serves, and is reached by the alias alone.
	other := append(gzipped(t, nil), gzipped(t, w.packed.Layers[0])...)
	point(other)
	report := w.verify(t, verify.Options{})
	expect(t, "another compression", report)
	if report.Unreferenced.Entries != 0 || report.Layers != 8 {
		t.Errorf("no tag reaches %+v, %d layers are read", report.Unreferenced, report.Layers)
	}
	// Of an image that finds its layer by the alias alone, the blob may be torn: it is told, and the layer is read.
	put(t, w.store, fileOf(image.DigestOf(other), "json"), []byte("torn"))
	put(t, w.store, fileOf(image.DigestOf(other), "blob"), other[:len(other)/2])
	expect(t, "a torn blob behind an alias", w.verify(t, verify.Options{}),
		"metadata "+fileOf(image.DigestOf(other), "json")+" [blobs:1]", "truncated "+fileOf(image.DigestOf(other), "blob")+" [blobs:1]")
	if report := w.repairFrom(t, w.copyOf(t)); report.Left() > 0 || w.pull(t) != nil {
		t.Errorf("a torn blob behind an alias: %s", findings(report))
	}
}

// blobOf is the compressed layer of the platform that is here.
func (w *world) blobOf(t testing.TB) image.Digest {
	t.Helper()
	m, err := image.ParseManifest(w.objects[fileOf(w.here[0], "json")])
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[0].Digest
}

// watch is a Progress that calls a function for what is read.
type watch struct {
	read    func(n int)
	reading func(int64)
	note    func(string)
	status  func(string)
}

func (w watch) Status(s string) {
	if w.status != nil {
		w.status(s)
	}
}

func (w watch) Note(s string) {
	if w.note != nil {
		w.note(s)
	}
}

func (w watch) Reading(n int64) {
	if w.reading != nil {
		w.reading(n)
	}
}

func (w watch) Read(n int) {
	if w.read != nil {
		w.read(n)
	}
}

// TestProgress proves that what was announced is read, also where layers are cut, and that it is told what takes long then.
func TestProgress(t *testing.T) {
	w := newWorld(t)
	plain := fileOf(w.two.DiffIDs()[1], "layer.tar")
	for _, content := range [][]byte{w.objects[plain], w.objects[plain][:100]} {
		put(t, w.store, plain, content)
		var announced, read, notes, looks atomic.Int64
		w.verify(t, verify.Options{Progress: watch{
			reading: func(n int64) { announced.Add(n) },
			read:    func(n int) { read.Add(int64(n)) },
			note:    func(string) { notes.Add(1) },
			status: func(s string) {
				if strings.HasPrefix(s, "finding out what is damaged in layer ") {
					looks.Add(1)
				}
			},
		}})
		if announced.Load() < 1000 || read.Load() != announced.Load() || looks.Load() != notes.Load() || notes.Load() != int64(min(1, len(w.objects[plain])-len(content))) {
			t.Errorf("%d bytes announced, %d read, %d notes, %d looks", announced.Load(), read.Load(), notes.Load(), looks.Load())
		}
	}
}
