package image

import (
	"context"
	"fmt"
	"testing"
)

// TestPlainLayer: a layer that the config has by the digest that the manifest has
// is plain, whatever its media type says.
func TestPlainLayer(t *testing.T) {
	plain, packed, tar := DigestOf([]byte("plain")), DigestOf([]byte("packed")), DigestOf([]byte("tar"))
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s","%s"]}}`, plain, tar)
	const layer = `{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"%s","size":5}`
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"%s","size":%d},"layers":[`+layer+`,`+layer+`]}`,
		DigestOf(config), len(config), plain, packed)
	docs := map[Digest][]byte{DigestOf(config): config, DigestOf(manifest): manifest}
	tree, err := ReadTree(t.Context(), DigestOf(manifest), Reader{Document: func(_ context.Context, id Digest) ([]byte, error) { return docs[id], nil }})
	if err != nil {
		t.Fatal(err)
	}
	in, err := tree.Packed()
	if err != nil || len(in) != 1 || in[tar].Digest != packed {
		t.Errorf("packed are %v, %v", in, err)
	}
	for i, want := range []bool{false, true} {
		if isTar, compressed := tree.Layers()[i].Tar(); !isTar || compressed != want {
			t.Errorf("layer %d: a tar %v, compressed %v", i, isTar, compressed)
		}
	}
	if string(tree.Doc) != string(manifest) {
		t.Error("the document is another one")
	}
}
