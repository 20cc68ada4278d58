package verify_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a remote with all that the format knows: classic images that share a
// layer, stored with all codecs; a manifest with compressed layers; an index with
// a platform that is here, an attestation, and a platform that is not.
type world struct {
	store   *mem.Store
	objects map[string][]byte // what is in store, undamaged

	one, two remotetest.Image // app:1 and app:2; the first layer is of both
	packed   remotetest.Image // of the manifest
	blobs    []image.Descriptor
	manifest image.Digest // blobs:1
	index    image.Digest // multi:1
	here     [2]image.Digest
}

const gzipTar = "application/vnd.oci.image.layer.v1.tar+gzip"

func newWorld(t testing.TB) *world {
	t.Helper()
	ctx := context.Background()
	w := &world{store: mem.New()}
	text := strings.Repeat("some text that compresses. ", 30)
	shared := remotetest.FileLayer(t, "shared", text)
	w.one = remotetest.NewImage(t, "one", shared, remotetest.FileLayer(t, "zstd", text), append(remotetest.Tar(t), remotetest.Noise("noise", 900)...))
	w.two = remotetest.NewImage(t, "two", shared, remotetest.FileLayer(t, "plain", "short"))
	put := func(img remotetest.Image, c codec.Codec, layers ...int) {
		t.Helper()
		for _, i := range layers {
			if err := remotetest.Put(ctx, open(t, w.store, c), img, remote.Closure{Layers: []image.Digest{img.DiffIDs()[i]}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(w.one, codec.LZ4, 0, 2)
	put(w.one, codec.Zstd, 1)
	put(w.two, codec.None, 1)
	r := open(t, w.store, codec.LZ4)
	for ref, img := range map[string]remotetest.Image{"app:1": w.one, "app:2": w.two} {
		if _, err := remotetest.Push(ctx, r, remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}

	w.packed = remotetest.NewImage(t, "packed", remotetest.FileLayer(t, "gz", text), shared)
	w.blobs = []image.Descriptor{w.putLayer(t, gzipTar, gzipped(t, w.packed.Layers[0])), {MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: image.DigestOf(shared), Size: int64(len(shared))}}
	w.manifest = w.putDocuments(t, w.packed.Config, image.StackManifest(w.packed.Config, w.blobs))
	w.tag(t, "blobs:1", w.manifest)

	other := remotetest.NewImage(t, "other platform", remotetest.FileLayer(t, "other", "other"))
	w.here[0] = w.putDocuments(t, other.Config, image.StackManifest(other.Config, []image.Descriptor{w.putLayer(t, gzipTar, gzipped(t, other.Layers[0]))}))
	attestation := w.putLayer(t, "application/vnd.in-toto+json", []byte(`{"attests":"it"}`))
	w.here[1] = w.putDocuments(t, []byte(`{}`), image.StackManifest([]byte(`{}`), []image.Descriptor{attestation}))
	elsewhere := image.DigestOf([]byte("a manifest that is not here"))
	w.index = w.putIndex(t, w.here[0], w.here[1], elsewhere)
	if err := r.Hold(ctx, w.index, w.here[:]); err != nil {
		t.Fatal(err)
	}
	w.tag(t, "multi:1", w.index)
	w.objects = tree(t, w.store)
	return w
}

func open(t testing.TB, s storage.Store, c codec.Codec) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) repo(t testing.TB) *repo.Repo { return open(t, w.store, codec.LZ4) }

func (w *world) putLayer(t testing.TB, media string, b []byte) image.Descriptor {
	t.Helper()
	d := image.Descriptor{MediaType: media, Digest: image.DigestOf(b), Size: int64(len(b))}
	if _, err := w.repo(t).PutLayer(context.Background(), d, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return d
}

// putDocuments returns the digest of the last one.
func (w *world) putDocuments(t testing.TB, docs ...[]byte) (id image.Digest) {
	t.Helper()
	for _, doc := range docs {
		if err := w.repo(t).PutDocument(context.Background(), doc); err != nil {
			t.Fatal(err)
		}
		id = image.DigestOf(doc)
	}
	return id
}

func (w *world) putIndex(t testing.TB, manifests ...image.Digest) image.Digest {
	t.Helper()
	var list []string
	for _, id := range manifests {
		list = append(list, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}`, id))
	}
	return w.putDocuments(t, []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`))
}

func (w *world) tag(t testing.TB, ref string, id image.ID) {
	t.Helper()
	if err := w.repo(t).Tag(context.Background(), remotetest.Ref(t, ref), id); err != nil {
		t.Fatal(err)
	}
}

// restore undoes all damage.
func (w *world) restore(t testing.TB) {
	t.Helper()
	for key := range tree(t, w.store) {
		if _, ok := w.objects[key]; !ok {
			remove(t, w.store, key)
		}
	}
	for key, content := range w.objects {
		put(t, w.store, key, content)
	}
}

// keys are those of all objects, in order.
func (w *world) keys() []string {
	var keys []string
	for key := range w.objects {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// verify runs a verification that must come to its end.
func (w *world) verify(t testing.TB, o verify.Options) *verify.Report {
	t.Helper()
	report, err := verify.Run(t.Context(), w.repo(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// pull reads all that every tag needs, as pulls into both kinds of engines do.
func (w *world) pull(t testing.TB) error {
	t.Helper()
	r := w.repo(t)
	for _, name := range []string{"app:1", "app:2", "blobs:1", "multi:1"} {
		id, err := r.Resolve(t.Context(), remotetest.Ref(t, name))
		if err != nil {
			return err
		}
		tree, err := remote.ReadTree(t.Context(), r, id, nil)
		if err != nil {
			return err
		}
		closure, err := remote.ClosureOf(tree)
		if err != nil {
			return err
		}
		layers, err := remote.Layers(t.Context(), r, closure.Layers)
		if err != nil {
			return err
		}
		for _, l := range layers {
			if _, err := remotetest.Read(t.Context(), r, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func fileOf(id image.Digest, name string) string { return "images/" + id.Hex() + "/" + name }

// folder is that of an entry, or the key of a tag.
func folder(key string) string {
	if strings.HasPrefix(key, "images/") {
		return key[:strings.LastIndexByte(key, '/')+1]
	}
	return key
}

// findings are the objects and problems of a report, one a line.
func findings(r *verify.Report) string {
	var lines []string
	for _, f := range r.Findings {
		line := fmt.Sprintf("%s %s %s: %s", f.Problem, f.Object, f.Images, f.Detail)
		if f.Repaired {
			line = "repaired: " + line
		}
		if f.Failure != "" {
			line += " (" + f.Failure + ")"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// expect fails the test unless exactly this was found: "problem object [images]".
func expect(t testing.TB, what string, r *verify.Report, want ...string) {
	t.Helper()
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s %s %s", f.Problem, f.Object, f.Images))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: found\n%s\nwant\n%s", what, findings(r), strings.Join(want, "\n"))
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func put(t testing.TB, s storage.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(context.Background(), key, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, s storage.Store, key string) {
	t.Helper()
	if err := s.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
}

func tree(t testing.TB, s storage.Store) map[string][]byte {
	t.Helper()
	objects := map[string][]byte{}
	for info, err := range s.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(context.Background(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		objects[info.Key] = b
	}
	return objects
}
