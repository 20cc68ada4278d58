package client

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// TestUploadRoom: an upload holds no more than what it sends, and no more than is
// bearable, whatever the registry says.
func TestUploadRoom(t *testing.T) {
	least, pieces := 0, 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", "/v2/app/blobs/uploads/1")
		switch req.Method {
		case http.MethodPost:
			w.Header().Set("OCI-Chunk-Min-Length", strconv.Itoa(least))
			w.WriteHeader(http.StatusAccepted)
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPatch:
			pieces++
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer s.Close()
	address, err := Parse("registry://" + s.Listener.Addr().String() + "?plain-http=true")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(Options{Address: address, Name: "registry", Writes: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := r.in("app")
	for most, want := range map[int64]int{-1: defaultChunk, 0: 1, 2000: 2001, defaultChunk: defaultChunk, 1 << 40: defaultChunk} {
		if got := len(p.newUpload(t.Context(), most).chunk); got != want {
			t.Errorf("for %d bytes it holds %d, want %d", most, got, want)
		}
	}
	big := bytes.Repeat([]byte("noise"), 4<<20)
	put := func(doc []byte) error {
		pieces = 0
		id, size, err := p.put(t.Context(), bytes.NewReader(doc), int64(len(doc)))
		if err == nil && (id != image.DigestOf(doc) || size != int64(len(doc))) {
			t.Errorf("it put %s of %d bytes", id, size)
		}
		return err
	}
	for _, test := range []struct{ least, pieces int }{{0, 3}, {16 << 20, 2}} {
		if least = test.least; put(big) != nil || pieces != test.pieces {
			t.Errorf("chunks of at least %d: %d came, want %d", least, pieces, test.pieces)
		}
	}
	least = 16<<20 + 1
	if err := put(big); err == nil || !strings.Contains(err.Error(), "chunks of") {
		t.Errorf("it holds all that it is asked to: %v", err)
	}
	if err := put([]byte(`{}`)); err != nil || pieces != 0 { // which is one piece, at its end
		t.Errorf("%d pieces, %v", pieces, err)
	}
}
