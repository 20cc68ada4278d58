package remotetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing/iotest"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

var errBody = errors.New("the body broke")

// none is the closure of nothing.
func (Image) none() remote.Closure { return remote.Closure{} }

func (s *suite) wrongLayers() {
	for _, size := range []int{0, 1, 2048, s.Large} {
		right := Noise("right", size)
		id := image.DigestOf(right)
		img := NewImage(s.T, "app", right)
		wrong := map[string]struct {
			layer image.Descriptor
			body  io.Reader
			cause error // nil: a MismatchError
		}{
			"other content":               {image.Descriptor{Digest: id, Size: int64(size)}, bytes.NewReader(Noise("wrong", size)), nil},
			"other content, unknown size": {image.Descriptor{Digest: id, Size: -1}, bytes.NewReader(Noise("wrong", size)), nil},
			"size too small":              {image.Descriptor{Digest: id, Size: int64(size) - 1}, bytes.NewReader(right), nil},
			"size too large":              {image.Descriptor{Digest: id, Size: int64(size) + 1}, bytes.NewReader(right), nil},
			"trailing byte":               {image.Descriptor{Digest: id, Size: int64(size)}, io.MultiReader(bytes.NewReader(right), bytes.NewReader([]byte{0})), nil},
			"trailing byte, unknown size": {image.Descriptor{Digest: id, Size: -1}, io.MultiReader(bytes.NewReader(right), bytes.NewReader([]byte{0})), nil},
			"fails at its start":          {image.Descriptor{Digest: id, Size: int64(size)}, iotest.ErrReader(errBody), errBody},
			"fails in its middle":         {image.Descriptor{Digest: id, Size: int64(size)}, broken(right[:size/2], errBody), errBody},
			"fails at its end":            {image.Descriptor{Digest: id, Size: int64(size)}, broken(right, errBody), errBody},
			"fails, unknown size":         {image.Descriptor{Digest: id, Size: -1}, broken(right, errBody), errBody},
			"fails with unexpected EOF":   {image.Descriptor{Digest: id, Size: int64(size)}, broken(right, io.ErrUnexpectedEOF), io.ErrUnexpectedEOF},
		}
		if size == 0 {
			delete(wrong, "other content")
			delete(wrong, "other content, unknown size")
			delete(wrong, "size too small") // that would be "unknown"
		} else {
			wrong["cut"] = struct {
				layer image.Descriptor
				body  io.Reader
				cause error
			}{image.Descriptor{Digest: id, Size: int64(size)}, bytes.NewReader(right[:size-1]), nil}
			wrong["cut, unknown size"] = struct {
				layer image.Descriptor
				body  io.Reader
				cause error
			}{image.Descriptor{Digest: id, Size: -1}, bytes.NewReader(right[:size-1]), nil}
		}
		if err := s.A.PutDocument(s.ctx(), img.Config); err != nil {
			s.Fatal(err)
		}
		for name, test := range wrong {
			_, err := s.A.PutLayer(s.ctx(), test.layer, test.body)
			var mismatch *image.MismatchError
			if test.cause == nil && (!errors.As(err, &mismatch) || mismatch.Want != id) {
				s.Errorf("%d bytes, %s: %v, want a MismatchError of %s", size, name, err, id.Short())
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				s.Errorf("%d bytes, %s: %v, want the body's error", size, name, err)
			}
		}
		s.lacks(img, remote.Closure{Layers: img.DiffIDs()})
		ref := fmt.Sprintf("app:%d", size)
		s.incomplete(s.A.Tag(s.ctx(), Ref(s.T, ref), img.ID), img.ID, remote.Closure{Layers: img.DiffIDs()})
		s.absent(ref)

		// The right bytes come in, and nothing wrong replaces them.
		stored, err := s.A.PutLayer(s.ctx(), image.Descriptor{Digest: id, Size: -1}, iotest.OneByteReader(bytes.NewReader(right[:min(size, 2048)])))
		if size <= 2048 && (err != nil || stored.Size != int64(size) || stored.Digest != id) {
			s.Errorf("%d bytes, size unknown: %+v, %v", size, stored, err)
		}
		s.push(s.A, ref, img)
		if _, err := s.B.PutLayer(s.ctx(), image.Descriptor{Digest: id, Size: -1}, broken(right, errBody)); !errors.Is(err, errBody) {
			s.Errorf("a failing body onto the layer: %v", err)
		}
		if _, err := s.B.PutLayer(s.ctx(), image.Descriptor{Digest: id, Size: int64(size)}, bytes.NewReader(Noise("wrong", size+1))); err == nil {
			s.Errorf("wrong bytes onto the layer are taken")
		}
		s.holds(ref, img)
	}
}

// broken reads b and then fails.
func broken(b []byte, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(b), iotest.ErrReader(err))
}

func (s *suite) wrongDocuments() {
	for name, doc := range map[string][]byte{
		"nothing":      {},
		"no JSON":      []byte("rootfs"),
		"no object":    []byte(`["rootfs"]`),
		"of two kinds": []byte(`{"rootfs":{},"layers":[]}`),
		"cut":          []byte(`{"rootfs":{"type":"layers"`),
	} {
		if err := s.A.PutDocument(s.ctx(), doc); err == nil {
			s.Errorf("a document that is %s (%s) was taken", name, doc)
		}
		s.lacks(Image{ID: image.DigestOf(doc)}, remote.Closure{Documents: []image.Digest{image.DigestOf(doc)}})
	}
	if err := s.A.PutDocument(s.ctx(), []byte(`{}`)); err != nil {
		s.Errorf("the config of an artifact: %v", err)
	}
	space := bytes.Repeat([]byte{' '}, image.MaxDocument)
	doc := []byte(`{"rootfs":{"type":"layers","diff_ids":[]}}`)
	large := Image{Config: append(space[:image.MaxDocument-len(doc):image.MaxDocument-len(doc)], doc...)}
	large.ID = image.DigestOf(large.Config)
	if err := s.A.PutDocument(s.ctx(), large.Config); err != nil {
		s.Errorf("a document of 8 MiB: %v", err)
	}
	if got, err := s.B.Document(s.ctx(), large.ID); err != nil || !bytes.Equal(got, large.Config) {
		s.Errorf("a document of 8 MiB comes back as %d bytes, %v", len(got), err)
	}
	if err := s.A.PutDocument(s.ctx(), append(large.Config, ' ')); !errors.Is(err, image.ErrTooLarge) {
		s.Errorf("a document of 8 MiB and a byte: %v, want ErrTooLarge", err)
	}
}

// subsets calls run with an image of four layers for each set of them, that
// set having been put already, with or without the config.
func (s *suite) subsets(config bool, run func(img Image, missing remote.Closure)) {
	for set := range 1 << 4 {
		img := s.image(fmt.Sprintf("set-%t-%d", config, set), 4)
		var put, missing remote.Closure
		for i, id := range img.DiffIDs() {
			if set&(1<<i) != 0 {
				put.Layers = append(put.Layers, id)
			} else {
				missing.Layers = append(missing.Layers, id)
			}
		}
		if config {
			put.Documents = img.Closure().Documents
		} else {
			missing.Documents = img.Closure().Documents
		}
		if err := Put(s.ctx(), s.A, img, put); err != nil {
			s.Fatal(err)
		}
		run(img, missing)
	}
}

func (s *suite) missing() {
	if missing, there, err := s.A.Missing(s.ctx(), remote.Closure{}); err != nil || !missing.Empty() || len(there) != 0 {
		s.Errorf("missing of nothing: %v, %v, %v", missing, there, err)
	}
	for _, config := range []bool{false, true} {
		s.subsets(config, s.lacks)
	}
}

func (s *suite) tagBeforeImage() {
	old := s.image("old", 1)
	s.push(s.A, "app:old", old)
	s.subsets(true, func(img Image, missing remote.Closure) {
		if missing.Empty() {
			return
		}
		s.incomplete(s.B.Tag(s.ctx(), Ref(s.T, "app:old"), img.ID), img.ID, missing)
		s.incomplete(s.B.Tag(s.ctx(), Ref(s.T, "app:new"), img.ID), img.ID, missing)
	})
	s.subsets(false, func(img Image, _ remote.Closure) {
		// Without its config nobody knows the layers.
		err := s.A.Tag(s.ctx(), Ref(s.T, "app:old"), img.ID)
		s.incomplete(err, img.ID, remote.Closure{Documents: []image.Digest{img.ID}})
	})
	s.holds("app:old", old)
	s.absent("app:new")
	s.tags("", "app:old")

	img := s.image("set-true-0", 4)
	s.push(s.B, "app:old", img)
	s.holds("app:old", img)
}

func (s *suite) resume() {
	img := s.image("app", 4)
	old := s.image("old", 1)
	s.push(s.A, "app:1", old)
	for stop, id := range img.DiffIDs() {
		missing, _, err := s.A.Missing(s.ctx(), img.Closure())
		if err != nil || len(missing.Layers) != 4-stop {
			s.Fatalf("after %d layers: %v, %d are missing", stop, err, len(missing.Layers))
		}
		// The push stops in the middle of this layer …
		tar := img.Layer(id)
		if _, err := s.A.PutLayer(s.ctx(), image.Descriptor{Digest: id, Size: int64(len(tar))}, broken(tar[:len(tar)/2], errBody)); !errors.Is(err, errBody) {
			s.Fatalf("an interrupted layer: %v", err)
		}
		s.lacks(img, remote.Closure{Documents: []image.Digest{img.ID}, Layers: img.DiffIDs()[stop:]})
		s.holds("app:1", old)
		// … and another one gets past it.
		if err := Put(s.ctx(), s.B, img, remote.Closure{Layers: []image.DiffID{id}}); err != nil {
			s.Fatal(err)
		}
	}
	missing, err := Push(s.ctx(), s.A, Ref(s.T, "app:1"), img)
	if err != nil || len(missing.Layers) != 0 || len(missing.Documents) != 1 {
		s.Errorf("the rest: %v, asked for %v", err, missing)
	}
	s.holds("app:1", img)
}

// emptyIndex: an index that names no image has all that it names, and can be tagged.
func (s *suite) emptyIndex() {
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	id := image.DigestOf(index)
	if err := s.A.PutDocument(s.ctx(), index); err != nil {
		s.Fatal(err)
	}
	ref := Ref(s.T, "empty:1")
	if err := s.A.Tag(s.ctx(), ref, id); err != nil {
		s.Fatalf("it cannot be tagged: %v", err)
	}
	for i, r := range s.both() {
		if got, err := r.Resolve(s.ctx(), ref); err != nil || got != id {
			s.Errorf("side %d: it names %s, %v", i, got, err)
		}
	}
}
