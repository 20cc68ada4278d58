package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestRoom: what refers further back than 8 MiB is decoded once there is room for it, as
// much as it takes, which is given back; what does not asks for none.
func TestRoom(t *testing.T) {
	frame := func(log int, single bool) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
		if single {
			b = append(b, 0b1110_0000)
			b = binary.LittleEndian.AppendUint64(b, 1<<log)
		} else {
			b = append(b, 0, byte(log-10)<<3)
		}
		return append(b, 1, 0, 0) // one empty last block
	}
	skipped := append(binary.LittleEndian.AppendUint32(nil, 0x184D2A50), 4, 0, 0, 0, 1, 2, 3, 4)
	full := errors.New("there is no room")
	for _, c := range []struct {
		what   string
		stream []byte
		takes  int64 // 0 is nothing
		wrong  bool
	}{
		{"what we write", encode(t, Zstd, sample(1000)), 0, false},
		{"8 MiB", frame(23, false), 0, false},
		{"16 MiB", frame(24, false), 16 << 20, false},
		{"the largest", frame(27, false), 128 << 20, false},
		{"more than there may be", frame(31, false), 128 << 20, true},
		{"one segment", frame(25, true), 32 << 20, true}, // which has less than it says
		{"two frames", append(frame(24, false), frame(20, false)...), 16 << 20, false},
		{"the second is larger", append(frame(20, false), frame(24, false)...), 0, true},
		{"behind what is skipped", append(skipped, frame(24, false)...), 0, true},
		{"nothing", nil, 0, true},
		{"a byte", []byte{0x28}, 0, true},
		{"something else", sample(100), 0, true},
	} {
		taken, held := int64(0), int64(0)
		take := func(memory int64) (func(), error) {
			taken, held = memory, held+memory
			return func() { held -= memory }, nil
		}
		_, err := readAll(t, Zstd.DecodeIn(iotest.OneByteReader(bytes.NewReader(c.stream)), take))
		if taken != c.takes || held != 0 || (err != nil) != c.wrong || c.wrong && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: takes %d, holds %d at the end, %v", c.what, taken, held, err)
		}
		if c.takes == 0 {
			continue
		}
		if _, err := readAll(t, Zstd.DecodeIn(bytes.NewReader(c.stream), func(int64) (func(), error) { return nil, full })); err != full {
			t.Errorf("%s, no room: %v", c.what, err)
		}
	}
	broken := errors.New("the disk is broken")
	if _, err := readAll(t, Zstd.DecodeIn(io.MultiReader(bytes.NewReader([]byte{0x28}), iotest.ErrReader(broken)), func(int64) (func(), error) { return nil, full })); !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
		t.Errorf("it cannot be read: %v", err)
	}
}
