package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// command runs a program of the system over b.
func command(t *testing.T, b []byte, line string) []byte {
	t.Helper()
	words := strings.Fields(line)
	if _, err := exec.LookPath(words[0]); err != nil {
		t.Fatalf("install %s: this test compares with it", words[0])
	}
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Stdin = bytes.NewReader(b)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, complaints.Bytes())
	}
	return out.Bytes()
}

var interopSizes = []int{0, 1, 70000, 4<<20 + 5}

// TestCommandsReadOurs is the promise that a person gets an image out by hand.
func TestCommandsReadOurs(t *testing.T) {
	for line, c := range map[string]Codec{"lz4 -dc": LZ4, "zstd -dc": Zstd} {
		for _, n := range interopSizes {
			want := sample(n)
			if got := command(t, encode(t, c, want), line); !bytes.Equal(got, want) {
				t.Errorf("%s made %d bytes of %d", line, len(got), n)
			}
		}
	}
}

func TestWeReadTheirs(t *testing.T) {
	for line, c := range map[string]Codec{
		"lz4 -c":                    LZ4,
		"lz4 -9c":                   LZ4,
		"lz4 -c -B4 -BD":            LZ4, // 64 KiB blocks that refer to those before
		"lz4 -c -B7 -BD":            LZ4,
		"lz4 -c -B5 -BX":            LZ4, // checksums of blocks
		"lz4 -c -B6 --no-frame-crc": LZ4,
		"lz4 -c --content-size":     LZ4,
		"zstd -c":                   Zstd,
		"zstd --fast=5 -c":          Zstd,
		"zstd -c --no-check":        Zstd,
		"zstd -c --long=27":         Zstd,
		"zstd -c -T2 -19":           Zstd,
	} {
		for _, n := range interopSizes {
			want := sample(n)
			got, err := readAll(t, c.Decode(bytes.NewReader(command(t, want, line))))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("of %d bytes by %s came %d: %v", n, line, len(got), err)
			}
		}
	}
}

// TestSameAsCommand: the encoder is lz4's own, and so is the size of what it writes.
func TestSameAsCommand(t *testing.T) {
	b := sample(8 << 20)
	ours, theirs := len(encode(t, LZ4, b)), len(command(t, b, "lz4 -1c -B6"))
	if d := ours - theirs; d > theirs/100 || d < -theirs/100 {
		t.Errorf("lz4 writes %d bytes, we %d", theirs, ours)
	}
}

func skippable(magic uint32, n int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	return append(binary.LittleEndian.AppendUint32(b, uint32(n)), make([]byte, n)...)
}

// frames are what may stand in one file, in this order.
func frames(t *testing.T, c Codec) (pieces [][]byte, decoded []byte) {
	theirs := map[Codec]string{LZ4: "lz4 -c -B4 -BD", Zstd: "zstd -c"}[c]
	a, b := sample(3000), sample(2*blockSize+9)
	pieces = [][]byte{
		skippable(0x184D2A50, 0), encode(t, c, a), skippable(0x184D2A5F, 70000), skippable(0x184D2A57, 3),
		encode(t, c, nil), command(t, b, theirs), encode(t, c, b), skippable(0x184D2A53, 11),
	}
	return pieces, bytes.Join([][]byte{a, b, b}, nil)
}

func TestFrames(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		pieces, want := frames(t, c)
		got, err := readAll(t, c.Decode(bytes.NewReader(bytes.Join(pieces, nil))))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("of %d bytes came %d: %v", len(want), len(got), err)
		}
		// Cut in the middle of each.
		for i, p := range pieces {
			for _, cut := range []int{1, 3, 4, 5, 7, len(p) - 1} {
				if cut >= len(p) {
					continue
				}
				torn := append(bytes.Join(pieces[:i], nil), p[:cut]...)
				_, err := readAll(t, c.Decode(bytes.NewReader(torn)))
				if !errors.Is(err, ErrDamaged) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("cut after %d bytes of piece %d: %v", cut, i, err)
				}
			}
		}
	})
}

func TestTrailingGarbage(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		whole := encode(t, c, sample(3000))
		for _, garbage := range []string{"\x00", "\x28", "\x04", "xyz", "\x00\x00\x00\x00", "garbage", strings.Repeat("\x00", 4096), "\x50\x2a\x4d", "\x50\x2a\x4d\x18\x01\x00\x00\x00"} {
			_, err := readAll(t, c.Decode(bytes.NewReader(append(whole[:len(whole):len(whole)], garbage...))))
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%.9q behind the end: %v", garbage, err)
			}
		}
	})
}
