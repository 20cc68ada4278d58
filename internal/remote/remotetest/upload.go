package remotetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing/iotest"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote"
)

// uploads: whoever knows an upload goes on with it where it ends, and nowhere else.
func (s *suite) uploads() {
	both, ok := can[remote.Uploads](s, s.Uploads)
	if !ok {
		return
	}
	content := Noise("upload", s.Large)
	cuts := []int{0, 1, 1, s.Large / 2, s.Large - 1, s.Large} // an empty one among them
	id, err := both[0].CreateUpload(s.ctx(), "localhost:5000/team/app")
	if err != nil {
		s.Fatal(err)
	}
	other, err := both[1].CreateUpload(s.ctx(), "other")
	if err != nil || other == id {
		s.Fatalf("a second one: %q, %v", other, err)
	}
	s.uploaded(id, "localhost:5000/team/app", nil)
	for i, from := range cuts[:len(cuts)-1] {
		to := cuts[i+1]
		for _, wrong := range []int64{int64(from) - 1, int64(from) + 1, int64(from) + 1<<30} {
			if wrong < 0 {
				continue
			}
			size, err := both[i%2].AppendUpload(s.ctx(), id, wrong, strings.NewReader("wrong"))
			if !fault.Is(err, fault.Refused) || !errors.Is(err, remote.ErrOffset) || size != int64(from) {
				s.Errorf("%d bytes are there, append at %d: %d, %v", from, wrong, size, err)
			}
		}
		size, err := both[i%2].AppendUpload(s.ctx(), id, int64(from), onlyReader{bytes.NewReader(content[from:to])})
		if err != nil || size != int64(to) {
			s.Fatalf("append of %d to %d: %d, %v", from, to, size, err)
		}
		s.uploaded(id, "localhost:5000/team/app", content[:to])
	}
	s.uploaded(other, "other", nil)

	// What breaks leaves the beginning, or nothing, and it goes on behind that.
	size, err := both[1].AppendUpload(s.ctx(), other, 0, broken(content, errBody))
	if !errors.Is(err, errBody) || size > int64(len(content)) {
		s.Errorf("a body that broke: %d, %v", size, err)
	}
	there, _, err := both[0].UploadSize(s.ctx(), other)
	if err != nil || there > int64(len(content)) {
		s.Fatalf("behind a body that broke are %d, %v", there, err)
	}
	s.uploaded(other, "other", content[:there])
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if _, err := both[0].AppendUpload(ended, other, there, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled: %v", err)
	}
	if _, err := both[0].AppendUpload(s.ctx(), other, there, iotest.OneByteReader(bytes.NewReader(content[there:]))); err != nil {
		s.Fatal(err)
	}
	s.uploaded(other, "other", content)

	// Closed early, and removed.
	r, err := both[1].OpenUpload(s.ctx(), id)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		s.Error(err)
	}
	if err := r.Close(); err != nil {
		s.Error(err)
	}
	for range 2 { // the second time it is gone
		if err := both[0].RemoveUpload(s.ctx(), id); err != nil {
			s.Error(err)
		}
	}
	s.uploaded(other, "other", content)
	for _, gone := range []string{id, "", "x", "../" + other, other + "/", strings.ToUpper(other) + "A", strings.Repeat("0", 32)} {
		for i, u := range both {
			_, _, sizeErr := u.UploadSize(s.ctx(), gone)
			_, appendErr := u.AppendUpload(s.ctx(), gone, 0, strings.NewReader("x"))
			_, openErr := u.OpenUpload(s.ctx(), gone)
			for _, err := range []error{sizeErr, appendErr, openErr} {
				if !fault.Is(err, fault.NotFound) {
					s.Errorf("upload %q by side %d: %v, want a not-found fault", gone, i, err)
				}
			}
		}
	}
	for _, repository := range []string{"", "App", "app:1", "../app"} {
		if _, err := both[0].CreateUpload(s.ctx(), repository); !fault.Is(err, fault.Usage) {
			s.Errorf("an upload for %q: %v", repository, err)
		}
	}
	s.tags("") // they are no images
}

// uploaded fails the test unless both sides have exactly this of an upload.
func (s *suite) uploaded(id, repository string, content []byte) {
	s.Helper()
	for i, u := range s.both() {
		u := u.(remote.Uploads)
		size, of, err := u.UploadSize(s.ctx(), id)
		if err != nil || size != int64(len(content)) || of != repository {
			s.Errorf("by side %d there are %d bytes for %q, %v, want %d for %q", i, size, of, err, len(content), repository)
		}
		r, err := u.OpenUpload(s.ctx(), id)
		if err != nil {
			s.Errorf("open by side %d: %v", i, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, content) {
			s.Errorf("by side %d come %d bytes, %v; they are other than %d", i, len(got), err, len(content))
		}
	}
}

// appendsAtOnce: of many who append at one offset at once, what is there in the end
// is one's.
func (s *suite) appendsAtOnce() {
	both, ok := can[remote.Uploads](s, s.Uploads)
	if !ok {
		return
	}
	id, err := both[0].CreateUpload(s.ctx(), "app")
	if err != nil {
		s.Fatal(err)
	}
	bodies := make([][]byte, pushers)
	won := make([]bool, pushers)
	for i := range bodies {
		bodies[i] = Noise(fmt.Sprint("racer", i), 1000+i)
	}
	s.together(func(i int) error {
		size, err := both[i%2].AppendUpload(s.ctx(), id, 0, bytes.NewReader(bodies[i]))
		won[i] = err == nil
		if err == nil && size != int64(len(bodies[i])) || err != nil && !errors.Is(err, remote.ErrOffset) {
			return fmt.Errorf("racer %d: %d, %w", i, size, err)
		}
		return nil
	})
	if !s.Exclusive {
		return
	}
	winner := -1
	for i, w := range won {
		if w && winner >= 0 {
			s.Errorf("%d and %d won", winner, i)
		}
		if w {
			winner = i
		}
	}
	if winner < 0 {
		s.Fatal("nobody won")
	}
	s.uploaded(id, "app", bodies[winner])
}
