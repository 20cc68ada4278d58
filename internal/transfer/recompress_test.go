package transfer

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/dockerarchive"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

var anew = CopyOptions{Options: Options{Recompress: true}}

// packedImage is an image whose layers are compressed in all ways, and the rest of an index beside it.
func packedImage(t testing.TB, from *stock) (m *enginetest.Image, index enginetest.Node) {
	t.Helper()
	m = layered("packed", "anew-a", "anew-b", "anew-c")
	var l enginetest.Layout
	one := l.Image(m, enginetest.Gzip, enginetest.Zstd, enginetest.Raw).For("linux", "amd64")
	attested := l.Attestation(one, `{"_type":"https://in-toto.io/Statement/v0.1"}`)
	index = l.Index(one, attested)
	from.node(t, &l, index, "packed:1", one.Digest, attested.Digest)
	return m, index
}

// checkAnew proves that a remote has an image as a classic engine would have pushed it, and nothing else.
func checkAnew(t *testing.T, to *mem.Store, name string, m *enginetest.Image, suffix ...string) {
	t.Helper()
	id := image.DigestOf(m.Config())
	if got, err := remoteOn(t, to, codec.LZ4).Resolve(t.Context(), reference(t, name)); err != nil || got != id {
		t.Errorf("%s names %s, want %s, error %v", name, got, id, err)
	}
	checkWhole(t, remoteOn(t, to, codec.LZ4), name, m)
	var want []string
	for i, d := range m.DiffIDs() {
		want = append(want, "images/"+strings.TrimPrefix(d, "sha256:")+"/layer.tar"+suffix[min(i, len(suffix)-1)])
	}
	if got := layerKeys(keysOf(t, to)); !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("layers %q, want %q", got, want)
	}
}

// TestRecompress: a copy stores compressed layers as others, and the image by its config, under whichever compression the
// target has; a second copy moves nothing.
func TestRecompress(t *testing.T) {
	from := newStock(t)
	m, _ := packedImage(t, from)
	for suffix, method := range map[string]codec.Codec{".lz4": codec.LZ4, ".zst": codec.Zstd, "": codec.None} {
		to := mem.New()
		for round, moves := range []int{3, 0} {
			done, err := Copy(t.Context(), from, remoteOn(t, to, method), copies(t, "packed:1"), anew)
			if err != nil {
				t.Fatal(err)
			}
			if r := done.Images[0]; r.ID.String() != m.ID() || len(moved(r)) != moves || !slices.Equal(digestsOf(r), m.DiffIDs()) || r.Layers[0].Size != m.Layers()[0].Size() {
				t.Errorf("%q, round %d: %+v", suffix, round, r)
			}
		}
		checkAnew(t, to, "packed:1", m, suffix, suffix, ".lz4") // the last one was a tar before, and comes as it is stored
	}
}

func digestsOf(r Result) (ids []string) {
	for _, l := range r.Layers {
		ids = append(ids, l.Digest.String())
	}
	return ids
}

// TestRecompressSources: from a layout, from a registry, and to one, too.
func TestRecompressSources(t *testing.T) {
	from := newStock(t)
	m, _ := packedImage(t, from)
	server := registrytest.Start(t, registrytest.Options{})
	for what, place := range map[string]remote.Remote{
		"layout":   layoutIn(t, t.TempDir()),
		"registry": registryAt(t, server.Host+"/as-it-is", "", client.Gzip),
	} {
		if _, err := Copy(t.Context(), from, place, copies(t, "packed:1"), CopyOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		to := mem.New()
		if _, err := Copy(t.Context(), place, remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), anew); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		checkAnew(t, to, "packed:1", m, ".lz4")
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	written, err := dockerarchive.Create(path, path)
	must(t, err)
	t.Cleanup(func() { _ = written.Close() })
	whole := layoutIn(t, t.TempDir())
	for _, place := range []remote.Target{whole, written} {
		if _, err := Copy(t.Context(), from, place, copies(t, "packed:1"), anew); err != nil {
			t.Fatal(err)
		}
	}
	archive, err := dockerarchive.Open(t.Context(), path, path)
	must(t, err)
	t.Cleanup(func() { _ = archive.Close() })
	for what, place := range map[string]remote.Source{"layout": whole, "archive": archive} {
		if id, err := place.Resolve(t.Context(), reference(t, "packed:1")); err != nil || id != idOf(t, m) {
			t.Errorf("to a %s: %s, error %v", what, id, err)
		}
		checkWhole(t, place, "packed:1", m)
	}
	to := registryAt(t, server.Host+"/anew", "", client.Zstd)
	if _, err := Copy(t.Context(), from, to, copies(t, "packed:1"), anew); err != nil {
		t.Fatal(err)
	}
	e := newClassic()
	if _, err := Pull(t.Context(), to, e.connect(t), pulls(t, "packed:1"), Options{}); err != nil {
		t.Fatal(err)
	}
	has(t, e, "packed:1 "+m.ID()[7:19])
	allZstd(t, to, "packed:1")
}

// allZstd proves that a registry has all layers of an image in zstd.
func allZstd(t *testing.T, r remote.Source, name string) {
	t.Helper()
	ref := reference(t, name)
	from := remote.SourceOf(r, ref.Repository)
	id, err := from.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := remote.ReadTree(t.Context(), from, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range tree.Layers() {
		if !strings.HasSuffix(l.MediaType, "+zstd") {
			t.Errorf("a layer is %s", l.MediaType)
		}
	}
}

// TestRecompressLeaves: what is not compressed, or no image of files, stays what it is, and so does what belongs to it.
func TestRecompressLeaves(t *testing.T) {
	from := newStock(t)
	var l enginetest.Layout
	raw := l.Image(layered("x", "raw-a", "raw-b")).For("linux", "amd64")
	attested := l.Attestation(raw, `{"_type":"https://in-toto.io/Statement/v0.1"}`)
	index := l.Index(raw, attested)
	from.node(t, &l, index, "raw:1", raw.Digest, attested.Digest)
	var about map[string]any // an image, in gzip, that refers to it
	must(t, json.Unmarshal(l.Blob(l.Image(layered("x", "about"), enginetest.Gzip).Digest), &about))
	about["subject"] = map[string]any{"mediaType": ocispec.MediaTypeImageIndex, "digest": index.Digest, "size": len(l.Blob(index.Digest))}
	doc, err := json.Marshal(about)
	must(t, err)
	from.node(t, &l, enginetest.Node{Digest: l.Add(doc)}, "raw:about")
	must(t, from.Add(t.Context(), "raw", image.DigestOf(doc)))
	artifact := remotetest.NewArtifact(t, "free", nil)
	if err := artifact.Attach(t.Context(), from.Repo, "raw"); err != nil {
		t.Fatal(err)
	}
	if err := from.Tag(t.Context(), reference(t, "raw:artifact"), artifact.ID); err != nil {
		t.Fatal(err)
	}
	oddImage(t, from, &l, layered("x", "odd-a", "odd-b"), "raw:odd")
	for _, name := range []string{"raw:1", "raw:odd", "raw:artifact", "app:1", "app:2"} {
		plain, again := mem.New(), mem.New()
		if _, err := Copy(t.Context(), from, remoteOn(t, plain, codec.LZ4), copies(t, name), CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), from, remoteOn(t, again, codec.LZ4), copies(t, name), anew); err != nil {
			t.Fatal(err)
		}
		sameObjects(t, objects(t, plain), objects(t, again))
	}
}

// oddImage is an image with layers in gzip, the second of which its manifest calls something else than a tar.
func oddImage(t testing.TB, from *stock, l *enginetest.Layout, m *enginetest.Image, name string) {
	t.Helper()
	var doc map[string]any
	must(t, json.Unmarshal(l.Blob(l.Image(m, enginetest.Gzip).Digest), &doc))
	doc["layers"].([]any)[1].(map[string]any)["mediaType"] = "application/vnd.example.layer"
	manifest, err := json.Marshal(doc)
	must(t, err)
	from.node(t, l, enginetest.Node{Digest: l.Add(manifest)}, name)
}

// TestRecompressBeside: an image that stays as it is gets a blob out of which another image of the same copy is unpacked.
func TestRecompressBeside(t *testing.T) {
	from := newStock(t)
	var l enginetest.Layout
	m := layered("x", "odd-a", "odd-b")
	packed := l.Image(m, enginetest.Gzip)
	from.node(t, &l, packed, "beside:packed")
	oddImage(t, from, &l, m, "beside:odd")
	odd, err := from.Resolve(t.Context(), reference(t, "beside:odd"))
	must(t, err)
	for _, names := range [][]string{{"beside:packed", "beside:odd"}, {"beside:odd", "beside:packed"}} {
		for _, place := range []remote.Remote{remoteOn(t, mem.New(), codec.LZ4), layoutIn(t, t.TempDir())} {
			done, err := Copy(t.Context(), from, place, copies(t, names...), anew)
			if err != nil {
				t.Fatalf("%q: %v", names, err)
			}
			ids := map[string]image.ID{done.Images[0].Image: done.Images[0].ID, done.Images[1].Image: done.Images[1].ID}
			if ids["beside:odd"] != odd || ids["beside:packed"] != idOf(t, m) {
				t.Errorf("%q: %v", names, ids)
			}
			found, err := remote.Layers(t.Context(), place, []image.Digest{mustDigest(t, packed.Blobs[0]), mustDigest(t, packed.Blobs[1]), mustDigest(t, m.DiffIDs()[0]), mustDigest(t, m.DiffIDs()[1])})
			if err != nil {
				t.Errorf("%q: %d layers, error %v", names, len(found), err)
			}
			checkWhole(t, place, "beside:packed", m)
		}
	}
}

// TestRecompressAliased: also a layer that a classic image has in a blob alone.
func TestRecompressAliased(t *testing.T) {
	from, to := newStock(t), mem.New()
	if _, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), copies(t, "aliased:1"), anew); err != nil {
		t.Fatal(err)
	}
	checkAnew(t, to, "aliased:1", layered("x", "blob-a", "blob-b"), ".lz4")
}

// TestRecompressMedia: what an export does not take for a tar is stored as one where the image's config alone tells what it is.
func TestRecompressMedia(t *testing.T) {
	item := engine.Item{Media: image.UnknownMediaType}
	for unpack, want := range map[*blobs]string{{}: image.UnknownMediaType, {unpack: unpacking{}}: ""} {
		if got := (&push{blobs: unpack}).mediaOf(item); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestRecompressPlatforms: one platform is stored; which one has to be said where there are several, also where all tags are
// copied, and that stops none of the others.
func TestRecompressPlatforms(t *testing.T) {
	from, to := newStock(t), mem.New()
	target := remoteOn(t, to, codec.LZ4)
	_, err := Copy(t.Context(), from, target, copies(t, multi), anew)
	if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), multi) || len(objects(t, to)) > 0 {
		t.Errorf("of several: %v, stored %q", err, keysOf(t, to))
	}
	o := anew
	o.Platform = image.Platform{OS: "linux", Architecture: "arm64"}
	if _, err := Copy(t.Context(), from, target, copies(t, multi), o); err != nil {
		t.Fatal(err)
	}
	checkAnew(t, to, multi, layered("x", "arm64", "shared"), ".lz4")
	done, err := copyAll(t, from, remoteOn(t, mem.New(), codec.LZ4), anew)
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Image != reference(t, multi) || len(done.Images) != len(tagsOf(t, from))-1 {
		t.Errorf("all: %d copied, failed %+v, error %v", len(done.Images), done.Failed, err)
	}
}

// TestRecompressStaysBehind: signatures and what refers to an image are about its bytes as they were; and what no tag
// names is there for its digest.
func TestRecompressStaysBehind(t *testing.T) {
	from := newStock(t)
	_, index := packedImage(t, from)
	ref, id := reference(t, "packed:1"), mustDigest(t, index.Digest)
	if err := from.PutSignature(t.Context(), ref, id, "0123456789abcdef", []byte("signed")); err != nil {
		t.Fatal(err)
	}
	artifact := remotetest.NewArtifact(t, "about", from.document(t, id))
	if err := artifact.Attach(t.Context(), from.Repo, "packed"); err != nil {
		t.Fatal(err)
	}
	if err := from.Add(t.Context(), "packed", id); err != nil {
		t.Fatal(err)
	}
	o := anew
	o.Repositories = []string{"packed"}
	dry := anew
	dry.DryRun = true
	if done, err := Copy(t.Context(), from, remoteOn(t, mem.New(), codec.LZ4), copies(t, "packed:1"), dry); err != nil || done.Images[0].Referrers > 0 {
		t.Errorf("dry run: %+v, error %v", done, err)
	}
	for _, all := range []bool{false, true} {
		to := mem.New()
		r, err := remoteOn(t, to, codec.LZ4), error(nil)
		if all {
			_, err = copyAll(t, from, r, o)
		} else {
			_, err = Copy(t.Context(), from, r, copies(t, "packed:1"), anew)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keysOf(t, to) {
			if strings.HasPrefix(key, "signatures/") || strings.HasPrefix(key, "referrers/") || strings.HasPrefix(key, "digests/") || strings.HasSuffix(key, "/blob") {
				t.Errorf("all %t: copied %s", all, key)
			}
		}
	}
}

func (s *stock) document(t testing.TB, id image.Digest) []byte {
	t.Helper()
	doc, err := s.Document(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestRecompressKeeps: what a target has compressed it keeps, and that is told; of a registry, which has all compressed, nothing.
func TestRecompressKeeps(t *testing.T) {
	from, to := newStock(t), remoteOn(t, mem.New(), codec.LZ4)
	packedImage(t, from)
	registry := registryAt(t, registrytest.Start(t, registrytest.Options{}).Host, "", client.Zstd)
	for _, place := range []remote.Remote{to, registry} {
		if _, err := Copy(t.Context(), from, place, copies(t, "packed:1"), CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		told := &noted{}
		o := anew
		o.Progress = told
		if _, err := Copy(t.Context(), from, place, copies(t, "packed:1"), o); err != nil {
			t.Fatal(err)
		}
		if is := len(told.notes) == 1 && strings.Contains(told.notes[0], ": 2 layers, "); is != (place == remote.Remote(to)) || len(told.notes) > 1 {
			t.Errorf("it tells %q", told.notes)
		}
	}
	told := &noted{}
	o := anew
	o.Progress = told
	if _, err := Copy(t.Context(), from, remoteOn(t, mem.New(), codec.LZ4), copies(t, "packed:1"), o); err != nil || len(told.notes) > 0 {
		t.Errorf("where nothing is, it tells %q, error %v", told.notes, err)
	}
}

// TestDeltaAlwaysOfPacked: who wants deltas wherever there are any is told that there are none of what is kept compressed,
// whatever the engine takes.
func TestDeltaAlwaysOfPacked(t *testing.T) {
	s, w := newStock(t), newDeltaWorld(t)
	packedImage(t, s)
	id, err := s.Resolve(t.Context(), reference(t, "packed:1"))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := remote.ReadTree(t.Context(), s, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	one, err := onlyPlatform("packed:1", tree)
	if err != nil {
		t.Fatal(err)
	}
	blobs := make([]image.Digest, 0, 3)
	for _, l := range one.Layers() {
		blobs = append(blobs, l.Digest)
	}
	// By its diffIDs a layer in zstd may have an index.
	for what, order := range map[string][]image.Digest{"2 layers": blobs, "1 layer": one.Image().DiffIDs} {
		for d, want := range map[Delta]int{DeltaAlways: 1, DeltaAuto: 0} {
			told := &noted{}
			o := Options{Delta: d, Progress: told, leastDelta: 1}.withDefaults()
			p := &pull{from: s.Repo, to: w.keeper, o: o, image: pulls(t, "packed:1")[0], tree: one, order: order}
			found, err := s.Look(t.Context(), remote.Closure{Layers: p.order}, nil)
			if err != nil {
				t.Fatal(err)
			}
			p.layers = found.Layers
			p.newDeltas(p.order)
			if len(told.notes) != want || want > 0 && !strings.Contains(told.notes[0], ": "+what+", ") {
				t.Errorf("%s, %s: it tells %q", what, d, told.notes)
			}
		}
	}
}

// TestRecompressDryRun: it says what would be stored, and stores nothing; and a tag that is not to move stays.
func TestRecompressDryRun(t *testing.T) {
	from, to := newStock(t), mem.New()
	m, _ := packedImage(t, from)
	o := anew
	o.DryRun = true
	done, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), o)
	if err != nil || done.Images[0].ID.String() != m.ID() || len(moved(done.Images[0])) != 3 || done.Images[0].Layers[0].Stored != -1 || !slices.Equal(digestsOf(done.Images[0]), m.DiffIDs()) || len(objects(t, to)) > 0 {
		t.Errorf("%+v, error %v, stored %q", done, err, keysOf(t, to))
	}
	o = anew
	o.IfAbsent = true
	for range 2 { // the second time it is what is there
		if _, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), o); err != nil {
			t.Fatal(err)
		}
	}
	plain := CopyOptions{Options: Options{IfAbsent: true}}
	if _, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), copies(t, "packed:1"), plain); !fault.Is(err, fault.Refused) {
		t.Errorf("as it was, over it: %v", err)
	}
}
