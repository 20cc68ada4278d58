package server_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// pieceSize is that of the server.
const pieceSize = 256 << 10

// TestRecognised: a layer that was proved once is recognised from then on, piece by
// piece: whatever is changed in it since, it does not arrive whole, nothing of the piece
// that is wrong is sent, and parts of it that are right are.
func TestRecognised(t *testing.T) {
	layer := remotetest.FileLayer(t, "large", string(remotetest.Noise("large", 5*pieceSize-1000)))
	n := len(layer)
	if n%pieceSize == 0 {
		t.Fatal("the last piece is to be a short one")
	}
	for _, c := range []codec.Codec{codec.None, codec.LZ4, codec.Zstd} {
		t.Run(c.Name(), func(t *testing.T) {
			r := open(t, mem.New(), storedAs(c))
			r.push("myapp:1", remotetest.NewImage(t, "app", layer))
			id := image.DigestOf(layer)
			path, key := "/v2/myapp/blobs/"+id.String(), "images/"+id.Hex()+"/layer.tar"+c.Extension()
			whole := func(why string) {
				t.Helper()
				if got := r.get(path); got.status != 200 || got.err != nil || !bytes.Equal(got.body, layer) {
					t.Errorf("%s: %d, %d bytes, %v", why, got.status, len(got.body), got.err)
				}
			}
			whole("at first")
			for what, change := range map[string]struct {
				bytes []byte
				right int // bytes before the first piece that is wrong
			}{
				"first byte":                {flipped(layer, 0), 0},
				"last byte of first piece":  {flipped(layer, pieceSize-1), 0},
				"first byte of second":      {flipped(layer, pieceSize), pieceSize},
				"middle":                    {flipped(layer, n/2), n / 2 / pieceSize * pieceSize},
				"last byte":                 {flipped(layer, n-1), n / pieceSize * pieceSize},
				"one byte less":             {layer[:n-1], n / pieceSize * pieceSize},
				"one byte more":             {append(bytes.Clone(layer), 0), n / pieceSize * pieceSize},
				"ends with a piece":         {layer[:4*pieceSize], 4 * pieceSize},
				"two pieces change places":  {swapped(layer), pieceSize},
				"nothing":                   {nil, 0},
				"a piece is there twice":    {append(bytes.Clone(layer[:pieceSize]), layer...), pieceSize},
				"the bytes of another blob": {bytes.Repeat([]byte("other"), n/5+1)[:n], 0},
			} {
				r.put(key, encoded(t, c, change.bytes))
				for range 2 {
					got := r.get(path)
					if got.status == 200 && got.err == nil {
						t.Errorf("%s: it arrives whole, with %d bytes", what, len(got.body))
					}
					if got.status == 200 && (len(got.body) > change.right || !bytes.Equal(got.body, layer[:len(got.body)])) {
						t.Errorf("%s: %d bytes arrive, of which %d are right", what, len(got.body), change.right)
					}
				}
				if got := r.get(path, "Range", fmt.Sprintf("bytes=5-%d", n-1)); got.status == 206 && got.err == nil {
					t.Errorf("%s: nearly all arrives as a part", what)
				}
				r.refused(500, "UNKNOWN", "GET", path, nil, "Range", fmt.Sprintf("bytes=%d-%d", change.right+7, change.right+9))
				if right := change.right; right > 0 {
					got := r.want(206, "GET", path, nil, "Range", fmt.Sprintf("bytes=9-%d", right-1))
					if got.err != nil || !bytes.Equal(got.body, layer[9:right]) {
						t.Errorf("%s: a part that is right comes with %d bytes, %v", what, len(got.body), got.err)
					}
				}
			}
			r.put(key, encoded(t, c, layer))
			whole("written again")
			for _, at := range [][2]int{{0, n}, {1, pieceSize}, {pieceSize - 1, pieceSize + 1}, {3*pieceSize + 5, n}, {n - 1, n}, {2 * pieceSize, 3 * pieceSize}} {
				got := r.want(206, "GET", path, nil, "Range", fmt.Sprintf("bytes=%d-%d", at[0], at[1]-1))
				if got.err != nil || !bytes.Equal(got.body, layer[at[0]:at[1]]) {
					t.Errorf("bytes %v: %d bytes, %v", at, len(got.body), got.err)
				}
			}
		})
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// swapped has the second and the third piece in each other's place.
func swapped(b []byte) []byte {
	b = bytes.Clone(b)
	second := bytes.Clone(b[pieceSize : 2*pieceSize])
	copy(b[pieceSize:], b[2*pieceSize:3*pieceSize])
	copy(b[2*pieceSize:], second)
	return b
}

// encoded returns what a file of a layer holds.
func encoded(t *testing.T, c codec.Codec, b []byte) []byte {
	t.Helper()
	from := c.Encode(bytes.NewReader(b))
	defer from.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(from); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
