package server_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestRange: parts of a layer that is stored encoded, of one that is not, and of a
// document.
func TestRange(t *testing.T) {
	for _, c := range []codec.Codec{codec.LZ4, codec.None} {
		t.Run(c.Name(), func(t *testing.T) {
			r := open(t, mem.New(), storedAs(c))
			img := testImage(t, "app")
			r.push("myapp:1", img)
			for _, blob := range [][]byte{img.Layers[0], img.Config} {
				testRanges(r, blob)
			}
		})
	}
}

func testRanges(r *registry, blob []byte) {
	n := len(blob)
	path := "/v2/myapp/blobs/" + digestOf(blob)
	for _, c := range []struct {
		header     string
		start, end int // end is not part of it
	}{
		{"bytes=0-0", 0, 1},
		{"bytes=5-9", 5, 10},
		{"bytes=100-", 100, n},
		{"bytes=-10", n - 10, n},
		{fmt.Sprintf("bytes=-%d", n+5), 0, n},
		{fmt.Sprintf("bytes=%d-%d", n-3, n+100), n - 3, n},
		{fmt.Sprintf("bytes=0-%d", n-1), 0, n},
	} {
		got := r.want(206, "GET", path, nil, "Range", c.header)
		if want := fmt.Sprintf("bytes %d-%d/%d", c.start, c.end-1, n); got.err != nil || !bytes.Equal(got.body, blob[c.start:c.end]) || got.header.Get("Content-Range") != want {
			r.Errorf("%s: %d bytes, %q, %v; want %q", c.header, len(got.body), got.header.Get("Content-Range"), got.err, want)
		}
	}
	for _, header := range []string{fmt.Sprintf("bytes=%d-", n), "bytes=9-5", "bytes=-0"} {
		got := r.refused(416, "RANGE_INVALID", "GET", path, nil, "Range", header)
		if want := fmt.Sprintf("bytes */%d", n); got.header.Get("Content-Range") != want {
			r.Errorf("%s: Content-Range is %q", header, got.header.Get("Content-Range"))
		}
	}
	for _, header := range []string{"bytes=0-1,3-4", "bytes=a-b", "bytes=5", "bytes=", "lines=1-2", "bytes=+1-2", "bytes=99999999999999999999-"} {
		if got := r.want(200, "GET", path, nil, "Range", header); !bytes.Equal(got.body, blob) {
			r.Errorf("%s: %d bytes", header, len(got.body))
		}
	}
	tag := `"` + digestOf(blob) + `"`
	r.want(206, "GET", path, nil, "Range", "bytes=0-1", "If-Range", tag)
	for _, other := range []string{`"x"`, "W/" + tag, "Wed, 21 Oct 2015 07:28:00 GMT"} {
		r.want(200, "GET", path, nil, "Range", "bytes=0-1", "If-Range", other)
	}
	if got := r.want(200, "HEAD", path, nil, "Range", "bytes=0-1"); got.header.Get("Content-Length") != fmt.Sprint(n) {
		r.Errorf("HEAD with a range answers %v", got.header)
	}
}

// TestRangeOfDamage: a part is given only of what was whole, also when it is written
// anew, and also where the damage is elsewhere in it.
func TestRangeOfDamage(t *testing.T) {
	r := open(t, mem.New(), storedAs(codec.None))
	img := testImage(t, "app")
	r.push("myapp:1", img)
	layer := image.DigestOf(img.Layers[0])
	path, key := "/v2/myapp/blobs/"+layer.String(), "images/"+layer.Hex()+"/layer.tar"
	r.want(206, "GET", path, nil, "Range", "bytes=0-9")
	whole := r.read(key)
	r.flip(key)
	r.refused(500, "UNKNOWN", "GET", path, nil, "Range", "bytes=0-9")
	r.put(key, whole)
	r.want(206, "GET", path, nil, "Range", "bytes=0-9")
}

// TestAtOnce: many clients, parts and wholes.
func TestAtOnce(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	r.push("myapp:1", img)
	blob := img.Layers[0]
	var g errgroup.Group
	for i := range 32 {
		g.Go(func() error {
			req := fmt.Sprintf("%s/v2/myapp/blobs/%s", r.url, digestOf(blob))
			want, ranged := blob, i%2 == 0
			res, err := r.fetch(req, ranged)
			if err != nil {
				return err
			}
			defer res.Close()
			if ranged {
				want = blob[7:1000]
			}
			got, err := io.ReadAll(res)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("client %d got %d other bytes", i, len(got))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
