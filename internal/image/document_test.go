package image

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestKindOf(t *testing.T) {
	for doc, want := range map[string]Kind{
		`{"rootfs":{}}`:   ConfigKind,
		`{"rootfs":null}`: ConfigKind,
		`{"architecture":"amd64","config":{"layers":[]},"rootfs":{"layers":1}}`: ConfigKind,
		`{"layers":[]}`: ManifestKind,
		`{"schemaVersion":2,"config":{},"layers":[]}`:                            ManifestKind,
		`{"l\u0061yers":[]}`:                                                     ManifestKind,
		" \n\t{\"manifests\":[]}\n ":                                             IndexKind,
		`{"manifests":[{"layers":[],"rootfs":{}}],"annotations":{"layers":"x"}}`: IndexKind,
		`{"a":1,"a":2,"layers":[]}`:                                              ManifestKind, // nobody asks for "a"
	} {
		if got, err := KindOf([]byte(doc)); err != nil || got != want {
			t.Errorf("%s is a %s, %v", doc, got, err)
		}
	}
}

// confusing are documents that could mean different things to different readers.
var confusing = []string{
	`{"rootfs":{},"layers":[]}`, `{"layers":[],"manifests":[]}`, `{"manifests":[],"rootfs":{}}`,
	`{"rootfs":{},"rootfs":{}}`, `{"layers":[],"layers":[]}`, `{"layers":[],"l\u0061yers":[]}`,
	`{"rootfs":{},"RootFS":{}}`, `{"Layers":[]}`, `{"layers":[],"LAYERS":[]}`, `{"rootfs":{},"Layers":[]}`,
	`{"manifests":[],"manife` + "\u017f" + `ts":[]}`, // folds to s
}

func TestKindOfRefused(t *testing.T) {
	deep := strings.Repeat(`{"rootfs":`, 1<<17)
	for _, doc := range append([]string{
		``, ` `, `{`, `[]`, `null`, `"rootfs"`, `1`, `{}`, `{"a":1}`, `{"Rootfs":1}`, "\xef\xbb\xbf{\"layers\":[]}",
		`{"layers":[]`, `{"layers":[]]`, `{"layers":[],}`, `{"layers"}`, `{"layers":}`, `{layers:[]}`, `{1:2,"layers":[]}`,
		`{"layers":[]} x`, `{"layers":[]}{"layers":[]}`, `{"layers":[]},`, `{"layers":tru}`, `{"a":{"rootfs":1}}`,
		deep, deep + strings.Repeat("}", 1<<17), `{"layers":` + strings.Repeat("[", 1<<20), `{"layers":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	}, confusing...) {
		if k, err := KindOf([]byte(doc)); err == nil || k != UnknownKind {
			t.Errorf("%.80s is a %s, %v", doc, k, err)
		}
	}
}

const sha = "sha256:" + helloHex

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte(`{
		"created":"2024-01-02T03:04:05.6Z","architecture":"arm","variant":"v7","os":"linux","os.version":"10.0",
		"config":{"Env":["A=b"],"Entrypoint":["/x"],"Labels":{"a":"1","A":"2"}},"container_config":{"anything":[1]},
		"rootfs":{"type":"layers","diff_ids":["` + sha + `","` + sha + `"],"extra":1},
		"history":[{"created_by":"RUN x"},{"created_by":"ENV","empty_layer":true}],"moby.x":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Created.String(); got != "2024-01-02 03:04:05.6 +0000 UTC" {
		t.Errorf("created %s", got)
	}
	want := &Config{
		Created:  c.Created,
		Platform: Platform{OS: "linux", Architecture: "arm", Variant: "v7", OSVersion: "10.0"},
		DiffIDs:  []DiffID{hello, hello},
		History:  []ocispec.History{{CreatedBy: "RUN x"}, {CreatedBy: "ENV", EmptyLayer: true}},
		Run:      ocispec.ImageConfig{Env: []string{"A=b"}, Entrypoint: []string{"/x"}, Labels: map[string]string{"a": "1", "A": "2"}},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	if got := c.Platform.String(); got != "linux/arm/v7" {
		t.Errorf("platform %s", got)
	}
	for _, doc := range []string{
		`{"rootfs":{"type":"layers"}}`, `{"rootfs":{"type":"layers","diff_ids":null},"history":null}`, `{"rootfs":{"type":"layers","diff_ids":[]},"created":null,"config":null}`,
	} {
		if c, err := ParseConfig([]byte(doc)); err != nil || len(c.DiffIDs) != 0 || c.Created != nil {
			t.Errorf("%s: %+v, %v", doc, c, err)
		}
	}
}

func rootfs(diffIDs string) string { return `{"rootfs":{"type":"layers","diff_ids":` + diffIDs + `}}` }

func list(element string, n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

func TestParseConfigRefused(t *testing.T) {
	zero := Digest{}.String()
	for _, doc := range append([]string{
		`{"layers":[]}`, `{"manifests":[]}`, `{}`, `{"rootfs":null}`, `{"rootfs":[]}`, `{"rootfs":"layers"}`, `{"rootfs":{}}`,
		`{"rootfs":{"type":"layers+base","diff_ids":[]}}`, `{"rootfs":{"type":1}}`,
		rootfs(`{}`), rootfs(`"` + sha + `"`), rootfs(`[1]`), rootfs(`[null]`), rootfs(`[""]`), rootfs(`["` + helloHex + `"]`),
		rootfs(`["` + zero + `"]`), rootfs(`[["` + sha + `"]]`), rootfs(`["sha512:` + helloHex + helloHex + `"]`), rootfs(`["` + strings.ToUpper(sha) + `"]`),
		rootfs(list(`"`+sha+`"`, MaxLayers+1)),
		`{"rootfs":{"type":"layers","diff_ids":[],"diff_ids":["` + sha + `"]}}`,
		`{"rootfs":{"type":"layers","diff_ids":[],"Diff_IDs":["` + sha + `"]}}`,
		`{"rootfs":{"type":"x","Type":"layers"}}`,
		`{"os":"linux","OS":"windows","rootfs":{"type":"layers"}}`, `{"architecture":"a","architecture":"b","rootfs":{"type":"layers"}}`,
		`{"os":1,"rootfs":{"type":"layers"}}`, `{"created":"yesterday","rootfs":{"type":"layers"}}`, `{"history":{},"rootfs":{"type":"layers"}}`,
		`{"history":[1],"rootfs":{"type":"layers"}}`, `{"config":[],"rootfs":{"type":"layers"}}`,
		`{"rootfs":{"type":"layers"},"history":` + list(`{}`, maxHistory+1) + `}`,
	}, confusing...) {
		if c, err := ParseConfig([]byte(doc)); err == nil {
			t.Errorf("%.120s gives %d layers", doc, len(c.DiffIDs))
		}
	}
	if c, err := ParseConfig([]byte(rootfs(list(`"`+sha+`"`, MaxLayers)))); err != nil || len(c.DiffIDs) != MaxLayers {
		t.Errorf("%d layers: %v", MaxLayers, err)
	}
}

const descriptor = `{"mediaType":"x","digest":"` + sha + `","size":5}`

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest([]byte(`{"schemaVersion":2,"config":` + descriptor + `,"layers":[` + descriptor + `,{"size":0,"digest":"` + sha + `","urls":[]}],"annotations":{}}`))
	want := &Manifest{Config: Descriptor{MediaType: "x", Digest: hello, Size: 5}, Layers: []Descriptor{{MediaType: "x", Digest: hello, Size: 5}, {Digest: hello, Size: 0}}}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	if m, err := ParseManifest([]byte(`{"config":` + descriptor + `,"layers":` + list(descriptor, MaxLayers) + `}`)); err != nil || len(m.Layers) != MaxLayers {
		t.Errorf("%d layers: %v", MaxLayers, err)
	}
}

func TestParseManifestRefused(t *testing.T) {
	docs := append([]string{
		rootfs(`[]`), `{"manifests":[]}`, `{}`, `{"layers":[]}`,
		`{"config":` + descriptor + `,"layers":{}}`, `{"config":` + descriptor + `,"layers":"x"}`,
		`{"config":` + descriptor + `,"layers":` + list(descriptor, MaxLayers+1) + `}`,
		`{"config":` + descriptor + `,"config":` + descriptor + `,"layers":[]}`,
		`{"config":` + descriptor + `,"Config":` + descriptor + `,"layers":[]}`,
	}, confusing...)
	for _, bad := range []string{
		`null`, `1`, `[]`, `{}`, `"` + sha + `"`, `{"digest":"` + sha + `"}`, `{"size":5}`, `{"digest":null,"size":5}`, `{"digest":"` + sha + `","size":null}`,
		`{"digest":"` + sha + `","size":-1}`, `{"digest":"` + sha + `","size":1.5}`, `{"digest":"` + sha + `","size":"5"}`, `{"digest":"` + sha + `","size":9223372036854775808}`,
		`{"digest":"` + Digest{}.String() + `","size":5}`, `{"digest":"` + helloHex + `","size":5}`, `{"digest":["` + sha + `"],"size":5}`,
		`{"digest":"` + sha + `","digest":"` + sha + `","size":5}`, `{"digest":"` + sha + `","size":5,"Size":6}`,
	} {
		docs = append(docs, `{"config":`+bad+`,"layers":[]}`, `{"config":`+descriptor+`,"layers":[`+descriptor+`,`+bad+`]}`)
	}
	for _, doc := range docs {
		if m, err := ParseManifest([]byte(doc)); err == nil {
			t.Errorf("%.200s gives %+v", doc, m)
		}
	}
}

// TestHostileLists: of such a document, a decoder without bounds makes fifty times as much.
func TestHostileLists(t *testing.T) {
	n := 300_000
	for _, doc := range []string{
		`{"config":` + descriptor + `,"layers":` + list(`{}`, n) + `}`,
		`{"config":` + descriptor + `,"layers":` + list(`[]`, n) + `}`,
		rootfs(list(`""`, n)),
		`{"rootfs":{"type":"layers"},"history":` + list(`{}`, n) + `}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err1 := ParseConfig([]byte(doc))
		_, err2 := ParseManifest([]byte(doc))
		runtime.ReadMemStats(&after)
		if err1 == nil || err2 == nil {
			t.Errorf("%.80s… is accepted", doc)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 30*uint64(len(doc)) {
			t.Errorf("%.80s… of %d bytes takes %d", doc, len(doc), got)
		}
	}
}

// TestSynthesizeManifest: these bytes are part of the repository format. They
// may never change: digests that users wrote down depend on them.
func TestSynthesizeManifest(t *testing.T) {
	config := []byte(rootfs(`["` + sha + `"]`))
	for _, c := range []struct {
		layers       []Descriptor
		want, digest string
	}{
		{
			nil,
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:5ce75f0058f7817ed39e63c95b46f83bf1dbfe43337edd158c3bd4c58ec01af1","size":115},"layers":[]}`,
			"sha256:25d92f802d776a5ed8ccb65e6b9319263102e52fdee2fe0f5ca0fd19e5307197",
		},
		{
			[]Descriptor{{Digest: hello, Size: 5}, {Digest: DigestOf(nil), Size: 1 << 40}},
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:5ce75f0058f7817ed39e63c95b46f83bf1dbfe43337edd158c3bd4c58ec01af1","size":115},"layers":[` +
				`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5},` +
				`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1099511627776}]}`,
			"sha256:d63bf6952129be4cb7c1028bc83cbe82820937c9bff9249b0d11a940bc11eb94",
		},
	} {
		b := SynthesizeManifest(config, c.layers)
		if string(b) != c.want || DigestOf(b).String() != c.digest {
			t.Errorf("got %s\nwith digest %s\nwant %s\nwith digest %s", b, DigestOf(b), c.want, c.digest)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.SchemaVersion != 2 || m.MediaType != ocispec.MediaTypeImageManifest || m.Config.MediaType != ocispec.MediaTypeImageConfig ||
			m.Config.Size != int64(len(config)) || len(m.Layers) != len(c.layers) {
			t.Errorf("as an OCI manifest: %+v", m)
		}
		for i, l := range m.Layers {
			if err := l.Digest.Validate(); err != nil || l.MediaType != ocispec.MediaTypeImageLayer || l.Size != c.layers[i].Size {
				t.Errorf("layer %d: %+v, %v", i, l, err)
			}
		}
		ours, err := ParseManifest(b)
		for i := range ours.Layers {
			if l := &ours.Layers[i]; l.MediaType == ocispec.MediaTypeImageLayer {
				l.MediaType = ""
			}
		}
		if err != nil || ours.Config != (Descriptor{ocispec.MediaTypeImageConfig, DigestOf(config), int64(len(config))}) || cmp.Diff(c.layers, ours.Layers) != "" {
			t.Errorf("ours: %+v, %v", ours, err)
		}
	}
}

func TestStackConfig(t *testing.T) {
	digests := map[ID]string{}
	for _, c := range []struct {
		platform Platform
		layers   []DiffID
		want     string
	}{
		{Platform{OS: "linux", Architecture: "amd64"}, []DiffID{hello}, `{"architecture":"amd64","comment":"part of an image that dogestry was pulling","config":{},"created":"1970-01-01T00:00:00Z","os":"linux","os.version":"","rootfs":{"diff_ids":["sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"],"type":"layers"},"variant":""}`},
		{Platform{OS: "linux", Architecture: "amd64"}, []DiffID{hello, hello}, `{"architecture":"amd64","comment":"part of an image that dogestry was pulling","config":{},"created":"1970-01-01T00:00:00Z","os":"linux","os.version":"","rootfs":{"diff_ids":["sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"],"type":"layers"},"variant":""}`},
		{Platform{"windows", "arm64", "v8", "10.0.1"}, []DiffID{hello}, `{"architecture":"arm64","comment":"part of an image that dogestry was pulling","config":{},"created":"1970-01-01T00:00:00Z","os":"windows","os.version":"10.0.1","rootfs":{"diff_ids":["sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"],"type":"layers"},"variant":"v8"}`},
		{Platform{OS: "windows", Architecture: "amd64"}, []DiffID{hello}, ""},
		{Platform{OS: "linux", Architecture: "arm64"}, []DiffID{hello}, ""},
		{Platform{OS: "linux", Architecture: "amd64", Variant: "v2"}, []DiffID{hello}, ""},
		{Platform{OS: "linux", Architecture: "amd64", OSVersion: "1"}, []DiffID{hello}, ""},
	} {
		b := StackConfig(c.platform, c.layers)
		if c.want != "" && string(b) != c.want {
			t.Errorf("got %s\nwant %s", b, c.want)
		}
		config, err := ParseConfig(b)
		if err != nil || config.Platform != c.platform || cmp.Diff(c.layers, config.DiffIDs) != "" {
			t.Errorf("%s is %+v, error %v", b, config, err)
		}
		if same := digests[DigestOf(b)]; same != "" {
			t.Errorf("the same for %s of %d layers and %s", c.platform, len(c.layers), same)
		}
		digests[DigestOf(b)] = fmt.Sprintf("%s of %d layers", c.platform, len(c.layers))
	}
}

func seedDocuments(f *testing.F) {
	for _, doc := range confusing {
		f.Add([]byte(doc))
	}
	for _, doc := range []string{rootfs(`["` + sha + `"]`), `{"config":` + descriptor + `,"layers":[` + descriptor + `]}`, `{"manifests":[]}`, `{"layers":[`, `[]`} {
		f.Add([]byte(doc))
	}
}

// FuzzKindOf: what has a kind is JSON with just that one key.
func FuzzKindOf(f *testing.F) {
	seedDocuments(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		kind, err := KindOf(doc)
		if (kind == UnknownKind) != (err != nil) {
			t.Fatalf("%s, %v", kind, err)
		}
		if err != nil {
			return
		}
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(doc, &keys); err != nil {
			t.Fatalf("a %s, but %v", kind, err)
		}
		n := 0
		for key := range keys {
			for name, k := range map[string]Kind{"rootfs": ConfigKind, "layers": ManifestKind, "manifests": IndexKind} {
				if strings.EqualFold(key, name) {
					n++
					if k != kind || key != name {
						t.Errorf("a %s with the key %q", kind, key)
					}
				}
			}
		}
		if n != 1 {
			t.Errorf("a %s with %d kinds of keys", kind, n)
		}
	})
}

// FuzzParseConfig: what is parsed, config or manifest, is what another decoder
// finds there, and within bounds.
func FuzzParseConfig(f *testing.F) {
	seedDocuments(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if m, err := ParseManifest(doc); err == nil {
			var oci ocispec.Manifest
			if err := json.Unmarshal(doc, &oci); err == nil && len(oci.Layers) != len(m.Layers) {
				t.Errorf("%d layers, or %d", len(m.Layers), len(oci.Layers))
			}
		}
		c, err := ParseConfig(doc)
		if err != nil {
			return
		}
		var oci ocispec.Image
		if err := json.Unmarshal(doc, &oci); err != nil {
			t.Fatalf("not for others: %v", err)
		}
		if len(c.DiffIDs) > MaxLayers || fmt.Sprint(c.DiffIDs) != fmt.Sprint(oci.RootFS.DiffIDs) || c.Platform.OS != oci.OS {
			t.Errorf("%+v, or %+v", c, oci)
		}
	})
}
