package chunk

import (
	"encoding/binary"
	"io"
)

// The parameters of chunking, version 1 (docs/format.md, "The chunk index"). They are frozen: chunks of
// two layers are found equal only if both were cut by the same rules.
const (
	runLeast   = 8 << 10   // a file of so many bytes is a run of its own
	chunkLeast = 32 << 10  // content bytes of a chunk that does not end a run
	chunkMost  = 256 << 10 // content bytes
	chunkSpan  = 512 << 10 // bytes of the tar, from a chunk's first byte on

	// A chunk ends behind a window of so many bytes if these, a little endian number, times windowTimes make one
	// whose windowBits upper bits are all one. (With all of them zero it would end anywhere among zero bytes.)
	windowSize  = 8
	windowTimes = 0x9e3779b97f4a7c15
	windowBits  = 15
)

// window is the number that b begins with.
func window(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// ends tells whether a chunk may end behind a window.
func ends(window uint64) bool { return window*windowTimes >= 1<<64-1<<(64-windowBits) }

// readSize is how much is read at once: what is read too much for a frame is copied to the next.
const readSize = 64 << 10

// frameMost bounds a frame, decoded: a chunk begins before the target and spans chunkSpan at most.
const frameMost = 1 << 20

// frame is a piece of the tar, made of whole chunks and of what lies between them.
type frame struct {
	raw   []byte // in a buffer of frameMost
	spans []span // of raw
	cuts  []int  // content bytes of each chunk
}

// span is what a tar consists of: literal bytes and then content.
type span struct{ literal, content int64 }

// splitter cuts a tar in frames. What it reads goes into the frames' own buffers.
type splitter struct {
	src    io.Reader
	target int    // bytes, decoded, from which on a frame ends
	over   []byte // read, and not in a frame yet
	err    error  // of src

	// The tar.
	entry          // what is left of the current one
	records []byte // of an extended header that may know the size of the next file; else nil
	known   int64  // that size, -1 where there is none
	raw     bool   // no tar from here on

	// The current run and chunk.
	big   bool   // the run is one file
	size  int    // content bytes of the chunk; 0 where none has begun
	width int    // bytes of the tar from its first one on
	last  uint64 // the window that ends where the content read so far ends
}

// newSplitter returns one that makes frames of some target bytes.
func newSplitter(src io.Reader, target int) *splitter {
	return &splitter{src: src, target: target, over: make([]byte, 0, readSize+blockSize), known: -1}
}

// maxRecords bounds an extended header that is looked into, in bytes.
const maxRecords = 64 << 10

// next returns the next frame in buffer, which has frameMost bytes. The last one comes with io.EOF, and
// may be empty; what comes with another error of src is to be thrown away.
func (s *splitter) next(buffer []byte) (frame, error) {
	f := frame{raw: append(buffer[:0], s.over...)}
	s.over = s.over[:0]
	done := 0 // so much of f.raw is in spans
	for {
		n, full := s.consume(&f, f.raw[done:])
		if done += n; full {
			break
		}
		if s.err == io.EOF {
			s.rest(&f, len(f.raw)-done)
			return f, io.EOF
		}
		if s.err != nil {
			return f, s.err
		}
		s.err = s.read(&f)
	}
	s.over = append(s.over, f.raw[done:]...)
	f.raw = f.raw[:done]
	return f, nil
}

// read reads on, some bytes or an error.
func (s *splitter) read(f *frame) error {
	for range 100 {
		n, err := s.src.Read(f.raw[len(f.raw):min(len(f.raw)+readSize, frameMost)])
		f.raw = f.raw[:len(f.raw)+n]
		if n > 0 || err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// consume takes as much of b as can be understood without more, up to the end of the frame.
func (s *splitter) consume(f *frame, b []byte) (n int, full bool) {
	taken := len(f.raw) - len(b) // of the frame
	for n < len(b) {
		if s.size == 0 && taken+n >= s.target {
			return n, true
		}
		left := b[n:]
		switch {
		case s.literal > 0:
			room := s.target - taken - n
			if s.size > 0 {
				room = chunkSpan - s.width
			}
			k := int(min(s.literal, int64(len(left)), int64(room)))
			s.record(left[:k])
			s.skip(f, k)
			if s.literal -= int64(k); s.literal == 0 && s.records != nil {
				s.known, s.records = parseSize(s.records), nil
			}
			n += k
		case s.extends:
			if len(left) < blockSize {
				return n, false
			}
			s.extends = left[extendedAgain] != 0
			s.skip(f, blockSize)
			n += blockSize
		case s.content > 0:
			n += s.fill(f, left)
		case s.padding > 0:
			s.literal, s.padding = s.padding, 0
		case s.raw:
			s.content = int64(len(left)) // to its end
		case len(left) < blockSize:
			return n, false
		default:
			s.header(f, left[:blockSize])
			if s.raw {
				continue
			}
			s.skip(f, blockSize)
			n += blockSize
		}
	}
	return n, s.size == 0 && taken+n >= s.target
}

// record keeps the records of an extended header, as they pass.
func (s *splitter) record(b []byte) {
	if s.records == nil {
		return
	}
	if len(s.records)+len(b) > maxRecords {
		s.records = nil
		return
	}
	s.records = append(s.records, b...)
}

// header begins an entry, or finds that there is no tar here.
func (s *splitter) header(f *frame, h []byte) {
	if isZero(h) {
		return // the end of the archive, or something between archives
	}
	e, ok := parseHeader(h, s.known)
	if !ok {
		s.raw = true
		s.endChunk(f)
		return
	}
	s.entry = e
	switch {
	case e.records && e.literal > 0:
		s.records, s.known = make([]byte, 0, min(e.literal, maxRecords)), -1
	case e.literal == 0:
		s.known = -1
	}
	if s.big = e.content >= runLeast; s.big {
		s.endChunk(f)
	}
}

// skip passes n literal bytes.
func (s *splitter) skip(f *frame, n int) {
	if s.size > 0 {
		if s.width += n; s.width >= chunkSpan {
			s.endChunk(f)
		}
	}
	if last := len(f.spans) - 1; last >= 0 && f.spans[last].content == 0 {
		f.spans[last].literal += int64(n)
	} else {
		f.spans = append(f.spans, span{literal: int64(n)})
	}
}

// fill takes content up to the end of the chunk, of the file, or of b.
func (s *splitter) fill(f *frame, b []byte) int {
	b = b[:min(int64(len(b)), s.content, int64(chunkMost-s.size), int64(max(1, chunkSpan-s.width)))]
	n, end := s.roll(b)
	if len(f.spans) == 0 {
		f.spans = append(f.spans, span{})
	}
	f.spans[len(f.spans)-1].content += int64(n)
	s.size += n
	s.width += n
	s.content -= int64(n)
	if end || s.size == chunkMost || s.width >= chunkSpan {
		s.endChunk(f)
	}
	if s.content == 0 && s.big && !s.raw {
		s.endChunk(f)
	}
	return n
}

// roll takes content up to the end of a window that ends the chunk.
func (s *splitter) roll(b []byte) (n int, end bool) {
	least := min(len(b), max(0, chunkLeast-s.size)) // too early for an end
	for n < min(len(b), windowSize) {               // windows that begin before b
		s.last = s.last>>8 | uint64(b[n])<<56
		if n++; n > least && ends(s.last) {
			return n, true
		}
	}
	if n == len(b) {
		return n, false
	}
	rest := b[max(n, least)-(windowSize-1):] // the next window and all behind it
	for len(rest) >= 2*windowSize {          // eight at once
		if ends(window(rest)) || ends(window(rest[1:])) || ends(window(rest[2:])) || ends(window(rest[3:])) ||
			ends(window(rest[4:])) || ends(window(rest[5:])) || ends(window(rest[6:])) || ends(window(rest[7:])) {
			break
		}
		rest = rest[windowSize:]
	}
	for ; len(rest) >= windowSize; rest = rest[1:] {
		if ends(window(rest)) {
			return len(b) - len(rest) + windowSize, true
		}
	}
	s.last = window(b[len(b)-windowSize:])
	return len(b), false
}

func (s *splitter) endChunk(f *frame) {
	if s.size > 0 {
		f.cuts = append(f.cuts, s.size)
	}
	s.size, s.width = 0, 0
}

// rest takes what is left at the end of the tar: no whole block.
func (s *splitter) rest(f *frame, n int) {
	if n > 0 {
		s.skip(f, n)
	}
	s.endChunk(f)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
