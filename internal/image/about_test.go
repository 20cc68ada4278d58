package image_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	aboutConfig  = `"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`
	aboutSubject = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","size":123}`
)

func TestParseAbout(t *testing.T) {
	subject := image.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 123}
	for i := range subject.Digest {
		subject.Digest[i] = 0x22
	}
	for doc, want := range map[string]image.About{
		`{"layers":[],` + aboutConfig + `}`:                                      {Kind: image.ManifestKind, ArtifactType: "application/vnd.oci.empty.v1+json"},
		`{"layers":[],` + aboutConfig + `,"artifactType":"a/b","mediaType":"m"}`: {Kind: image.ManifestKind, ArtifactType: "a/b", MediaType: "m"},
		`{"layers":[],` + aboutConfig + `,"subject":` + aboutSubject + `,"annotations":{"a":"1","b":""}}`: {
			Kind: image.ManifestKind, ArtifactType: "application/vnd.oci.empty.v1+json", Subject: subject, Annotations: map[string]string{"a": "1", "b": ""},
		},
		`{"layers":[],` + aboutConfig + `,"subject":null,"annotations":null}`: {Kind: image.ManifestKind, ArtifactType: "application/vnd.oci.empty.v1+json"},
		`{"manifests":[]}`: {Kind: image.IndexKind},
		`{"manifests":[],"artifactType":"a/b","subject":` + aboutSubject + `}`: {Kind: image.IndexKind, ArtifactType: "a/b", Subject: subject},
	} {
		got, err := image.ParseAbout([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", doc, err)
		} else if diff := cmp.Diff(want, *got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", doc, diff)
		}
	}
	var many strings.Builder
	for i := range image.MaxAnnotations + 1 {
		fmt.Fprintf(&many, `"%d":"",`, i)
	}
	for _, doc := range []string{
		``, `{}`, `[]`, `{"rootfs":{}}`, `{"layers":[]}`,
		`{"layers":[],` + aboutConfig + `,"subject":{}}`,
		`{"layers":[],` + aboutConfig + `,"subject":"x"}`,
		`{"layers":[],` + aboutConfig + `,"subject":{"digest":"sha512:` + strings.Repeat("0", 128) + `","size":1}}`,
		`{"layers":[],` + aboutConfig + `,"subject":{"digest":"sha256:` + strings.Repeat("2", 64) + `"}}`,
		`{"layers":[],` + aboutConfig + `,"subject":null,"subject":` + aboutSubject + `}`,
		`{"layers":[],` + aboutConfig + `,"Subject":` + aboutSubject + `}`,
		`{"layers":[],` + aboutConfig + `,"artifactType":1}`,
		`{"layers":[],` + aboutConfig + `,"artifactType":"a","ArtifactType":"b"}`,
		`{"layers":[],` + aboutConfig + `,"annotations":[]}`,
		`{"layers":[],` + aboutConfig + `,"annotations":{"a":1}}`,
		`{"layers":[],` + aboutConfig + `,"annotations":{"a":"1","a":"2"}}`,
		`{"layers":[],` + aboutConfig + `,"annotations":{` + many.String() + `"last":""}}`,
	} {
		if got, err := image.ParseAbout([]byte(doc)); err == nil {
			t.Errorf("%.300s: %+v", doc, got)
		}
	}
}

func FuzzParseAbout(f *testing.F) {
	f.Add([]byte(`{"layers":[],` + aboutConfig + `,"subject":` + aboutSubject + `,"annotations":{"a":"1"}}`))
	f.Add([]byte(`{"manifests":[],"artifactType":"a/b","annotations":{}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		about, err := image.ParseAbout(doc)
		if err != nil {
			return
		}
		if kind, err := image.KindOf(doc); err != nil || kind != about.Kind {
			t.Errorf("%q is %v, %v", doc, kind, err)
		}
		if about.Subject.Digest.IsZero() && about.Subject != (image.Descriptor{}) || len(about.Annotations) > image.MaxAnnotations {
			t.Errorf("%q: %+v", doc, about)
		}
	})
}
