package remotetest

import (
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// look asks for what is there and what is not, with knowledge that is right,
// wrong, or of another version.
func (s *suite) look() {
	img := s.image("app", 2)
	s.push(s.A, "app:1", img)
	gone := image.DigestOf([]byte("nothing"))
	ask := img.Closure()
	ask.Documents = append(ask.Documents, gone)
	ask.Layers = append(ask.Layers, gone)
	first, err := s.B.Look(s.ctx(), ask, nil)
	if err != nil {
		s.Fatal(err)
	}
	for what, known := range map[string]map[image.DiffID]remote.Layer{
		"nothing":         nil,
		"what it said":    first.Layers,
		"another version": {img.DiffIDs()[0]: {Digest: img.DiffIDs()[0], Size: 1, Version: "another"}},
		"no version":      {img.DiffIDs()[0]: {Digest: img.DiffIDs()[0], Size: 1}},
		"what is gone":    {gone: {Digest: gone, Size: 1, Version: "another"}},
	} {
		for i, from := range s.both() {
			found, err := from.Look(s.ctx(), ask, known)
			if err != nil {
				s.Fatal(err)
			}
			if _, ok := found.Documents[img.ID]; !ok || len(found.Documents) != 1 {
				s.Errorf("knowing %s, side %d: documents %v", what, i, found.Documents)
			}
			for _, d := range img.DiffIDs() {
				if l := found.Layers[d]; l.Digest != d || l.Size != int64(len(img.Layer(d))) || l.Object == "" || l != first.Layers[d] {
					s.Errorf("knowing %s, side %d: %+v, want %d bytes", what, i, l, len(img.Layer(d)))
				}
			}
			err = found.Torn[gone]
			if len(found.Layers) != 2 || len(found.Torn) != 1 || !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), gone.Hex()) {
				s.Errorf("knowing %s, side %d: %d layers, torn: %v", what, i, len(found.Layers), found.Torn)
			}
		}
	}
}

// tagVersions proves, where there are versions, that both sides tell the same
// one, and that a tag that moves gets another. (Moved back within the resolution
// of a clock, it may have its first one again.)
func (s *suite) tagVersions() {
	one, two := s.image("one", 1), s.image("two", 1)
	s.push(s.A, "app:kept", one)
	seen := map[string]bool{}
	kept := ""
	for i, img := range []Image{one, two} {
		s.push(s.A, "app:moves", img)
		for side, from := range s.both() {
			for tag, err := range from.References(s.ctx(), "app") {
				switch {
				case err != nil:
					s.Fatal(err)
				case tag.Version == "":
					continue
				case tag.Reference.Tag == "moves" && side == 0 && seen[tag.Version]:
					s.Errorf("move %d: the version is an old one", i)
				case tag.Reference.Tag == "kept" && kept != "" && tag.Version != kept:
					s.Errorf("move %d: a tag that stays has another version", i)
				}
				if tag.Reference.Tag == "kept" {
					kept = tag.Version
				} else {
					seen[tag.Version] = true
				}
			}
		}
	}
}
