package repo_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// unlisted is a store that does not list entries, as web servers do not. What else is
// listed it lists, so that it can be written.
type unlisted struct{ storage.Store }

func (u unlisted) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if !strings.HasPrefix(prefix, "images/") {
		return u.Store.List(ctx, prefix)
	}
	return func(yield func(storage.Info, error) bool) { yield(storage.Info{}, errors.ErrUnsupported) }
}

// TestRemoteUnlisted: all that is asked of entries can be found out by their names.
func TestRemoteUnlisted(t *testing.T) {
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true,
		Open: func(t *testing.T) remotetest.Target {
			s := unlisted{mem.New()}
			return target(t, s, s, codec.LZ4)
		},
	})
}

// TestHeldUnlisted: which manifests of an index are here is asked of those that it names.
func TestHeldUnlisted(t *testing.T) {
	s := unlisted{mem.New()}
	here, away := image.DigestOf([]byte("here")), image.DigestOf([]byte("away"))
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":4},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":4}]}`, here, away)
	id := image.DigestOf(index)
	put(t, s, "images/"+id.Hex()+"/json", index)
	put(t, s, "images/"+id.Hex()+"/held-"+here.Hex(), nil)
	held, err := open(t, s, codec.LZ4).Held(t.Context(), id)
	if err != nil || len(held) != 1 || held[0] != here {
		t.Errorf("%v, %v", held, err)
	}
}
