package readthrough_test

import (
	"errors"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// TestBeside: what may change is the remote's, at each time; of a remote that has no
// such things there is nothing, or it is said that nobody knows.
func TestBeside(t *testing.T) {
	p := newProbe(t)
	img := pushed(t, p, "app:1") // without layers, so that the manifest below needs none
	subject := image.DigestOf(img.Manifest())
	c := cacheIn(t, t.TempDir(), 1<<30, nil)
	from, bare := c.New(p), c.New(plain{p})
	const key = "0123456789abcdef"
	ref := remotetest.Ref(t, "app:1")
	count := func(s remote.Source) (n int) {
		for _, err := range s.(remote.Referred).Referrers(t.Context(), "app", subject) {
			must(t, err)
			n++
		}
		for _, err := range s.(remote.Members).Members(t.Context(), "") {
			if s == bare { // nobody knows, which is not none: a mirror would remove all
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("it lists what belongs to repositories: %v", err)
				}
				continue
			}
			must(t, err)
			n++
		}
		for _, err := range s.(remote.Signatures).Signed(t.Context(), ref, img.ID) {
			must(t, err)
			n++
		}
		for _, sign := range []func() ([]byte, error){
			func() ([]byte, error) { return s.(remote.Signatures).Signature(t.Context(), ref, img.ID, key) },
			func() ([]byte, error) { return s.(remote.Signatures).CurrentSignature(t.Context(), ref, key) },
		} {
			content, err := sign()
			switch {
			case err == nil && string(content) == "signed":
				n++
			case !fault.Is(err, fault.NotFound):
				t.Errorf("%q, %v", content, err)
			}
		}
		return n
	}
	if n := count(from) + count(bare); n != 0 {
		t.Errorf("there are %d things", n)
	}
	// Signatures and memberships of an image that is there.
	must(t, from.PutSignature(t.Context(), ref, img.ID, key, []byte("signed")))
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		img.ID.String() + `","size":1},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + subject.String() + `","size":1}}`)
	must(t, p.PutDocument(t.Context(), manifest))
	if err := p.Add(t.Context(), "app", image.DigestOf(manifest)); err != nil {
		t.Fatal(err)
	}
	if n := count(from); n != 5 {
		t.Errorf("there are %d things, and not 5", n)
	}
	asked := 0
	for range bare.Members(t.Context(), "") {
		asked++
	}
	if asked != 1 {
		t.Errorf("of a remote that does not know its members are told %d things", asked)
	}
	if n := count(bare); n != 0 {
		t.Errorf("of a remote that has no such things there are %d", n)
	}
	if err := bare.PutSignature(t.Context(), ref, img.ID, key, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("it signs: %v", err)
	}
}
