package remotetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

func (s *suite) cancelled() {
	old, img := s.image("old", 2), s.image("new", 2)
	s.push(s.A, "app:1", old)
	half := remote.Closure{Layers: img.DiffIDs()[:1]}
	if err := Put(s.ctx(), s.A, img, half); err != nil {
		s.Fatal(err)
	}
	layers, err := remote.Layers(s.ctx(), s.A, old.DiffIDs())
	if err != nil {
		s.Fatal(err)
	}

	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	ref, tar := Ref(s.T, "app:1"), img.Layers[1]
	for name, call := range map[string]func() error{
		"Resolve":           func() error { _, err := s.A.Resolve(ended, ref); return err },
		"Resolve, digest":   func() error { _, err := s.A.Resolve(ended, Ref(s.T, "app@"+old.ID.String())); return err },
		"Resolve, absent":   func() error { _, err := s.A.Resolve(ended, Ref(s.T, "nothing:1")); return err },
		"Document":          func() error { _, err := s.A.Document(ended, old.ID); return err },
		"Layers":            func() error { _, err := remote.Layers(ended, s.A, old.DiffIDs()); return err },
		"Layers, none":      func() error { _, err := remote.Layers(ended, s.A, nil); return err },
		"Open":              func() error { _, err := Read(ended, s.A, layers[0]); return err },
		"Missing":           func() error { _, _, err := s.A.Missing(ended, img.Closure()); return err },
		"Missing, of none":  func() error { _, _, err := s.A.Missing(ended, remote.Closure{}); return err },
		"Missing, none":     func() error { _, _, err := s.A.Missing(ended, old.Closure()); return err },
		"PutDocument":       func() error { return s.A.PutDocument(ended, img.Config) },
		"PutDocument again": func() error { return s.A.PutDocument(ended, old.Config) },
		"Tag":               func() error { return s.A.Tag(ended, Ref(s.T, "app:2"), old.ID) },
		"Tag again":         func() error { return s.A.Tag(ended, ref, old.ID) },
		"Tag, incomplete":   func() error { return s.A.Tag(ended, ref, img.ID) },
		"PutLayer": func() error {
			_, err := s.A.PutLayer(ended, image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}, bytes.NewReader(tar))
			return err
		},
		"References": func() (last error) {
			for _, err := range s.A.References(ended, "") {
				last = err
			}
			return last
		},
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context: %v, want context.Canceled", name, err)
		}
	}
	s.lacks(img, remote.Closure{Documents: []image.Digest{img.ID}, Layers: img.DiffIDs()[1:]})
	s.holds("app:1", old)
	s.tags("", "app:1")
}

// cancelledInLayer cancels while a layer is put and while one is read.
func (s *suite) cancelledInLayer() {
	tar := Noise("large", s.Large)
	img := NewImage(s.T, "app", tar)
	id := image.DigestOf(tar)
	for _, cut := range []int{0, 1, len(tar) / 2, len(tar)} {
		for _, end := range []struct {
			name string
			rest io.Reader
		}{
			{"goes on", bytes.NewReader(tar[cut:])},
			{"ends", bytes.NewReader(nil)},
			{"fails", broken(nil, errBody)},
		} {
			ctx, cancel := context.WithCancel(s.ctx())
			body := io.MultiReader(bytes.NewReader(tar[:cut]), acting(cancel), end.rest)
			_, err := s.A.PutLayer(ctx, image.Descriptor{Digest: id, Size: int64(len(tar))}, body)
			cancel()
			if err == nil {
				s.Errorf("cancelled after %d bytes of a body that %s: no error", cut, end.name)
			}
			if end.name == "goes on" && !errors.Is(err, context.Canceled) {
				s.Errorf("cancelled after %d bytes: %v, want context.Canceled", cut, err)
			}
			s.lacks(img, img.Closure())
		}
	}

	s.push(s.A, "app:1", img)
	layers, err := remote.Layers(s.ctx(), s.B, img.DiffIDs())
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	r, err := s.B.Open(ctx, layers[0])
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		s.Fatal(err)
	}
	cancel()
	// What was read ahead may still come, and be the whole layer.
	n, err := io.Copy(io.Discard, r)
	if err == nil && n+100 != layers[0].Size || err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("reading on after cancel: %d bytes, %v, want context.Canceled", n, err)
	}
}

// acting is an empty reader that acts when it is read.
type acting func()

func (a acting) Read([]byte) (int, error) {
	a()
	return 0, io.EOF
}

// damagedLayer proves that the last byte of a layer comes with the proof only.
func (s *suite) damagedLayer() {
	if s.Forge == nil {
		return
	}
	for _, size := range []int{1, 2, 2048, s.Large} {
		tar := Noise("right", size)
		img := NewImage(s.T, "app", tar, FileLayer(s.T, "above", "above"))
		s.push(s.A, "app:1", img)
		layers, err := remote.Layers(s.ctx(), s.B, img.DiffIDs())
		if err != nil {
			s.Fatal(err)
		}
		flipped := func(i int) []byte {
			b := bytes.Clone(tar)
			b[i] ^= 1
			return b
		}
		for name, forged := range map[string][]byte{
			"first byte":    flipped(0),
			"middle":        flipped(size / 2),
			"last byte":     flipped(size - 1),
			"cut":           tar[:size-1],
			"empty":         {},
			"longer":        append(bytes.Clone(tar), 0),
			"twice":         append(bytes.Clone(tar), tar...),
			"another layer": img.Layers[1],
		} {
			if size == s.Large && name != "last byte" && name != "cut" && name != "longer" {
				continue // the others take as long, and prove no more
			}
			s.T.Run(fmt.Sprintf("%d bytes, %s", size, name), func(t *testing.T) {
				s.Forge(t, layers[0], forged)
				for _, chunk := range []int{1, 7, 1 << 20} {
					if chunk < 7 && size > 1<<16 {
						continue
					}
					r, err := s.B.Open(s.ctx(), layers[0])
					if err != nil {
						t.Fatal(err)
					}
					n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{r}, make([]byte, chunk))
					if n >= int64(size) {
						t.Errorf("of %d bytes that are damaged %d came", size, n)
					}
					if !fault.Is(err, fault.Damaged) {
						t.Errorf("got %v, want a damaged fault", err)
					}
					if _, again := r.Read(make([]byte, 1)); again == nil || again == io.EOF {
						t.Errorf("the read after the failure: %v", again)
					}
					if err := r.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				}
				if _, err := Pull(s.ctx(), s.A, Ref(t, "app:1")); !fault.Is(err, fault.Damaged) {
					t.Errorf("pull: %v, want a damaged fault", err)
				}
			})
		}
		s.Forge(s.T, layers[0], tar)
		s.holds("app:1", img)
	}
}

type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }

// earlyClose leaves layers in the middle. What runs on is found by Run.
func (s *suite) earlyClose() {
	img := NewImage(s.T, "app", Noise("large", s.Large), FileLayer(s.T, "small", "small"))
	s.push(s.A, "app:1", img)
	layers, err := remote.Layers(s.ctx(), s.B, img.DiffIDs())
	if err != nil {
		s.Fatal(err)
	}
	for _, l := range layers {
		for _, n := range []int64{0, 1, l.Size / 2, l.Size - 1, l.Size} {
			r, err := s.B.Open(s.ctx(), l)
			if err != nil {
				s.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				s.Errorf("%d of %d bytes: %v", n, l.Size, err)
			}
			if err := r.Close(); err != nil {
				s.Errorf("close after %d of %d bytes: %v", n, l.Size, err)
			}
		}
	}
	// One that waits for its first byte when it is closed.
	r, err := s.B.Open(s.ctx(), layers[0])
	if err != nil {
		s.Fatal(err)
	}
	if err := r.Close(); err != nil {
		s.Error(err)
	}
	s.holds("app:1", img)
}
