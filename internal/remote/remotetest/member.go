package remotetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// memberships: manifests belong to repositories and refer to others, from when they
// are whole until they are removed, whatever is collected meanwhile.
func (s *suite) memberships() {
	both, ok := can[remote.Memberships](s, s.Memberships)
	if !ok {
		return
	}
	img := s.image("app", 2)
	s.push(s.A, "app:1", img)
	subject := img.Manifest()
	free := NewArtifact(s.T, "free", nil)
	sig, sbom := NewArtifact(s.T, "sig", subject), NewArtifact(s.T, "sbom", subject)
	chain := NewArtifact(s.T, "chain", sbom.Manifest)
	lost := NewArtifact(s.T, "lost", []byte("a subject that is not there"))
	belongs := func(repository string, a Artifact, want bool) {
		s.Helper()
		for i, m := range both {
			if got, err := m.Belongs(s.ctx(), repository, a.ID); err != nil || got != want {
				s.Errorf("%.100s belongs to %s by side %d: %t, %v", a.Layer, repository, i, got, err)
			}
		}
	}
	referrers := func(repository string, of []byte, want ...Artifact) {
		s.Helper()
		var ids []image.Digest
		for _, a := range want {
			ids = append(ids, a.ID)
		}
		slices.SortFunc(ids, func(a, b image.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
		for i, m := range both {
			var got []image.Digest
			for id, err := range m.Referrers(s.ctx(), repository, image.DigestOf(of)) {
				if err != nil {
					s.Fatal(err)
				}
				got = append(got, id)
			}
			if diff := cmp.Diff(ids, got); diff != "" {
				s.Errorf("referrers in %s by side %d (-want +got):\n%s", repository, i, diff)
			}
		}
	}

	// Not before it is whole.
	for n, doc := range [][]byte{nil, sig.Manifest, EmptyConfig} {
		want := remote.Closure{Documents: []image.Digest{sig.ID}}
		if n > 0 {
			want.Documents = []image.Digest{image.DigestOf(EmptyConfig)}
			if err := s.A.PutDocument(s.ctx(), doc); err != nil {
				s.Fatal(err)
			}
		}
		if n == 2 {
			want = remote.Closure{Layers: []image.Digest{image.DigestOf(sig.Layer)}}
		}
		s.incomplete(both[1].Add(s.ctx(), "app", sig.ID), sig.ID, want)
		belongs("app", sig, false)
		referrers("app", subject)
	}
	for name, id := range map[string]image.Digest{"a config": img.ID, "a config of nothing": image.DigestOf(EmptyConfig)} {
		if err := both[0].Add(s.ctx(), "app", id); err == nil {
			s.Errorf("%s belongs to a repository", name)
		}
	}

	for i, a := range []Artifact{free, sig, sbom, chain, lost} {
		if err := a.Attach(s.ctx(), s.both()[i%2], "app"); err != nil {
			s.Fatal(err)
		}
		belongs("app", a, true)
		belongs("other", a, false)
		belongs("app/more", a, false)
	}
	if err := both[0].Add(s.ctx(), "app", sig.ID); err != nil { // again
		s.Error(err)
	}
	for _, repository := range []string{"localhost:5000/team/app", "app/more"} {
		if err := both[0].Add(s.ctx(), repository, sig.ID); err != nil {
			s.Fatal(err)
		}
		belongs(repository, sig, true)
		referrers(repository, subject, sig)
	}
	if err := both[0].Add(s.ctx(), "app", image.DigestOf(subject)); err != nil { // the synthesised one
		s.Error(err)
	}
	referrers("app", subject, sig, sbom)
	referrers("app", sbom.Manifest, chain)
	referrers("app", []byte("a subject that is not there"), lost)
	referrers("app", free.Manifest)
	referrers("other", subject)
	for i, m := range both {
		for _, err := range m.Referrers(s.ctx(), "app", image.DigestOf(subject)) {
			if err != nil {
				s.Errorf("side %d: %v", i, err)
			}
			break // and no more is yielded
		}
	}
	s.tags("", "app:1") // they are none

	// What is no repository, and what is cancelled.
	for _, repository := range []string{"", "App", "app:1", "../app", "library/app", strings.Repeat("a", 300), "a//b"} {
		_, err := both[0].Belongs(s.ctx(), repository, sig.ID)
		err = errors.Join(err, both[0].Remove(s.ctx(), repository, sig.ID))
		if added := both[1].Add(s.ctx(), repository, sig.ID); !fault.Is(added, fault.Usage) || err == nil {
			s.Errorf("a repository %.30q: %v, %v", repository, added, err)
		}
	}
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if err := both[0].Add(ended, "other", sig.ID); !errors.Is(err, context.Canceled) {
		s.Errorf("add, cancelled: %v", err)
	}
	if err := both[0].Remove(ended, "app", sig.ID); !errors.Is(err, context.Canceled) {
		s.Errorf("remove, cancelled: %v", err)
	}
	belongs("other", sig, false)

	// While the subject lives, what refers to it does; what refers to nothing does not.
	s.collect()
	for _, a := range []Artifact{free, sig, sbom, chain} {
		s.whole(a, s.Collect != nil)
	}
	belongs("app", lost, s.Collect == nil)

	for range 2 { // the second time it is gone
		for _, a := range []Artifact{sig, free} {
			if err := both[1].Remove(s.ctx(), "app", a.ID); err != nil {
				s.Error(err)
			}
			belongs("app", a, false)
		}
	}
	if err := both[0].Remove(s.ctx(), "app", image.DigestOf([]byte("nobody's"))); err != nil {
		s.Error(err)
	}
	referrers("app", subject, sbom)
	belongs("app/more", sig, true)
	s.holds("app:1", img)
	s.collect()
	s.whole(sig, true) // another repository's
	if s.Collect != nil {
		missing, _, err := s.A.Missing(s.ctx(), free.Closure())
		if want := (remote.Closure{Documents: []image.Digest{free.ID}, Layers: free.Closure().Layers}); err != nil || cmp.Diff(sorted(want), sorted(missing)) != "" {
			s.Errorf("of what nobody has any more is missing %v, %v", missing, err)
		}
	}
}

// whole fails the test unless all of a is there, and says what it is.
func (s *suite) whole(a Artifact, collected bool) {
	s.Helper()
	for i, side := range s.both() {
		if missing, _, err := side.Missing(s.ctx(), a.Closure()); err != nil || !missing.Empty() {
			s.Errorf("%s by side %d, collected: %t: missing is %v, %v", a.Layer, i, collected, missing, err)
		}
	}
}

// memberConflicts: what cannot be beside other names is refused, as tags are.
func (s *suite) memberConflicts() {
	both, ok := can[remote.Memberships](s, s.Memberships)
	if !ok {
		return
	}
	one, two := NewArtifact(s.T, "one", nil), NewArtifact(s.T, "two", nil)
	for _, a := range []Artifact{one, two} {
		if err := a.Put(s.ctx(), s.A); err != nil {
			s.Fatal(err)
		}
	}
	inside := fmt.Sprintf("app/%s", one.ID.Hex())
	if err := both[0].Add(s.ctx(), "app", one.ID); err != nil {
		s.Fatal(err)
	}
	err := both[1].Add(s.ctx(), inside, two.ID)
	if s.Conflicts != fault.Is(err, fault.Refused) {
		s.Errorf("a repository named as another and a digest: %v", err)
	}
	if err := both[0].Remove(s.ctx(), "app", one.ID); err != nil {
		s.Fatal(err)
	}
	if err := both[1].Add(s.ctx(), inside, two.ID); err != nil {
		s.Errorf("the name is free: %v", err)
	}
	if err := both[0].Add(s.ctx(), "app", one.ID); s.Conflicts != fault.Is(err, fault.Refused) {
		s.Errorf("the other way round: %v", err)
	}
	if got, err := both[1].Belongs(s.ctx(), inside, two.ID); err != nil || !got {
		s.Errorf("%t, %v", got, err)
	}
}
