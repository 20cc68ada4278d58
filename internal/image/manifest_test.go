package image

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// child is an element of an index, with more behind its descriptor.
func child(more string) string { return strings.TrimSuffix(descriptor, "}") + more + "}" }

var indexSeeds = []string{
	`{"manifests":[` + descriptor + `]}`,
	`{"manifests":[` + descriptor + `,` + child(`,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}`) + `]}`,
	`{"manifests":[` + child(`,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"`+sha+`"}`) + `]}`,
	`{"manifests":[` + child(`,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`) + `]}`,
	`{"manifests":[` + child(`,"Platform":{"os":"x"}`) + `]}`,
	`{"manifests":[{"digest":"` + (Digest{}).String() + `","size":1}]}`,
	`{"manifests":[{"digest":"` + sha + `","size":-1}]}`,
	`{"manifests":[{}]}`,
	`{"manifests":[null]}`,
	`{"manifests":null}`,
	`{"manifests":{}}`,
}

// FuzzParseIndex: what is parsed is what another decoder finds there, within
// bounds, and the same again when it is written anew.
func FuzzParseIndex(f *testing.F) {
	seedDocuments(f)
	for _, doc := range indexSeeds {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		x, err := ParseIndex(doc)
		if err != nil {
			return
		}
		if _, err := ParseManifest(doc); err == nil {
			t.Error("a manifest as well")
		}
		var oci struct {
			Manifests []struct {
				Digest      string
				Size        int64
				MediaType   string
				Platform    *ocispec.Platform
				Annotations map[string]string
			}
		}
		if err := json.Unmarshal(doc, &oci); err != nil {
			t.Fatalf("not for others: %v", err)
		}
		if len(x.Manifests) > MaxManifests || len(x.Manifests) != len(oci.Manifests) {
			t.Fatalf("%d manifests, or %d", len(x.Manifests), len(oci.Manifests))
		}
		for i, c := range x.Manifests {
			o := oci.Manifests[i]
			if c.Digest.IsZero() || c.Size < 0 || c.Digest.String() != o.Digest || c.Size != o.Size || c.MediaType != o.MediaType {
				t.Errorf("%+v, or %+v", c.Descriptor, o)
			}
			if o.Platform != nil && (c.Platform.OS != o.Platform.OS || c.Platform.Architecture != o.Platform.Architecture) {
				t.Errorf("%+v, or %+v", c.Platform, *o.Platform)
			}
			attests := o.Annotations[annotationType] == attestationOfType
			if attests && c.Attests.String() != o.Annotations[annotationDigest] || !attests && !c.Attests.IsZero() {
				t.Errorf("attests %s, or %q", c.Attests, o.Annotations)
			}
		}
		again, err := ParseIndex(writeIndex(t, x))
		if err != nil || len(x.Manifests) > 0 && !reflect.DeepEqual(again, x) {
			t.Errorf("%+v, and again %+v, %v", x, again, err)
		}
	})
}

// writeIndex writes what is known of an index.
func writeIndex(t *testing.T, x *Index) []byte {
	t.Helper()
	type written struct {
		Descriptor
		Platform    Platform          `json:"platform"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	list := []written{}
	for _, c := range x.Manifests {
		w := written{Descriptor: c.Descriptor, Platform: c.Platform}
		if !c.Attests.IsZero() {
			w.Annotations = map[string]string{annotationType: attestationOfType, annotationDigest: c.Attests.String()}
		}
		list = append(list, w)
	}
	doc, err := json.Marshal(map[string]any{"manifests": list})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// FuzzParseManifest: what is parsed is the same when it is written anew.
func FuzzParseManifest(f *testing.F) {
	seedDocuments(f)
	for _, doc := range indexSeeds {
		f.Add([]byte(`{"config":` + descriptor + `,"layers"` + strings.TrimPrefix(doc, `{"manifests"`)))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		m, err := ParseManifest(doc)
		if err != nil {
			return
		}
		if len(m.Layers) > MaxLayers {
			t.Errorf("%d layers", len(m.Layers))
		}
		for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
			if d.Digest.IsZero() || d.Size < 0 {
				t.Errorf("%+v", d)
			}
			if tar, compressed := d.Tar(); compressed && !tar {
				t.Errorf("%q is a compressed tar, and none", d.MediaType)
			}
		}
		again, err := ParseManifest(StackManifest([]byte("config"), m.Layers))
		if err != nil || len(again.Layers) != len(m.Layers) || len(m.Layers) > 0 && !reflect.DeepEqual(again.Layers, m.Layers) {
			t.Errorf("%+v, and again %+v, %v", m, again, err)
		}
	})
}
