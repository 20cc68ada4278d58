package repo_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// everyKind fills a store with objects of every kind that images need: layers, blobs, aliases, configs, manifests, an
// index and its mark, tags of each, signatures, markers, and the same of an image that no tag names any more. It returns
// the images whose layers are blobs, by their tags.
func everyKind(t *testing.T, s *mem.Store) map[string]remotetest.Image {
	t.Helper()
	r := open(t, s, codec.LZ4)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tag := func(name string, doc []byte) {
		t.Helper()
		do(r.Tag(t.Context(), remotetest.Ref(t, name), image.DigestOf(doc)))
	}
	packed := func(name string) (img remotetest.Image, manifest []byte) {
		img = remotetest.NewImage(t, name, remotetest.FileLayer(t, name+"-a", name), remotetest.FileLayer(t, name+"-b", name))
		var layers []image.Descriptor
		for _, l := range img.Layers {
			b := gzipped(t, l)
			d := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(b), Size: int64(len(b))}
			_, err := r.PutLayer(t.Context(), d, bytes.NewReader(b))
			do(err)
			layers = append(layers, d)
		}
		manifest = manifestOf(img.Config, layers)
		do(r.PutDocument(t.Context(), img.Config))
		do(r.PutDocument(t.Context(), manifest))
		return img, manifest
	}
	plain, gone := image3(t, "plain"), image3(t, "gone")
	pushTo(t, s, "app:plain", plain)
	whole, manifest := packed("manifest")
	tag("app:manifest", manifest)
	aliased, _ := packed("aliased") // whose manifest nobody names
	tag("app:aliased", aliased.Config)
	_, member := packed("member")
	index := []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d}]}`, image.DigestOf(member), len(member)))
	do(r.PutDocument(t.Context(), index))
	do(r.Hold(t.Context(), image.DigestOf(index), []image.Digest{image.DigestOf(member)}))
	tag("app:index", index)
	pushTo(t, s, "app:gone", gone)
	for name, id := range map[string]image.ID{"app:plain": plain.ID, "app:gone": gone.ID} {
		do(r.PutSignature(t.Context(), remotetest.Ref(t, name), id, "0123456789abcdef", []byte("signed")))
	}
	remove(t, s, "repositories/app/gone")
	return map[string]remotetest.Image{"app:manifest": whole, "app:aliased": aliased}
}

// TestFlipsBlobs is TestFlips for images whose layers are kept compressed: a pull gets the image, or is told what is damaged.
func TestFlipsBlobs(t *testing.T) {
	s := mem.New()
	images := everyKind(t, s)
	step, told, harmless := 37, 0, 0
	if testing.Short() {
		step = 151
	}
	for key, content := range snapshot(t, s) {
		for n := 0; n < 8*len(content); n += step {
			damaged := []byte(content)
			damaged[n/8] ^= 1 << (n % 8)
			put(t, s, key, damaged)
			for name, img := range images {
				r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote"})
				var got remotetest.Image
				if err == nil {
					got, err = remotetest.Pull(t.Context(), r, remotetest.Ref(t, name))
				}
				what := fmt.Sprintf("%s, bit %d of byte %d of %s", name, n%8, n/8, key)
				parts := strings.Split(key, "/")
				switch {
				case err == nil && img.Diff(got) != "":
					t.Errorf("%s: wrong content was taken: %s", what, img.Diff(got))
				case err == nil:
					harmless++
				case key == "VERSION" && fault.KindOf(err) == fault.Refused:
				case fault.KindOf(err) != fault.Damaged || fault.AdviceOf(err) == "" || parts[0] == "images" && !strings.Contains(err.Error(), parts[1]):
					t.Errorf("%s: %v (%s, advice %q)", what, err, fault.KindOf(err), fault.AdviceOf(err))
				default:
					told++
				}
			}
		}
		put(t, s, key, []byte(content))
	}
	t.Logf("%d flips told, %d without harm", told, harmless)
	if told < 20 || harmless < 20 {
		t.Errorf("%d flips told, %d without harm", told, harmless)
	}
}

// TestFlipsCollect flips bits of every object that is no layer, and lets a collection run: it deletes nothing that a tag
// needs once the bit is put right again, and where it cannot know what that is it says which tag and object it is about.
func TestFlipsCollect(t *testing.T) {
	s := mem.New()
	everyKind(t, s)
	all := snapshot(t, s)
	collect(t, s, repo.CollectOptions{})
	needed := snapshot(t, s)
	delete(needed, "run/sweep")
	if len(all)-len(needed) < 5 {
		t.Fatalf("of %d objects %d are needed", len(all), len(needed))
	}
	step, told, harmless := 41, 0, 0
	if testing.Short() {
		step = 101
	}
	for key, content := range all {
		if strings.Contains(key, "/layer.tar") || strings.HasSuffix(key, "/blob") {
			continue // which a collection does not read
		}
		for n := 0; n < 8*len(content); n += step {
			restore(t, s, all)
			damaged := []byte(content)
			damaged[n/8] ^= 1 << (n % 8)
			put(t, s, key, damaged)
			r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote"})
			if err == nil {
				_, err = r.Collect(t.Context(), repo.CollectOptions{Grace: soon})
			}
			what := fmt.Sprintf("bit %d of byte %d of %s", n%8, n/8, key)
			left := snapshot(t, s)
			for k := range needed {
				if strings.HasSuffix(key, "/manifest") && strings.HasPrefix(k, "images/"+content+"/") {
					continue // the pointer is damaged, and what it names is made anew from the rest
				}
				if _, ok := left[k]; !ok {
					t.Fatalf("%s: it deletes %s, which is needed; error %v", what, k, err)
				}
			}
			if err == nil {
				harmless++
				continue
			}
			told++
			kind := fault.Damaged
			if key == "VERSION" {
				kind = fault.Refused
			}
			parts := strings.Split(key, "/")
			if fault.KindOf(err) != kind || fault.AdviceOf(err) == "" || !strings.Contains(err.Error(), "the-remote") ||
				parts[0] == "images" && !strings.Contains(err.Error(), parts[1]) || parts[0] == "repositories" && !strings.Contains(err.Error(), parts[2]) {
				t.Errorf("%s: %v (%s, advice %q)", what, err, fault.KindOf(err), fault.AdviceOf(err))
			}
			for k := range all {
				if _, ok := left[k]; !ok {
					t.Errorf("%s: it fails with %v, and has deleted %s", what, err, k)
				}
			}
		}
	}
	t.Logf("%d flips told, %d without harm", told, harmless)
	if told < 40 || harmless < 20 {
		t.Errorf("%d flips told, %d without harm", told, harmless)
	}
}

// TestFlipsRun flips bits of what pushes and collections tell each other: each says which object it cannot go on without, or
// does its work. A collection that fails deletes nothing.
func TestFlipsRun(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:kept", image3(t, "kept"))
	gone := image3(t, "gone")
	pushTo(t, s, "app:gone", gone)
	remove(t, s, "repositories/app/gone")
	held := lease.New(s, lease.Options{})
	if _, err := held.Rely(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	leased := snapshot(t, s)
	held.Release(t.Context())
	sweep, err := lease.Begin(t.Context(), s, lease.Times{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sweep.Publish(t.Context(), []image.Digest{image.DigestOf([]byte("another"))}); err != nil {
		t.Fatal(err)
	}
	listed := snapshot(t, s)
	if err := sweep.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = sweep.Close(t.Context())
	ended := snapshot(t, s)

	told := 0
	for what, from := range map[string]map[string]string{"a lease": leased, "a list": listed, "an ended sweep": ended} {
		for key, content := range from {
			if !strings.HasPrefix(key, "run/") {
				continue
			}
			for n := range 8 * len(content) {
				if testing.Short() && n%17 != 0 {
					continue
				}
				damaged := []byte(content)
				damaged[n/8] ^= 1 << (n % 8)
				for command, run := range map[string]func(r *repo.Repo) error{
					"gc": func(r *repo.Repo) error {
						_, err := r.Collect(t.Context(), repo.CollectOptions{Grace: soon})
						if fault.Is(err, fault.Locked) {
							return nil // another one runs, it says
						}
						return err
					},
					"push": func(r *repo.Repo) error {
						_, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:gone"), gone)
						return err
					},
				} {
					restore(t, s, from)
					put(t, s, key, damaged)
					err := run(open(t, s, codec.LZ4))
					where := fmt.Sprintf("%s, %s, bit %d of byte %d of %s", command, what, n%8, n/8, key)
					tags, broken := (plain{s}).check()
					if broken != nil {
						t.Errorf("%s: %v", where, broken)
					}
					switch {
					case err != nil:
						if told++; !strings.Contains(err.Error(), key) && !strings.Contains(err.Error(), "list of the garbage collection") {
							t.Errorf("%s: %v", where, err)
						}
						for k := range from {
							if strings.HasPrefix(k, "images/") && len(keys(t, s, k)) == 0 {
								t.Errorf("%s: it fails with %v, and %s is gone", where, err, k)
							}
						}
					case command == "push" && tags["repositories/app/gone"] != gone.ID.Hex():
						t.Errorf("%s: it says that it is done", where)
					}
				}
			}
		}
	}
	if told < 50 {
		t.Errorf("only %d flips were told", told)
	}
}
