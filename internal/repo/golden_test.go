package repo_test

import (
	"archive/tar"
	"bytes"
	"flag"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

var update = flag.Bool("update", false, "write testdata/golden anew: only for a change of the format that docs/format.md tells of")

const golden = "../../testdata/golden/2.0"

// goldenTags are the tags of the golden repository: the ids that they name.
var goldenTags = map[string]string{
	"myapp:1":                      "38445fff516daaecc7dc7e712667c15ffcfa2b895b86a41379de1d9781dbc753",
	"myapp:by-hand":                "38445fff516daaecc7dc7e712667c15ffcfa2b895b86a41379de1d9781dbc753",
	"localhost:5000/team/myapp:V2": "080d7ad77160b728a4bb8c577ce79933e5e164a64ea490c09794554f24ffa722",
}

// byHand is the tag that somebody wrote with echo: a newline is behind it.
const byHand = "repositories/myapp/by-hand"

// goldenStrangers are objects that all readers ignore.
func goldenStrangers(entry string) map[string]string {
	return map[string]string{
		"README":                        "An unknown file at the root.\n",
		"repositories/stray":            "An unknown file that is in no repository.\n",
		"repositories/Upper/1":          "An unknown file: no repository has upper case letters.\n",
		"repositories/myapp/.1.a1B2c3":  "What rsync left behind.\n",
		"run/stranger":                  "Readers do not look here.\n",
		"images/readme.txt":             "An unknown file beside the entries.\n",
		entry + "notes.txt":             "An unknown file in an entry.\n",
		entry + ".layer.tar.lz4.a1B2c3": "What rsync left behind.\n",
	}
}

// goldenImages returns what goldenWrite writes, and which codec each of the
// layers is stored with, in the order in which they occur.
func goldenImages(t *testing.T) (one, two remotetest.Image, codecs []codec.Codec) {
	base := remotetest.Tar(t,
		remotetest.Entry{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
		remotetest.Entry{Header: tar.Header{Name: "etc/motd"}, Content: strings.Repeat("so portable, much image\n", 100)},
		remotetest.Entry{Header: tar.Header{Name: "etc/issue", Typeflag: tar.TypeSymlink, Linkname: "motd"}},
	)
	libs := remotetest.FileLayer(t, "lib/noise", string(remotetest.Noise("golden", 2000)))
	app := remotetest.FileLayer(t, "bin/app", strings.Repeat("#!/bin/true\n", 300))
	one = remotetest.NewImage(t, "golden one", base, libs, app)
	two = remotetest.NewImage(t, "golden two", base, one.Config, remotetest.Tar(t), base)
	return one, two, []codec.Codec{codec.LZ4, codec.Zstd, codec.None, codec.LZ4, codec.Zstd}
}

func goldenWrite(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(golden, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openDir(t, golden)
	one, two, codecs := goldenImages(t)
	for i, id := range image.Distinct(append(one.DiffIDs(), two.DiffIDs()...)) {
		img := one
		if img.Layer(id) == nil {
			img = two
		}
		if err := remotetest.Put(t.Context(), open(t, s, codecs[i]), img, remote.Closure{Layers: []image.DiffID{id}}); err != nil {
			t.Fatal(err)
		}
	}
	for ref, img := range map[string]remotetest.Image{"myapp:1": one, "localhost:5000/team/myapp:V2": two} {
		if _, err := remotetest.Push(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, byHand, []byte(one.ID.Hex()+"\n"))
	for key, content := range goldenStrangers("images/" + one.DiffIDs()[0].Hex() + "/") {
		name := filepath.Join(golden, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func openGolden(t *testing.T) (storage.Store, *repo.Repo) {
	t.Helper()
	if *update {
		goldenWrite(t)
	}
	s := openDir(t, golden)
	return s, open(t, s, codec.LZ4)
}

// TestGoldenIsRead proves that what an earlier version wrote is read.
func TestGoldenIsRead(t *testing.T) {
	s, r := openGolden(t)
	want := slices.Sorted(maps.Keys(goldenTags))
	var got []string
	for tag, err := range r.References(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tag.Reference.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	used := map[string]bool{}
	for ref, id := range goldenTags {
		img, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, ref))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if img.ID.Hex() != id {
			t.Errorf("%s is image %s, want %s", ref, img.ID.Hex(), id)
		}
		manifest := image.DigestOf(img.Manifest())
		byManifest := remotetest.Ref(t, "myapp@"+manifest.String())
		if named, err := r.Resolve(t.Context(), byManifest); err != nil || named != manifest {
			t.Errorf("%s by its manifest %s: %s, %v", ref, manifest, named, err)
		}
		if by, err := remotetest.Pull(t.Context(), r, byManifest); err != nil || by.ID != img.ID {
			t.Errorf("%s by its manifest: %s, %v", ref, by.ID, err)
		}
		layers, err := remote.Layers(t.Context(), r, img.DiffIDs())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			used[codecOf(t, l.Object).Name()] = true
		}
	}
	if len(used) != 3 {
		t.Errorf("the golden layers are stored with %v only", used)
	}
	size := 0
	for _, content := range tree(t, s) {
		size += len(content)
	}
	if size > 200<<10 {
		t.Errorf("the golden repository has %d bytes", size)
	}
	for _, name := range []string{"stray:latest", "myapp:2"} {
		if _, err := r.Resolve(t.Context(), remotetest.Ref(t, name)); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v, want a not-found fault", name, err)
		}
	}
}

// TestGoldenIsWritten proves that the images of the golden repository, pushed
// today, give the same bytes, and that a push to the golden repository itself
// finds nothing to do.
func TestGoldenIsWritten(t *testing.T) {
	s, r := openGolden(t)
	old := tree(t, s)
	now := mem.New()
	var strangers map[string]string
	for ref := range goldenTags {
		img, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, ref))
		if err != nil {
			t.Fatal(err)
		}
		missing, there, err := r.Missing(t.Context(), img.Closure())
		if err != nil || !missing.Empty() {
			t.Errorf("%s: a push of it would write %v: %v", ref, missing, err)
		}
		for _, l := range there {
			w := open(t, now, codecOf(t, l.Object))
			if err := remotetest.Put(t.Context(), w, img, remote.Closure{Layers: []image.DiffID{l.Digest}}); err != nil {
				t.Fatal(err)
			}
		}
		if ref == "myapp:1" {
			strangers = goldenStrangers("images/" + img.DiffIDs()[0].Hex() + "/")
		}
		if strings.HasSuffix(ref, ":by-hand") {
			continue
		}
		if _, err := remotetest.Push(t.Context(), open(t, now, codec.LZ4), remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	written := tree(t, now)
	changed := map[string]bool{} // entries whose layer is encoded otherwise
	for key, content := range written {
		if !strings.Contains(key, "/layer.tar") || bytes.Equal(content, old[key]) {
			continue
		}
		c := codecOf(t, key)
		if !bytes.Equal(all(t, c.Decode(bytes.NewReader(content))), all(t, c.Decode(bytes.NewReader(old[key])))) {
			t.Errorf("FORMAT CHANGED: %s decodes to other bytes", key)
			continue
		}
		changed[path.Dir(key)+"/json"] = true
		t.Errorf("the output of the codec %s has changed: %s has %d bytes, had %d, of the same content. "+
			"The format allows that. If it is meant: go test ./internal/repo -run Golden -update", c, key, len(content), len(old[key]))
	}
	for key, content := range written {
		was, ok := old[key]
		switch {
		case strings.Contains(key, "/layer.tar"), changed[key]:
		case !ok:
			t.Errorf("FORMAT CHANGED: %s is written today and was not", key)
		case !bytes.Equal(content, was):
			t.Errorf("FORMAT CHANGED: %s has another content\n was %q\n now %q", key, was, content)
		}
	}
	for key := range old {
		if _, ok := written[key]; ok || key == byHand {
			continue
		}
		if _, ok := strangers[key]; !ok {
			t.Errorf("FORMAT CHANGED: %s was written and is not today", key)
		}
	}
}

// TestGoldenImages proves that the images of the golden repository have what
// makes them worth keeping.
func TestGoldenImages(t *testing.T) {
	s, r := openGolden(t)
	one, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "myapp:1"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "localhost:5000/team/myapp:V2"))
	if err != nil {
		t.Fatal(err)
	}
	ids := two.DiffIDs()
	if len(image.Distinct(ids)) == len(ids) {
		t.Error("no layer occurs twice")
	}
	if !slices.Contains(ids, one.ID) {
		t.Error("no config is a layer too")
	}
	if got := get(t, s, "images/"+one.ID.Hex()+"/json"); !bytes.Equal(got, one.Config) {
		t.Error("the json of an entry that is both is not the document")
	}
	if got := get(t, s, byHand); !bytes.HasSuffix(got, []byte("\n")) {
		t.Error("no tag has a newline: has something changed the line ends of testdata?")
	}
}
