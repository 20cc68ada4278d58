package dockerarchive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// TestShapes reads what different programs write.
func TestShapes(t *testing.T) {
	img := someImage(t, "app")
	layers := func(name func(i int, l []byte) string) saved {
		s := saved{Config: img.ID.Hex() + ".json", RepoTags: []string{"app:1"}}
		for i, l := range img.Layers {
			s.Layers = append(s.Layers, name(i, l))
		}
		return s
	}
	hex := func(l []byte) string { return image.DigestOf(l).Hex() }
	podman := layers(func(_ int, l []byte) string { return hex(l) + ".tar" })
	crane := layers(func(_ int, l []byte) string { return hex(gzipped(t, l)) + ".tar.gz" })
	crane.Config = "sha256:" + img.ID.Hex()
	blobs := layers(func(_ int, l []byte) string { return "blobs/sha256/" + hex(l) })
	blobs.Config = "blobs/sha256/" + img.ID.Hex()
	classic := blobs
	classic.LayerSources = []byte(`{"sha256:x":{}}`)
	manifest := img.Manifest()
	manifestID := image.DigestOf(manifest)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":%q,"size":%d,"annotations":{"io.containerd.image.name":"docker.io/library/app:1","org.opencontainers.image.ref.name":"1"}}]}`, manifestID, len(manifest))
	inLayout := []part{
		{tar.Header{Name: "blobs/", Typeflag: tar.TypeDir}, nil},
		regular("blobs/sha256/"+img.ID.Hex(), img.Config), regular("blobs/sha256/"+manifestID.Hex(), manifest),
		regular("blobs/sha256/"+hex(img.Layers[0]), img.Layers[0]), regular("blobs/sha256/"+hex(img.Layers[1]), img.Layers[1]),
		regular("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), regular("index.json", index),
	}
	byManifest := img
	byManifest.ID = img.ID // Pull compares the config's
	for name, test := range map[string]struct {
		parts []part
		id    image.ID
	}{
		"docker 20": {old(t, "app:1", img), img.ID},
		"podman": {[]part{
			regular(hex(img.Layers[0])+".tar", img.Layers[0]), regular(hex(img.Layers[1])+".tar", img.Layers[1]), regular(podman.Config, img.Config), manifestJSON(t, podman),
			link("x/layer.tar", "../"+hex(img.Layers[0])+".tar"),
		}, img.ID},
		"crane": {[]part{
			regular(crane.Config, img.Config), regular(crane.Layers[0], gzipped(t, img.Layers[0])), regular(crane.Layers[1], gzipped(t, img.Layers[1])), manifestJSON(t, crane),
		}, img.ID},
		"docker 29, classic":    {append(slices.Clone(inLayout), manifestJSON(t, classic)), img.ID},
		"docker 29, containerd": {append(slices.Clone(inLayout), manifestJSON(t, blobs)), manifestID},
		"a layout in a tar":     {inLayout, manifestID},
		"dotted names":          {[]part{regular("./app.json", img.Config), regular("./0", img.Layers[0]), regular("./1", img.Layers[1]), manifestJSON(t, saved{"app.json", []string{"app:1"}, []string{"0", "./1", "x/../0"}, nil})}, img.ID},
	} {
		a := open(t, pack(t, test.parts...))
		holds(t, a, "app:1", img)
		if id, err := a.Resolve(t.Context(), remotetest.Ref(t, "app:1")); err != nil || id != test.id {
			t.Errorf("%s: it is %s, %v, want %s", name, id, err, test.id)
		}
		var tags []string
		for tag, err := range a.References(t.Context(), "") {
			check(t, err)
			tags = append(tags, tag.Reference.String())
		}
		if !slices.Equal(tags, []string{"app:1"}) {
			t.Errorf("%s: tags %q", name, tags)
		}
		holds(t, a, "app@"+img.ID.String(), img)
	}
}

// TestUntagged: the only image needs no name; several are there by their digests.
func TestUntagged(t *testing.T) {
	one, two := someImage(t, "one"), remotetest.NewImage(t, "two", remotetest.FileLayer(t, "x", "x"))
	holds(t, open(t, pack(t, old(t, "", one)...)), "any/thing:1", one)
	parts := slices.DeleteFunc(append(old(t, "", one), old(t, "", two)...), func(p part) bool { return p.Name == manifestFile || p.Name == "repositories" })
	entry := func(img remotetest.Image) saved {
		var s saved
		for _, p := range old(t, "", img) {
			if strings.HasSuffix(p.Name, "layer.tar") {
				s.Layers = append(s.Layers, p.Name)
			}
		}
		s.Config = img.ID.Hex() + ".json"
		return s
	}
	a := open(t, pack(t, append(parts, manifestJSON(t, entry(one), entry(two)))...))
	holds(t, a, "app@"+one.ID.String(), one)
	holds(t, a, "app@"+two.ID.String(), two)
	_, err := a.Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.NotFound) || !strings.Contains(fault.AdviceOf(err), "app@sha256:") {
		t.Errorf("one of two without names: %v", err)
	}
	var told error
	for _, err := range a.References(t.Context(), "") {
		told = err
	}
	if !fault.Is(told, fault.Refused) {
		t.Errorf("all of two without names: %v", told)
	}
}

// TestHostile: what no program writes is refused, by its name, or harmless.
func TestHostile(t *testing.T) {
	img := someImage(t, "app")
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, img.Layers[1], 0o644))
	with := func(more ...part) []part { return append(old(t, "app:1", img), more...) }
	without := func(name string, more ...part) []part {
		return append(slices.DeleteFunc(old(t, "app:1", img), func(p part) bool { return strings.HasSuffix(p.Name, name) }), more...)
	}
	layer := func(i int) string {
		return image.DigestOf(append([]byte{byte(i)}, img.Layers[i]...)).Hex() + "/layer.tar"
	}
	id, inLayout := image.DigestOf(img.Manifest()), regular("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	index := regular("index.json", fmt.Appendf(nil, `{"manifests":[{"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":"app:1"}}]}`, id))
	huge := remotetest.Noise("x", 1024)
	many := strings.Repeat(`{"Config":"c","Layers":[]},`, maxImages+1)
	texts := func(n int) string { return `["a"` + strings.Repeat(`,"a"`, n-1) + "]" }
	named := `{"Config":"c","Layers":[],"RepoTags":` + texts(maxTags/2+1) + "}"
	flipped := slices.Clone(img.Layers[1])
	flipped[0] ^= 1
	for name, test := range map[string]struct {
		parts []part
		kind  fault.Kind
		says  string
	}{
		"above":                     {with(regular("../x", nil)), fault.Damaged, `"../x"`},
		"absolute":                  {with(regular("/etc/passwd", nil)), fault.Damaged, `"/etc/passwd"`},
		"twice":                     {with(manifestJSON(t)), fault.Damaged, "two entries named \"manifest.json\""},
		"link out":                  {without(layer(1), link(layer(1), "../../secret")), fault.Damaged, "link out of the archive"},
		"absolute link":             {without(layer(1), link(layer(1), secret)), fault.Damaged, "link out of the archive"},
		"hard link out":             {without(layer(1), part{tar.Header{Name: layer(1), Typeflag: tar.TypeLink, Linkname: secret}, nil}), fault.Damaged, "link out of the archive"},
		"endless link":              {without(layer(1), link(layer(1), "layer.tar")), fault.Damaged, "link without end"},
		"a device":                  {without(layer(1), part{tar.Header{Name: layer(1), Typeflag: tar.TypeChar}, nil}), fault.Damaged, "is missing"},
		"a missing layer":           {without(layer(1)), fault.Damaged, "is missing"},
		"another layer":             {without(layer(1), regular(layer(1), img.Layers[0])), fault.Damaged, "is damaged"},
		"a damaged layer":           {without(layer(1), regular(layer(1), flipped)), fault.Damaged, "is damaged"},
		"a missing config":          {without(img.ID.Hex() + ".json"), fault.Damaged, "it lacks \"" + img.ID.Hex() + ".json\""},
		"another config":            {without(img.ID.Hex()+".json", regular(img.ID.Hex()+".json", someImage(t, "other").Config)), fault.Damaged, "not what its name says"},
		"no config":                 {without(img.ID.Hex()+".json", regular(img.ID.Hex()+".json", []byte("{}"))), fault.Damaged, "not what its name says"},
		"fewer layers":              {without(manifestFile, manifestJSON(t, saved{img.ID.Hex() + ".json", nil, []string{"a"}, nil})), fault.Damaged, "3 layers, and 1 files"},
		"no JSON":                   {without(manifestFile, regular(manifestFile, []byte("{"))), fault.Damaged, "manifest.json is damaged"},
		"JSON with more":            {without(manifestFile, regular(manifestFile, []byte("[]x"))), fault.Damaged, "manifest.json is damaged"},
		"too many images":           {without(manifestFile, regular(manifestFile, []byte("["+many[:len(many)-1]+"]"))), fault.Damaged, "more than 10000 images"},
		"too many names":            {without(manifestFile, regular(manifestFile, []byte("["+named+","+named+"]"))), fault.Damaged, "more than 20000 names"},
		"an image of many names":    {without(manifestFile, regular(manifestFile, []byte(`[{"Config":"c","Layers":[],"RepoTags":`+texts(maxTags+1)+"}]"))), fault.Damaged, "more than 20000 texts"},
		"an image of many layers":   {without(manifestFile, regular(manifestFile, []byte(`[{"Config":"c","Layers":`+texts(maxTags+1)+"}]"))), fault.Damaged, "more than 20000 texts"},
		"names that are none":       {without(manifestFile, regular(manifestFile, []byte(`[{"Config":"c","Layers":[],"RepoTags":"a"}]`))), fault.Damaged, "a list was expected"},
		"no names of images":        {without(manifestFile), fault.Refused, "has no manifest.json"},
		"another layout":            {with(regular("oci-layout", []byte(`{"imageLayoutVersion":"2"}`))), fault.Refused, "it has the version"},
		"a layout without one":      {with(regular("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))), fault.Damaged, "it has no index.json"},
		"a broken index":            {with(regular("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), regular("index.json", huge)), fault.Damaged, "index.json is damaged"},
		"a blob that is a link out": {[]part{inLayout, index, link(blobName(id), secret)}, fault.Damaged, "link out of the archive"},
		"a blob that is another":    {[]part{inLayout, index, regular(blobName(id), img.Config)}, fault.Damaged, "document " + id.Short() + " is damaged"},
		"a blob that is missing":    {[]part{inLayout, index}, fault.Damaged, id.Hex() + " is missing"},
		"a bomb":                    {without(layer(1), regular(layer(1), gzipped(t, make([]byte, 1<<20)))), fault.Damaged, "is damaged"},
	} {
		path := inFile(t, pack(t, test.parts...))
		err := pullAll(t.Context(), path)
		if !fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v (%s), want a fault of kind %s that says %q", name, err, fault.KindOf(err), test.kind, test.says)
		}
	}
}

// pullAll opens an archive and reads app:1.
func pullAll(ctx context.Context, path string) error {
	a, err := Open(ctx, path, "docker-archive:a.tar")
	if err != nil {
		return err
	}
	_, err = remotetest.Pull(ctx, a, image.Reference{Repository: "app", Tag: "1"})
	return errors.Join(err, a.Close())
}

// TestTruncated cuts an archive everywhere: it is never taken for whole.
func TestTruncated(t *testing.T) {
	img := someImage(t, "app")
	whole := pack(t, old(t, "app:1", img)...)
	need := strings.LastIndex(string(whole), "]") + 1 // behind manifest.json nothing is needed
	for n := 0; n < need; n += 97 {
		if err := pullAll(t.Context(), inFile(t, whole[:n])); !fault.Is(err, fault.Damaged) && !fault.Is(err, fault.Refused) {
			t.Errorf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	check(t, pullAll(t.Context(), inFile(t, whole)))
}

// TestNotRead: what is too large is not read, and what is no file not waited for.
func TestNotRead(t *testing.T) {
	dir := t.TempDir()
	header, err := headerOf(manifestFile, 1<<30)
	check(t, err)
	path := filepath.Join(dir, "huge.tar")
	check(t, os.WriteFile(path, header, 0o644))
	check(t, os.Truncate(path, 512+1<<30+1024)) // a hole
	if err := pullAll(t.Context(), path); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "1073741824 bytes") {
		t.Errorf("a manifest.json of 1 GiB: %v", err)
	}
	if header, err = headerOf("x", 1<<40); err != nil {
		t.Fatal(err)
	}
	check(t, os.WriteFile(path, header, 0o644))
	check(t, os.Truncate(path, 1<<20))
	if err := pullAll(t.Context(), path); !fault.Is(err, fault.Damaged) {
		t.Errorf("an entry of 1 TiB that is not there: %v", err)
	}
	if err := pullAll(t.Context(), dir); !fault.Is(err, fault.Usage) {
		t.Errorf("a directory: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pullAll(ended, inFile(t, pack(t, old(t, "app:1", someImage(t, "app"))...))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzArchive: whatever the bytes are, what comes out is what its digest says.
func FuzzArchive(f *testing.F) {
	img := someImage(f, "app")
	f.Add(pack(f, old(f, "app:1", img)...))
	f.Add(pack(f, old(f, "", img)...))
	f.Add(pack(f, regular("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), regular("index.json", []byte(`{"manifests":[]}`))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		a, err := Open(t.Context(), inFile(t, b), "a")
		if err != nil {
			return
		}
		defer a.Close()
		for _, name := range []string{"app:1", "app@" + img.ID.String()} {
			if got, err := remotetest.Pull(t.Context(), a, remotetest.Ref(t, name)); err == nil { // it has proved all digests
				for i, d := range got.DiffIDs() {
					if image.DigestOf(got.Layers[i]) != d {
						t.Errorf("layer %d is another", i)
					}
				}
			}
		}
	})
}

// FuzzManifest: a manifest.json that is read has only images that can be.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`[{"Config":"a.json","RepoTags":["app:1"],"Layers":["a/layer.tar"],"LayerSources":{"x":{}}}]`))
	f.Add([]byte(`[{"Config":"a","RepoTags":null,"Layers":null}]`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		images, err := parseManifest(doc)
		if err != nil {
			return
		}
		for _, s := range images {
			if s.Config == "" || len(s.Layers) > image.MaxLayers || len(images) > maxImages {
				t.Errorf("%q gives %+v", doc, s)
			}
		}
	})
}
