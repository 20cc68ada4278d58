package client

import (
	"context"
	"fmt"
	"testing"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/dogestry/dogestry/internal/image"
)

// TestRecent: what was of use last stays, as much as fits.
func TestRecent(t *testing.T) {
	r := newRecent[string, int](10)
	r.put("a", 1, 4)
	r.put("b", 2, 4)
	r.get("a")
	r.put("c", 3, 4)
	for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, ok := r.get(key); ok != want {
			t.Errorf("%s is there: %t", key, ok)
		}
	}
	r.put("a", 4, 1)
	if a, _ := r.get("a"); a != 4 || r.held != 5 {
		t.Errorf("anew it is %d, and all weigh %d", a, r.held)
	}
	if key, ok := r.find(func(_ string, v int) bool { return v == 3 }); key != "c" || !ok {
		t.Errorf("found %q, %t", key, ok)
	}
	r.put("large", 5, 100)
	if len(r.at) != 0 || r.held != 0 {
		t.Errorf("what is too large leaves %d, which weigh %d", len(r.at), r.held)
	}
}

// TestServingIsBounded: whatever others ask for, what is remembered does not grow.
func TestServingIsBounded(t *testing.T) {
	r, err := Open(Options{Address: Address{Host: "registry.example"}, Serving: true})
	if err != nil {
		t.Fatal(err)
	}
	layer := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 1}
	for i := range 70_000 {
		p := r.in(fmt.Sprint("app", i))
		id := image.DigestOf(fmt.Append(nil, i))
		r.settle(p, id)
		for range 4 {
			p.noteBlob(id)
			p.noteConfig(&image.Manifest{Config: layer}, 1000)
			p.notePacked(id, packed{Digest: id})
		}
		_, err := r.client.Cache.Set(t.Context(), "registry.example", auth.SchemeBearer, fmt.Sprint(i), func(context.Context) (string, error) { return "token", nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.repositories.at); n != mostRepositories {
		t.Errorf("%d repositories", n)
	}
	if n := len(r.homes.at); n != mostHomes {
		t.Errorf("%d digests", n)
	}
	if n := r.known.held; n > mostKnown || n < mostKnown/2 {
		t.Errorf("%d bytes of what was learned", n)
	}
	if n := r.client.Cache.(*tokenCache).set; n > mostTokens {
		t.Errorf("%d tokens", n)
	}
	last := image.DigestOf(fmt.Append(nil, 69_999))
	if in := r.home(last); in != r.in("app69999") || !in.isBlob(last) {
		t.Error("it has forgotten what came last")
	}
}
