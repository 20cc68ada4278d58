package verify

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
)

// Frames is a run of damaged frames of an object, and what of the layer is in them.
type Frames struct {
	Offset int64 `json:"offset"` // of the first one in the object, in bytes
	Length int64 `json:"length"` // of all of them in the object, in bytes

	// Files are entries of the layer's tar whose bytes are damaged, as the tar names them: a name may
	// be anything. Few are named; More are not.
	Files []string `json:"files,omitempty"`
	More  int      `json:"moreFiles,omitempty"`
}

// String is for people: a name may hold anything.
func (f Frames) String() string {
	text := fmt.Sprintf("at %d–%d", f.Offset, f.Offset+f.Length)
	files := f.Files
	if f.More > 0 {
		more := "1 file"
		if f.More > 1 {
			more = fmt.Sprintf("%d files", f.More)
		}
		if len(files) > 0 {
			more += " more"
		}
		files = append(files[:len(files):len(files)], more)
	}
	if len(files) == 0 {
		return text
	}
	return text + " (" + strings.Join(files, ", ") + ")"
}

const (
	// mostFrames bounds the runs of frames, mostFiles the files, that are named of one object.
	mostFrames, mostFiles = 10, 10
	// mostName bounds the name of a file, in bytes.
	mostName = 300
)

// locate finds out which frames of a damaged object are wrong, and adds that to a finding. Whether it
// is damaged is known: here an index may be believed. Where there is none, nothing is added.
func (r *run) locate(ctx context.Context, u unit, f *finding) error {
	x, err := openIndexed(ctx, r.from, u.there)
	if err == nil {
		_ = x.readLiterals(ctx) // without them less is found
		err = x.locate(ctx, f)
	}
	if ctx.Err() == nil && err != nil {
		r.o.Log.Debug("damage cannot be located", "object", u.there.Object, "why", err)
	}
	return ctx.Err()
}

// locate is that of run.
func (x *indexed) locate(ctx context.Context, f *finding) error {
	body, err := x.open(ctx, 0, x.Stored)
	if err != nil {
		return err
	}
	defer body.Close()
	s := &search{frameReader: frameReader{indexed: x, body: body}, ctx: ctx}
	if err := s.files(); err != nil {
		return err
	}
	switch {
	case len(s.runs) > 0:
		f.Frames, f.MoreFrames = s.runs, s.more
		if f.Problem == Truncated { // its end is there
			f.Problem = Damaged
		}
	case !x.headerIsRight(ctx):
		f.Frames = []Frames{{Offset: x.Stored, Length: codec.SkippableHeader}}
		f.Problem, f.Detail = Damaged, f.Detail+": its frames are whole, and the header of its chunk index is not"
	}
	return nil
}

// search reads a tar out of frames, which it checks on the way. It is a reader, so that names of files
// are read as others read them.
type search struct {
	frameReader
	ctx  context.Context
	rest []byte // of the current frame
	at   int64  // bytes handed out

	runs   []Frames
	more   int   // runs that are not told
	last   int   // the last damaged frame
	ranges []bad // that are damaged, of files that are not known yet
	named  int
}

// bad is a damaged range of the tar, and in which of the runs it is; -1 is one that is not told.
type bad struct {
	chunk.Range
	run int
}

func (s *search) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	for len(s.rest) == 0 {
		if s.next == len(s.Frames) {
			return 0, io.EOF
		}
		raw, ok, err := s.read()
		if err != nil {
			return 0, &readError{err}
		}
		s.check(s.next-1, raw, ok)
		s.rest = raw
	}
	n := copy(p, s.rest)
	s.rest, s.at = s.rest[n:], s.at+int64(n)
	return n, nil
}

// readError tells a failure to read from a tar that is none.
type readError struct{ error }

// check notes what is wrong with a frame, and mends the literals in it that are known.
func (s *search) check(i int, raw []byte, ok bool) {
	f := s.Frames[i]
	wrong := s.wrong(i, raw)
	if !ok {
		wrong = []chunk.Range{{Tar: f.Tar, Size: int64(f.Size)}}
	}
	if len(wrong) == 0 {
		return
	}
	literal, _ := s.before(f.Tar)
	end, _ := s.before(f.Tar + int64(f.Size))
	for r, known := range s.known(literal, end) {
		copy(raw[r.Tar-f.Tar:], known)
	}
	run := len(s.runs) - 1
	switch {
	case s.last == i-1 && s.more > 0: // one more that is not told
		run = -1
	case s.last == i-1 && run >= 0:
		s.runs[run].Length += int64(f.Stored)
	case len(s.runs) == mostFrames:
		run = -1
		s.more++
	default:
		run = len(s.runs)
		s.runs = append(s.runs, Frames{Offset: f.At, Length: int64(f.Stored)})
	}
	s.last = i
	if run < 0 {
		return
	}
	for _, r := range wrong {
		s.ranges = append(s.ranges, bad{r, run})
	}
}

// files reads all of the tar, and notes which of its entries are damaged.
func (s *search) files() error {
	s.last = -2
	r := tar.NewReader(s)
	var name string
	var begin, content, size int64 // of the entry before
	for known := false; ; known = true {
		h, err := r.Next()
		var broken *readError
		switch {
		case errors.As(err, &broken) || s.ctx.Err() != nil:
			return err
		case errors.Is(err, tar.ErrInsecurePath): // nothing is unpacked here
			err = nil
		}
		end := min(content+(size+511)&^511, s.at)
		if err == nil {
			end = min(end, s.at-512)
		}
		if known {
			s.note(name, begin, max(begin, end))
		} else {
			end = 0
		}
		if err != nil { // its end, or no tar
			break
		}
		name, begin, content, size = h.Name, end, s.at, h.Size
	}
	_, err := io.Copy(io.Discard, s)
	return err
}

// note notes an entry where it is damaged.
func (s *search) note(name string, begin, end int64) {
	last := -1
	for len(s.ranges) > 0 && s.ranges[0].Tar < end {
		b := s.ranges[0]
		if b.End() > begin && b.run != last {
			last = b.run
			s.name(last, name)
		}
		if b.End() > end { // it goes on in the next entry
			return
		}
		s.ranges = s.ranges[1:]
	}
}

func (s *search) name(run int, name string) {
	f := &s.runs[run]
	if s.named == mostFiles {
		f.More++
		return
	}
	s.named++
	if len(name) > mostName {
		name = name[:mostName] + "…"
	}
	f.Files = append(f.Files, name)
}

// checkIndex tells of a layer that is whole that its index is not. Nothing more is proved of an index: it is
// believed by nobody.
func (r *run) checkIndex(ctx context.Context, u unit) error {
	parts, ok := r.from.(remote.Parts)
	if l := u.there; ok && l.Stored >= chunk.Least {
		err := chunk.Check(ctx, partsOf(parts, l), l.Stored, l.Size)
		if errors.Is(err, chunk.ErrDamaged) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notes = append(r.notes, Note{l.Object, "its chunk index is damaged; the layer is whole"})
		}
	}
	return ctx.Err()
}
