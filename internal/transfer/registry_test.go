package transfer

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
)

// These tests have a stock registry as the remote.

// registryAt opens a registry by its host and prefix, as one run does: with the memory
// of what was compressed in cacheDir, which may be empty.
func registryAt(t testing.TB, at, cacheDir string, method client.Compression) *client.Registry {
	t.Helper()
	address, err := client.Parse("registry://" + at)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Open(client.Options{
		Address: address, Name: "registry://" + at, Writes: true, CacheDir: cacheDir, Compression: method,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// docker runs a command of docker on an engine.
func docker(t *testing.T, e *enginetest.Engine, args ...string) string {
	t.Helper()
	out, err := e.Docker(t.Context(), nil, args...)
	if err != nil {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// imageOf returns an image of layers with one file each.
func imageOf(tag string, contents ...string) *enginetest.Image {
	m := enginetest.NewImage()
	for i, content := range contents {
		m.Layer(enginetest.File(fmt.Sprintf("file-%d", i), 0o644, content))
	}
	return m.Tag(tag)
}

// TestRegistryClassic pushes from engines with a classic store, and pulls by docker
// and by dogestry; and what docker has pushed. Whatever the compression, the image
// keeps its ID; a second push sends nothing.
func TestRegistryClassic(t *testing.T) { eachEngine(t, testRegistryClassic) }

func testRegistryClassic(t *testing.T, e *enginetest.Engine, c *counted) {
	s := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, s)
	for name, method := range map[string]client.Compression{"gzip": client.Gzip, "zstd": client.Zstd, "none": client.None} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			img := imageOf("app:"+name, "base "+name, strings.Repeat("text ", 300_000)+name)
			loadImage(t, e, img)
			t.Cleanup(func() { removeAll(t, e, img.ID()) })
			at := proxy.Host + "/" + name
			r := mustPush(t, c, registryAt(t, at, dir, method), "app:"+name)[0]
			if n, _, _ := r.Moved(); n != 2 {
				t.Errorf("%d layers moved, want 2", n)
			}

			// Again, as another run, and on another machine that remembers nothing.
			for what, cacheDir := range map[string]string{"again": dir, "elsewhere": ""} {
				proxy.Rule(nil)
				r := mustPush(t, c, registryAt(t, at, cacheDir, method), "app:"+name)[0]
				if n, _, _ := r.Moved(); n != 0 {
					t.Errorf("%s: %d layers moved", what, n)
				}
				if sent := proxy.Requests(http.MethodPost, http.MethodPatch); len(sent) > 0 {
					t.Errorf("%s: it sends %q", what, sent)
				}
			}

			if pullsByDocker := name != "zstd" || c.Unpacks("zstd"); pullsByDocker {
				removeAll(t, e, img.ID())
				ref := s.Host + "/" + name + "/app:" + name
				docker(t, e, "pull", "--quiet", ref)
				if id := docker(t, e, "image", "inspect", "--format", "{{.Id}}", ref); id != img.ID() {
					t.Errorf("docker has pulled %s, want %s", id, img.ID())
				}
			}
			for _, cacheDir := range []string{dir, ""} { // the sizes of tars are known, or not
				removeAll(t, e, img.ID())
				loads := c.loads
				r := mustPull(t, registryAt(t, at, cacheDir, method), c, "app:"+name)[0]
				if r.ID.String() != img.ID() || c.loads == loads {
					t.Errorf("pulled %s, want %s", r.ID, img.ID())
				}
			}
		})
	}

	t.Run("by docker", func(t *testing.T) {
		ref := s.Host + "/docker/app:1"
		img := imageOf(ref, "by docker", "and more of it")
		loadImage(t, e, img)
		t.Cleanup(func() { removeAll(t, e, img.ID()) })
		docker(t, e, "push", "--quiet", ref)
		removeAll(t, e, img.ID())
		if r := mustPull(t, registryAt(t, s.Host+"/docker", "", client.Gzip), c, "app:1")[0]; r.ID.String() != img.ID() {
			t.Errorf("pulled %s, want %s", r.ID, img.ID())
		}
		// It is known from what docker has pushed what the layers are compressed in.
		proxy.Rule(nil)
		if r := mustPush(t, c, registryAt(t, proxy.Host+"/docker", "", client.Gzip), "app:1")[0]; len(moved(r)) > 0 {
			t.Errorf("layers moved that docker has pushed: %v", moved(r))
		}
		// Mounted into another repository: nothing but a manifest and its config is sent.
		registry := registryAt(t, proxy.Host+"/docker", "", client.Gzip)
		mustPush(t, c, registry, "app:1")
		proxy.Rule(nil)
		images := pushes(t, "app:1")
		images[0].Target = reference(t, "other/place:1")
		if _, err := Push(t.Context(), c, registry, images, Options{}); err != nil {
			t.Fatal(err)
		}
		if sent := proxy.Requests(http.MethodPatch); len(sent) > 0 {
			t.Errorf("it sends %q", sent)
		}
	})
}

// TestRegistryContainerd does the same with engines that keep blobs: the ID is the
// manifest's, and stays.
func TestRegistryContainerd(t *testing.T) { eachContainerd(t, testRegistryContainerd) }

func testRegistryContainerd(t *testing.T, e *enginetest.Engine, c *counted) {
	s := registrytest.Start(t, registrytest.Options{})
	ref := s.Host + "/app:1"
	img := imageOf(ref, "in containerd", "more of it")
	loadImage(t, e, img)
	id := docker(t, e, "image", "inspect", "--format", "{{.Id}}", ref)
	t.Cleanup(func() { removeAll(t, e, ref) })
	docker(t, e, "tag", ref, "own/app:1")
	t.Cleanup(func() { removeAll(t, e, "own/app:1") })
	at := s.Host + "/there"
	mustPush(t, c, registryAt(t, at, "", client.Gzip), "own/app:1")
	if r := mustPush(t, c, registryAt(t, at, "", client.Gzip), "own/app:1")[0]; len(moved(r)) > 0 {
		t.Errorf("layers moved again: %v", moved(r))
	}
	removeAll(t, e, "own/app:1")
	if r := mustPull(t, registryAt(t, at, "", client.Gzip), c, "own/app:1")[0]; r.ID.String() != id {
		t.Errorf("pulled %s, want %s", r.ID, id)
	}
	// What the engine has compressed itself.
	tar := img.Layers()[0].Bytes()
	if _, err := e.Docker(t.Context(), bytes.NewReader(tar), "import", "-", "own/imported:1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, e, "own/imported:1") })
	id = docker(t, e, "image", "inspect", "--format", "{{.Id}}", "own/imported:1")
	mustPush(t, c, registryAt(t, at, "", client.Gzip), "own/imported:1")
	removeAll(t, e, "own/imported:1")
	if r := mustPull(t, registryAt(t, at, "", client.Gzip), c, "own/imported:1")[0]; r.ID.String() != id {
		t.Errorf("pulled %s, want %s", r.ID, id)
	}
	// From a classic push: layers are gzip, the manifest is one that was made for it.
	dir := remoteIn(t, t.TempDir())
	classic := imageOf("classic:1", "of a classic store", "twice")
	copyIn(t, classic, dir)
	registry := registryAt(t, at, "", client.Gzip)
	if _, err := Copy(t.Context(), dir, registry, []CopyImage{{Source: reference(t, "classic:1"), Target: reference(t, "classic:1")}}, CopyOptions{From: "dir", To: "registry"}); err != nil {
		t.Fatal(err)
	}
	mustPull(t, registryAt(t, at, "", client.Gzip), c, "classic:1")
	removeAll(t, e, "classic:1")
}

// TestRegistryPodman loads what a registry has into Podman.
func TestRegistryPodman(t *testing.T) {
	enginetest.EachPodman(t, func(t *testing.T, e *enginetest.Engine) {
		c := &counted{Client: connect(t, e.Host)}
		s := registrytest.Start(t, registrytest.Options{})
		for name, method := range map[string]client.Compression{"gzip": client.Gzip, "zstd": client.Zstd, "none": client.None} {
			img := imageOf("docker.io/library/app:"+name, "for podman", strings.Repeat("text ", 300_000), name)
			loadImage(t, e, img)
			at := s.Host + "/" + name
			mustPush(t, c, registryAt(t, at, "", method), "app:"+name)
			for _, cacheDir := range []string{t.TempDir(), ""} {
				removeAll(t, e, img.ID())
				if r := mustPull(t, registryAt(t, at, cacheDir, method), c, "app:"+name)[0]; r.ID.String() != img.ID() {
					t.Errorf("pulled %s, want %s", r.ID, img.ID())
				}
			}
			removeAll(t, e, img.ID())
		}
	})
}

// copyIn writes an image into a remote, as a push from a classic store does.
func copyIn(t *testing.T, m *enginetest.Image, to remote.Target) {
	t.Helper()
	for _, l := range m.Layers() {
		id, err := image.ParseDigest(l.DiffID())
		if err == nil {
			_, err = to.PutLayer(t.Context(), image.Descriptor{Digest: id, Size: l.Size()}, l.Open())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := to.PutDocument(t.Context(), m.Config()); err != nil {
		t.Fatal(err)
	}
	if err := to.Tag(t.Context(), reference(t, m.Tags()[0]), image.DigestOf(m.Config())); err != nil {
		t.Fatal(err)
	}
}

// TestRegistryCopy copies registry → directory → registry: what a tag names stays the
// same, byte for byte.
func TestRegistryCopy(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	one, two := registryAt(t, s.Host+"/one", "", client.Gzip), registryAt(t, s.Host+"/two", "", client.Gzip)
	dir := remoteIn(t, filepath.Join(t.TempDir(), "images"))
	m := imageOf("team/app:1", "some text", strings.Repeat("text ", 300_000))
	copyIn(t, m, one.In("team/app"))
	ref := reference(t, "team/app:1")
	want, err := one.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	images := []CopyImage{{Source: ref, Target: ref}}
	for _, step := range []struct {
		from remote.Source
		to   remote.Target
	}{{one, dir}, {dir, two}, {two, remoteIn(t, filepath.Join(t.TempDir(), "back"))}} {
		done, err := Copy(t.Context(), step.from, step.to, images, CopyOptions{From: "from", To: "to"})
		if err != nil {
			t.Fatal(err)
		}
		if got := done.Images[0].ID; got != want {
			t.Errorf("copied %s, want %s", got, want)
		}
	}
	if got, err := two.Resolve(t.Context(), ref); err != nil || got != want {
		t.Errorf("the other registry has %s, %v, want %s", got, err, want)
	}
	// Of all, into another repository of the same registry too.
	all, err := AllOf(t.Context(), one, CopyOptions{From: "one"})
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	all = append(all, CopyImage{Source: ref, Target: reference(t, "other/app:2")})
	three := registryAt(t, s.Host+"/three", "", client.Gzip)
	if _, err := Copy(t.Context(), registryAt(t, s.Host+"/one", "", client.Gzip), three, all, CopyOptions{From: "one", To: "three", All: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"team/app:1", "other/app:2"} {
		if got, err := three.Resolve(t.Context(), reference(t, name)); err != nil || got != want {
			t.Errorf("%s is %s, %v, want %s", name, got, err, want)
		}
	}
}

// TestRegistryIndex copies an image for two platforms, and one of which the source has
// one alone, which a stock registry does not take.
func TestRegistryIndex(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	dir := remoteIn(t, t.TempDir())
	in := registryAt(t, s.Host+"/one", "", client.Gzip).In("app")
	var manifests []image.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		m := imageOf("app:"+arch, "for "+arch).EditConfig(func(config []byte) []byte {
			return bytes.Replace(config, []byte(`"architecture":"amd64"`), []byte(`"architecture":"`+arch+`"`), 1)
		})
		copyIn(t, m, in)
		id, err := in.Resolve(t.Context(), reference(t, "app:"+arch))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := in.Document(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, image.Descriptor{Digest: id, Size: int64(len(doc))})
	}
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`)
	for i, arch := range []string{"amd64", "arm64"} {
		if i > 0 {
			index = append(index, ',')
		}
		index = fmt.Appendf(index, `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"platform":{"os":"linux","architecture":%q}}`,
			manifests[i].Digest, manifests[i].Size, arch)
	}
	index = append(index, ']', '}')
	id, ref := image.DigestOf(index), reference(t, "app:1")
	if err := in.PutDocument(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	if err := in.Tag(t.Context(), ref, id); err != nil {
		t.Fatal(err)
	}
	one, two := registryAt(t, s.Host+"/one", "", client.Gzip), registryAt(t, s.Host+"/two", "", client.Gzip)
	images := []CopyImage{{Source: ref, Target: ref}}
	for _, step := range []struct {
		from remote.Source
		to   remote.Target
	}{{one, dir}, {dir, two}} {
		if _, err := Copy(t.Context(), step.from, step.to, images, CopyOptions{From: "from", To: "to", Options: Options{AllPlatforms: true}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := two.Resolve(t.Context(), ref); err != nil || got != id {
		t.Errorf("it is %s, %v, want %s", got, err, id)
	}
	tree, err := remote.ReadTree(t.Context(), two.In("app"), id, nil)
	if err != nil || len(tree.Children) != 2 {
		t.Errorf("%v, %v", tree, err)
	}

	part := remoteIn(t, t.TempDir())
	o := CopyOptions{From: "one", To: "part", Options: Options{Platform: image.Platform{OS: "linux", Architecture: "arm64"}}}
	if _, err := Copy(t.Context(), one, part, images, o); err != nil {
		t.Fatal(err)
	}
	three := registryAt(t, s.Host+"/three", "", client.Gzip)
	_, err = Copy(t.Context(), part, three, images, CopyOptions{From: "part", To: "three"})
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "all of its platforms") {
		t.Errorf("a part of an index: %v, %s", err, fault.AdviceOf(err))
	}
	single := []CopyImage{{Source: image.Reference{Repository: "app", Digest: manifests[1].Digest}, Target: reference(t, "app:arm")}}
	if _, err := Copy(t.Context(), part, three, single, CopyOptions{From: "part", To: "three"}); err != nil {
		t.Error(err)
	}
}

// packless is an engine that unpacks nothing in an archive, as Docker 20.10 unpacks no
// zstd.
type packless struct{ *counted }

func (packless) Unpacks(string) bool { return false }

// TestRegistryMeasures: a layer of unknown size is read to know it where it is sent,
// and no other one.
func TestRegistryMeasures(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, s)
	base, more := imageOf("app:0", "base"), imageOf("app:1", "base", "and more of it")
	copyIn(t, more, registryAt(t, s.Host, "", client.Zstd).In("app"))
	fake := newClassic(base)
	e := packless{&counted{Client: fake.connect(t)}}
	pull := func(o Options) Result {
		t.Helper()
		proxy.Rule(nil)
		results, err := Pull(t.Context(), registryAt(t, proxy.Host, "", client.Zstd), e, pulls(t, "app:1"), o)
		if err != nil {
			t.Fatal(err)
		}
		return results[0]
	}
	read := func(what string, want ...string) { // how often each blob that is a layer is read
		t.Helper()
		times := map[string]int{}
		for _, r := range proxy.Requests(http.MethodGet) {
			if _, id, ok := strings.Cut(r, "/blobs/sha256:"); ok && id != strings.TrimPrefix(more.ID(), "sha256:") {
				times[id]++
			}
		}
		var got []string
		for _, n := range times {
			got = append(got, fmt.Sprintf("%d times", n))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	r := pull(Options{DryRun: true})
	read("a plan")
	if n, _, _ := r.Moved(); n != 1 {
		t.Errorf("a plan moves %d layers", n)
	}
	r = pull(Options{})
	read("one that the engine lacks", "2 times")
	if n, size, _ := r.Moved(); n != 1 || size != more.Layers()[1].Size() || r.ID.String() != more.ID() {
		t.Errorf("%d layers of %d bytes moved for %s", n, size, r.ID)
	}
	pull(Options{})
	read("what the engine has")

	// Who knows the size is believed.
	e = packless{&counted{Client: newClassic(base).connect(t)}}
	pull(Options{Measure: func(_ context.Context, id image.Digest, _ func() (int64, error)) (int64, error) {
		if id.String() != more.Layers()[1].DiffID() {
			t.Errorf("asked for the size of %s", id)
		}
		return more.Layers()[1].Size(), nil
	}})
	read("one of which the size is told", "1 times")

	// The engine has said that it holds more than it does: all is sent.
	e = packless{&counted{Client: newClassic().connect(t), held: func(_, all int) int { return all - 1 }}}
	if n, _, _ := pull(Options{}).Moved(); n != 2 {
		t.Errorf("%d layers moved, want 2", n)
	}
}
