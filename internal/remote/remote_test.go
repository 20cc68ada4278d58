package remote_test

import (
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

func TestEmpty(t *testing.T) {
	d := []image.Digest{{1}}
	for _, test := range []struct {
		c    remote.Closure
		want bool
	}{
		{remote.Closure{}, true},
		{remote.Closure{Documents: []image.Digest{}, Layers: []image.DiffID{}}, true},
		{remote.Closure{Documents: d}, false},
		{remote.Closure{Layers: d}, false},
	} {
		if got := test.c.Empty(); got != test.want {
			t.Errorf("%+v is empty: %t", test.c, got)
		}
	}
}

// TestIncompleteError proves that the text names the first thing to look for.
func TestIncompleteError(t *testing.T) {
	id, doc, layer := image.DigestOf([]byte("id")), image.DigestOf([]byte("doc")), image.DigestOf([]byte("layer"))
	for _, test := range []struct {
		missing remote.Closure
		names   image.Digest
	}{
		{remote.Closure{Documents: []image.Digest{doc}, Layers: []image.DiffID{layer}}, doc},
		{remote.Closure{Layers: []image.DiffID{layer, doc}}, layer},
		{remote.Closure{}, id},
	} {
		text := (&remote.IncompleteError{ID: id, Missing: test.missing}).Error()
		if !strings.Contains(text, id.Short()) || !strings.Contains(text, test.names.Hex()) {
			t.Errorf("%q does not name %s", text, test.names.Short())
		}
	}
}
