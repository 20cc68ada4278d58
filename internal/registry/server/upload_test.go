package server_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestMaxBlob: a blob is bounded in however many requests it comes.
func TestMaxBlob(t *testing.T) {
	r := open(t, mem.New(), func(s *settings) { s.server.MaxBlob = 5000 })
	blob := remotetest.Noise("large", 5001)
	fits := blob[:5000]
	begin := func() string { return r.want(202, "POST", "/v2/a/blobs/uploads/", nil).header.Get("Location") }
	stream := func(b []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(b)} } // of unknown length
	for _, body := range []func([]byte) io.Reader{stream, func(b []byte) io.Reader { return bytes.NewReader(b) }} {
		r.refused(413, "SIZE_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+digestOf(blob), body(blob))
		r.refused(413, "SIZE_INVALID", "PUT", begin()+"?digest="+digestOf(blob), body(blob))
		path := begin()
		r.want(202, "PATCH", path, body(blob[:3000]))
		r.refused(413, "SIZE_INVALID", "PUT", path+"?digest="+digestOf(blob), body(blob[3000:]))
		path = begin()
		r.want(202, "PATCH", path, body(blob[:3000]))
		r.refused(413, "SIZE_INVALID", "PATCH", path, body(blob[3000:]))
		path = begin()
		r.want(202, "PATCH", path, body(fits[:3000]))
		r.want(201, "PUT", path+"?digest="+digestOf(fits), body(fits[3000:]))
		r.want(404, "GET", "/v2/a/blobs/"+digestOf(blob), nil)
	}
	path := begin()
	r.want(202, "PATCH", path, bytes.NewReader(blob[:3000]), "Content-Range", "0-2999")
	r.refused(413, "SIZE_INVALID", "PATCH", path, bytes.NewReader(blob[3000:]), "Content-Range", "3000-5000")
	r.want(202, "PATCH", path, bytes.NewReader(fits[3000:]), "Content-Range", "3000-4999")
}

// TestManyPieces: an upload in tiny pieces ends with an answer that says so.
func TestManyPieces(t *testing.T) {
	r := open(t, mem.New())
	begun := r.want(202, "POST", "/v2/a/blobs/uploads/", nil).header
	if got := begun.Get("OCI-Chunk-Min-Length"); got != "8388608" {
		t.Errorf("chunks are to have %s bytes", got)
	}
	for i := range 10_000 {
		r.put(fmt.Sprintf("run/uploads/%s/%020d", begun.Get("Docker-Upload-UUID"), i), []byte("x"))
	}
	got := r.refused(413, "SIZE_INVALID", "PATCH", begun.Get("Location"), strings.NewReader("x"))
	if !strings.Contains(string(got.body), "pieces") {
		t.Errorf("the answer is %s", got.body)
	}
	blob := bytes.Repeat([]byte("x"), 10_000)
	r.want(201, "PUT", begun.Get("Location")+"?digest="+digestOf(blob), nil) // what is there is good
}
