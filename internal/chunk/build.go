package chunk

import (
	"encoding/binary"

	"github.com/klauspost/compress/zstd"

	"github.com/dogestry/dogestry/internal/codec"
)

// Least is how many bytes of frames are worth an index: a layer that is stored in less has none, and travels whole.
const Least = 64 << 10

const (
	// blockTarget is how many bytes of literals are gathered before they are compressed together.
	blockTarget = 256 << 10
	// blockMost bounds a block: what is gathered, and the literals of one frame.
	blockMost = blockTarget + frameMost

	// inlineShare is the part of the stored bytes it belongs to that a block may take in the index. One that
	// takes more, of a tree of tiny files, is left to the frames.
	inlineShare = 8

	// payloadMost bounds an index in the file, in bytes. rowsMost bounds its table: frames, chunks,
	// spans and blocks, all together; who reads one holds some 40 bytes for each. A layer that would
	// need more has no index.
	payloadMost = 64 << 20
	rowsMost    = 2 << 20
)

// Footer: the last bytes of the file, and of the index's skippable frame.
const (
	footerSize    = 32
	footerMagic   = "dogindex"
	footerVersion = 1
	frameKind     = 0xd // of the skippable frame
)

// codecs are the numbers of codecs in a footer.
var codecs = map[codec.Codec]byte{codec.LZ4: 1, codec.Zstd: 2}

// builder gathers an index while frames go by, in their order.
type builder struct {
	codec        codec.Codec
	least        int64 // bytes of frames that are worth an index
	size, stored int64

	// Columns of the table, as they are written.
	frames, spans, chunks, sums, blocks           []byte
	frameCount, spanCount, chunkCount, blockCount uint64
	last                                          span // not written yet: the next frame may go on with it

	literals []byte // of the current block
	since    int64  // stored bytes that these belong to
	payload  []byte // blocks, compressed
	zstd     *zstd.Encoder
	large    bool // there will be no index
}

func newBuilder(c codec.Codec, least int64) *builder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // of constants
	}
	return &builder{codec: c, least: least, zstd: z}
}

// add takes a frame, the sums of its chunks, and how many bytes it is stored in.
func (b *builder) add(f frame, sums []Sum, stored int) {
	b.size += int64(len(f.raw))
	b.stored += int64(stored)
	if b.large {
		return
	}
	b.frames = binary.AppendUvarint(b.frames, uint64(len(f.raw)))
	b.frames = binary.AppendUvarint(b.frames, uint64(stored))
	b.frameCount++
	for i, s := range f.spans {
		if i > 0 || b.last.content > 0 && s.literal > 0 {
			b.endSpan()
		}
		b.last.literal += s.literal
		b.last.content += s.content
	}
	for i, n := range f.cuts {
		b.chunks = binary.AppendUvarint(b.chunks, uint64(n))
		b.sums = append(b.sums, sums[i][:]...)
		b.chunkCount++
	}
	at := int64(0)
	for _, s := range f.spans {
		b.literals = append(b.literals, f.raw[at:at+s.literal]...)
		at += s.literal + s.content
	}
	if b.since += int64(stored); len(b.literals) >= blockTarget {
		b.endBlock()
	}
	rows := b.frameCount + b.spanCount + b.chunkCount + b.blockCount
	b.large = rows > rowsMost-2 || len(b.payload)+len(b.frames)+len(b.spans)+len(b.chunks)+len(b.sums) > payloadMost-(2<<20)
	if b.large {
		*b = builder{codec: b.codec, size: b.size, stored: b.stored, large: true}
	}
}

func (b *builder) endSpan() {
	if b.last != (span{}) {
		b.spans = binary.AppendUvarint(b.spans, uint64(b.last.literal))
		b.spans = binary.AppendUvarint(b.spans, uint64(b.last.content))
		b.spanCount++
	}
	b.last = span{}
}

func (b *builder) endBlock() {
	if len(b.literals) == 0 {
		return
	}
	before := len(b.payload)
	b.payload = b.zstd.EncodeAll(b.literals, b.payload)
	stored := len(b.payload) - before
	if int64(stored) > b.since/inlineShare {
		b.payload, stored = b.payload[:before], 0
	}
	b.blocks = binary.AppendUvarint(b.blocks, uint64(len(b.literals)))
	b.blocks = binary.AppendUvarint(b.blocks, uint64(stored))
	b.blockCount++
	b.literals, b.since = b.literals[:0], 0
}

// end returns the skippable frame of the index; nothing where the layer is to have none.
func (b *builder) end() []byte {
	if b.large || b.stored < b.least {
		return nil
	}
	b.endSpan()
	b.endBlock()
	var table []byte
	for _, n := range []uint64{uint64(b.size), uint64(b.stored), b.frameCount, b.chunkCount, b.spanCount, b.blockCount} {
		table = binary.AppendUvarint(table, n)
	}
	for _, column := range [][]byte{b.frames, b.chunks, b.spans, b.blocks, b.sums} {
		table = append(table, column...)
	}
	before := len(b.payload)
	payload := b.zstd.EncodeAll(table, b.payload)
	footer := make([]byte, footerSize)
	copy(footer, footerMagic)
	footer[8], footer[9] = footerVersion, codecs[b.codec]
	binary.LittleEndian.PutUint32(footer[16:], uint32(len(payload)-before))
	binary.LittleEndian.PutUint32(footer[20:], uint32(len(table)))
	binary.LittleEndian.PutUint32(footer[24:], uint32(len(payload)+footerSize))
	return codec.AppendSkippable(nil, frameKind, append(payload, footer...))
}
