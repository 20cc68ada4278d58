package client

import (
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// TestShelf: all repositories of a registry share what they may hold.
func TestShelf(t *testing.T) {
	address, err := Parse("registry://registry.test")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(Options{Address: address, Name: "registry"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	doc := make([]byte, 4<<20)
	for _, name := range []string{"one", "two", "three"} {
		for n := range byte(10) {
			r.in(name).remember(image.DigestOf([]byte{n}), doc)
		}
	}
	if r.shelf.held > mostDocs || r.shelf.held < mostDocs/2 {
		t.Errorf("%d bytes are held, want at most %d", r.shelf.held, mostDocs)
	}
	held := 0
	for _, name := range []string{"one", "two", "three"} {
		for n := range byte(10) {
			held += len(r.in(name).remembered(image.DigestOf([]byte{n})))
		}
	}
	if held != r.shelf.held {
		t.Errorf("%d bytes are counted, and %d held", r.shelf.held, held)
	}
	if r.in("one").remembered(image.DigestOf([]byte{0})) != nil || r.in("three").remembered(image.DigestOf([]byte{9})) == nil {
		t.Error("it is not the oldest that goes")
	}
}
