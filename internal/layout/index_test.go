package layout

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func digestOf(s string) image.Digest { return image.DigestOf([]byte(s)) }

func item(name, content string) Item {
	return Item{Name: ParseName(name), Root: image.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digestOf(content), Size: 7}}
}

// foreign is an index.json as other programs may write it.
var foreign = fmt.Sprintf(`{
  "schemaVersion": 2, "x-unknown": {"b": [1, 2.50]}, "annotations": {"a": "b"},
  "manifests": [
    {"mediaType": "m", "digest": "sha512:abc", "size": 3, "annotations": {"org.opencontainers.image.ref.name": "odd:1"}},
    {"mediaType": "m", "digest": %q, "size": 3, "x-own": "kept", "platform": {"os": "linux", "architecture": "arm64"}, "annotations": {"org.opencontainers.image.ref.name": "latest", "n": "v"}},
    {"mediaType": "m", "digest": %q, "size": 3, "annotations": {"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"}},
    {"mediaType": "m", "digest": %q, "size": 3},
    {"mediaType": "m", "digest": %q, "size": 3, "annotations": {"org.opencontainers.image.ref.name": "app:1"}}
  ]
}`, digestOf("bare"), digestOf("named"), digestOf("nameless"), digestOf("twice"))

// TestIndexKeeps: what nobody here knows stays when a name is set, and a name is
// there once.
func TestIndexKeeps(t *testing.T) {
	x, err := ParseIndex([]byte(foreign))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(x.Items()); n != 4 {
		t.Fatalf("%d items", n)
	}
	if !x.Set(item("app:1", "new")) || !x.Set(item("other/app:2", "new")) {
		t.Error("nothing has changed")
	}
	if x.Set(item("app:1", "new")) {
		t.Error("the same again is a change")
	}
	doc, err := x.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(doc, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(foreign), &want); err != nil {
		t.Fatal(err)
	}
	entry := func(name string) any {
		return map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digestOf("new").String(), "size": 7.0,
			"annotations": map[string]any{"org.opencontainers.image.ref.name": name, "io.containerd.image.name": "docker.io/" + strings.Replace("library/"+name, "library/other", "other", 1)},
		}
	}
	list := want["manifests"].([]any)
	want["manifests"] = []any{list[0], list[1], entry("app:1"), list[3], entry("other/app:2")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestFind: which image a name stands for.
func TestFind(t *testing.T) {
	named := []Item{item("app:1", "a"), item("1", "b"), item("latest", "c"), item("", "d"), item("app:2", "e"), item("app:2", "f"), item("app:3", "g"), item("app:3", "g")}
	for _, test := range []struct {
		items    []Item
		ref      string
		want     string // content of the root; else
		kind     fault.Kind
		says     string
		advises  string
		advises2 string
	}{
		{items: named, ref: "app:1", want: "a"},
		{items: named, ref: "other:1", want: "b"},
		{items: named, ref: "app", want: "c"},
		{items: named, ref: "app:3", want: "g"},
		{items: named, ref: "app:2", kind: fault.Refused, says: "names 2 images app:2", advises: "app@sha256:"},
		{items: named, ref: "app:4", kind: fault.NotFound, says: "no image app:4 in oci:x", advises: "app has the tags 1, 2, 3, latest."},
		{items: named[:1], ref: "app:2", kind: fault.NotFound, says: "app:2", advises: "app has the tags 1."},
		{items: named[3:4], ref: "any/thing:1", want: "d"},
		{items: append(named[3:4:4], item("", "z")), ref: "app:1", kind: fault.NotFound, says: "its 2 images have no names", advises: digestOf("d").String()},
		{items: nil, ref: "app:1", kind: fault.NotFound, says: "app:1", advises: "There are no images in it."},
	} {
		ref, err := image.ParseReference(test.ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := find("oci:x", test.items, ref)
		if test.want != "" {
			if err != nil || got.Root.Digest != digestOf(test.want) {
				t.Errorf("%s is %s, %v, want %q", test.ref, got.Root.Digest, err, test.want)
			}
			continue
		}
		if fault.KindOf(err) != test.kind || !strings.Contains(fmt.Sprint(err), test.says) || !strings.Contains(fault.AdviceOf(err), test.advises) {
			t.Errorf("%s: %v (%s), advice %q; want %s, %q, %q", test.ref, err, fault.KindOf(err), fault.AdviceOf(err), test.kind, test.says, test.advises)
		}
	}
}

// TestNames: what a name in an index may be.
func TestNames(t *testing.T) {
	for s, want := range map[string]image.Reference{
		"latest":                        {Tag: "latest"},
		"1.0-rc_1":                      {Tag: "1.0-rc_1"},
		"app:1":                         {Repository: "app", Tag: "1"},
		"docker.io/library/app:1":       {Repository: "app", Tag: "1"},
		"localhost:5000/team/app:V1":    {Repository: "localhost:5000/team/app", Tag: "V1"},
		"team/app":                      {Repository: "team/app", Tag: "latest"},
		"":                              {},
		"-x":                            {},
		"App:1":                         {},
		"a b":                           {},
		"app:1\x1b[2J":                  {},
		"../app:1":                      {},
		"app@" + digestOf("x").String(): {},
		strings.Repeat("t", 129):        {Repository: strings.Repeat("t", 129), Tag: "latest"},
	} {
		if got := ParseName(s); got != want {
			t.Errorf("%q is %+v, want %+v", s, got, want)
		}
	}
}

// TestHostileIndex: what is no index, or too much.
func TestHostileIndex(t *testing.T) {
	entry := `{"digest":"` + digestOf("x").String() + `","size":1},`
	for name, doc := range map[string]string{
		"nothing":        ``,
		"no object":      `[]`,
		"a config":       `{"rootfs":{}}`,
		"a mixture":      `{"manifests":[],"layers":[]}`,
		"twice":          `{"manifests":[],"manifests":[]}`,
		"other case":     `{"Manifests":[]}`,
		"no list":        `{"manifests":{}}`,
		"a number":       `{"manifests":7}`,
		"cut":            `{"manifests":[`,
		"something":      `{"manifests":[]}x`,
		"too many":       `{"manifests":[` + strings.Repeat(entry, maxItems) + entry[:len(entry)-1] + `]}`,
		"no kind at all": `{}`,
	} {
		if _, err := ParseIndex([]byte(doc)); err == nil {
			t.Errorf("%s is taken for an index", name)
		}
	}
	for _, doc := range []string{`{"manifests":null}`, `{"manifests":[7,null,{},{"digest":"x"},{"digest":"` + digestOf("x").String() + `"}]}`} {
		x, err := ParseIndex([]byte(doc))
		if err != nil || len(x.Items()) != 0 {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

// FuzzIndex: an index that is read can be written, with one name more and all else
// as it was; and no two names are the same image's by chance.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte(`{"manifests":null}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + digestOf("x").String() + `","size":1,"annotations":{"org.opencontainers.image.ref.name":"new:1"}}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		x, err := ParseIndex(doc)
		if err != nil {
			return
		}
		others := 0
		for _, i := range x.Items() {
			if i.Root.Digest.IsZero() || i.Root.Size < 0 {
				t.Errorf("an item without a digest or size: %+v", i)
			}
			if i.Name != ParseName("new:1") {
				others++
			}
		}
		x.Set(item("new:1", "new"))
		written, err := x.Bytes()
		if err != nil {
			return // too large
		}
		again, err := ParseIndex(written)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", doc, written, err)
		}
		found := distinct(again.Items(), ParseName("new:1"))
		if len(found) != 1 || found[0].Root.Digest != digestOf("new") || len(again.Items()) != others+1 {
			t.Errorf("%q is written as %q", doc, written)
		}
	})
}
