package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestNoRoom: a layer that takes much memory asks for it; where there is none, it is not
// damaged for that.
func TestNoRoom(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.Zstd)
	id := image.DigestOf(nil)
	wide := append(binary.LittleEndian.AppendUint32(nil, 0xFD2FB528), 0, 14<<3, 1, 0, 0) // of 16 MiB, and empty
	if _, err := r.PutLayer(t.Context(), image.Descriptor{Digest: id}, bytes.NewReader(nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "images/"+id.Hex()+"/layer.tar.zst", bytes.NewReader(wide)); err != nil {
		t.Fatal(err)
	}
	found, err := remote.Layers(t.Context(), r, []image.Digest{id})
	if err != nil {
		t.Fatal(err)
	}
	taken, full := int64(0), error(nil)
	ctx := remote.WithRoom(t.Context(), func(_ context.Context, memory int64) (func(), error) {
		taken += memory
		return func() { taken -= memory }, full
	})
	read := func(how string, open func(context.Context, remote.Layer) (io.ReadCloser, error)) error {
		from, err := open(ctx, found[0])
		if err != nil {
			t.Fatal(how, err)
		}
		defer from.Close()
		_, err = io.Copy(io.Discard, from)
		return err
	}
	for how, open := range map[string]func(context.Context, remote.Layer) (io.ReadCloser, error){"proved": r.Open, "not proved": r.OpenDecoded} {
		full = nil
		if err := read(how, open); err != nil || taken != 0 {
			t.Errorf("%s: %v, and %d bytes are held", how, err, taken)
		}
		full = errors.New("all is taken")
		if err := read(how, open); !errors.Is(err, full) || !errors.Is(err, remote.ErrNoRoom) || fault.Is(err, fault.Damaged) || taken == 0 {
			t.Errorf("%s, no room: %v, asked for %d bytes", how, err, taken)
		}
		taken = 0
	}
}
