package remotetest

import (
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

func (s *suite) roundTrip() {
	img := NewImage(s.T, "app", FileLayer(s.T, "base", "base"), Noise("large", s.Large), FileLayer(s.T, "top", "top"))
	s.lacks(img, img.Closure())
	missing, err := Push(s.ctx(), s.A, Ref(s.T, "app:1"), img)
	if err != nil {
		s.Fatal(err)
	}
	if len(missing.Layers) != 3 || len(missing.Documents) != 1 {
		s.Errorf("an empty remote misses %v", missing)
	}
	s.holds("app:1", img)
	s.lacks(img, Image{}.none())

	// Layers keeps the order asked for.
	ids := img.DiffIDs()
	slices.Reverse(ids)
	layers, err := remote.Layers(s.ctx(), s.B, append(ids, ids[0]))
	if err != nil {
		s.Fatal(err)
	}
	for i, l := range layers {
		want := append(ids, ids[0])[i]
		if l.Digest != want || l.Size != int64(len(img.Layer(want))) || l.Object == "" {
			s.Errorf("layer %d: %+v, want %s of %d bytes", i, l, want, len(img.Layer(want)))
		}
	}

	// What is there does not travel again, also for another tag and another image.
	missing, err = Push(s.ctx(), s.B, Ref(s.T, "other:1"), img)
	if err != nil || !missing.Empty() {
		s.Errorf("push again: %v, misses %v", err, missing)
	}
	second := NewImage(s.T, "second", img.Layers[0], FileLayer(s.T, "new", "new"))
	missing, err = Push(s.ctx(), s.B, Ref(s.T, "app:2"), second)
	if err != nil || len(missing.Layers) != 1 || missing.Layers[0] != second.DiffIDs()[1] {
		s.Errorf("push of an image that shares a layer: %v, misses %v", err, missing)
	}
	s.holds("app:1", img)
	s.holds("other:1", img)
	s.holds("app:2", second)
}

func (s *suite) oddImages() {
	a, b := FileLayer(s.T, "a", "a"), FileLayer(s.T, "b", "b")
	config := NewImage(s.T, "a config that is a layer too").Config
	for name, img := range map[string]Image{
		"no-layers":         NewImage(s.T, "no layers"),
		"twice":             NewImage(s.T, "twice", a, b, a),
		"only-twice":        NewImage(s.T, "only twice", b, b),
		"empty-tar":         NewImage(s.T, "empty tar", a, Tar(s.T)),
		"no-bytes":          NewImage(s.T, "no bytes", []byte{}, a),
		"one-byte":          NewImage(s.T, "one byte", []byte{7}),
		"config-as-a-layer": NewImage(s.T, "outer", config, a),
		"that-config":       NewImage(s.T, "a config that is a layer too"),
		"same-layers":       NewImage(s.T, "twice, otherwise", a, b, a),
	} {
		ref := name + ":1"
		s.push(s.A, ref, img)
		s.holds(ref, img)
		s.lacks(img, img.none())
	}
	outer := NewImage(s.T, "outer", config, a)
	s.holds("config-as-a-layer:1", outer)
	s.holds("that-config:1", NewImage(s.T, "a config that is a layer too"))
}

func (s *suite) digests() {
	img := s.image("app", 2)
	s.push(s.A, "app:1", img)
	manifest := image.DigestOf(img.Manifest())
	s.holds("app@"+img.ID.String(), img)
	if s.Compresses {
		var err error
		if manifest, err = s.A.Resolve(s.ctx(), Ref(s.T, "app:1")); err != nil {
			s.Fatal(err)
		}
	}
	s.holds("app@"+manifest.String(), img)
	s.holds("app:not-this-tag@"+manifest.String(), img) // the digest decides
	got, err := s.B.Document(s.ctx(), manifest)
	if err != nil || !s.Compresses && string(got) != string(img.Manifest()) {
		s.Errorf("the synthesised manifest: %v\n got %s\nwant %s", err, got, img.Manifest())
	}
	s.absent("app@" + image.DigestOf([]byte("nothing")).String())
	s.absent("app@" + img.DiffIDs()[0].String()) // a layer is no image
}

// manyNames are names as docker allows them.
var manyNames = []string{
	"a:b", "app:1", "app:latest", "app:V1", "app:v2", "app:1.0-rc.1_x", "app:_", "app-x:1", "app.x:1", "app_x:1", "app__x:1",
	"team/app:1", "team/sub/app:1", "team-x/app:1",
	"localhost:5000/app:1", "localhost:5000/team/app:1", "localhost/app:1", "registry.example.com/app:1", "registry.example.com:443/app:1",
	"[::1]:5000/app:1", "Example/app:1",
	"repositories/images:VERSION", "images/json:json", "0:0",
	"app:" + strings.Repeat("t", 128), strings.Repeat("n", 200) + ":1",
}

func (s *suite) names() {
	var want []string
	images := map[string]Image{}
	for _, name := range manyNames {
		ref, err := image.ParseReference(name)
		if err != nil {
			continue // not all of them are names to all versions of docker's rules
		}
		want = append(want, ref.String())
		images[name] = NewImage(s.T, name)
		s.push(s.A, name, images[name])
	}
	if len(want) < 20 {
		s.Fatalf("only %q are names", want)
	}
	s.tags("", want...)
	for name, img := range images {
		s.holds(name, img)
	}
	for _, other := range []string{"app:v1", "app:V2", "app:LATEST", "localhost:5001/app:1", "localhost:5000/app:2"} {
		s.absent(other)
	}
}

func (s *suite) conflicts() {
	first, second := s.image("first", 1), s.image("second", 1)
	for _, names := range [][2]string{
		{"a:b", "a/b:c"},
		{"x/y:z", "x:y"},
		{"d:e", "d/e/f:g"},
		{"localhost:5000/k/l:m", "localhost:5000/k:l"},
	} {
		s.push(s.A, names[0], first)
		_, err := Push(s.ctx(), s.B, Ref(s.T, names[1]), second)
		if !s.Conflicts {
			if err != nil {
				s.Errorf("%s beside %s: %v", names[1], names[0], err)
			}
			s.holds(names[1], second)
		} else {
			if !fault.Is(err, fault.Refused) || fault.AdviceOf(err) == "" {
				s.Errorf("%s beside %s: %v, want a refused fault with advice", names[1], names[0], err)
			}
			s.absent(names[1])
		}
		s.holds(names[0], first)
	}
	// These look alike and are no conflicts.
	for _, name := range []string{"a:c", "a/bc:1", "a/b-c:1", "ab:b", "x/y:zz"} {
		s.push(s.A, name, first)
		s.holds(name, first)
	}
}

func (s *suite) references() {
	s.tags("")
	s.tags("app")
	img := s.image("app", 1)
	all := []string{"app:1", "app:2", "app-x:1", "app/x:1", "app/x/y:1", "appx:1", "ap:1", "localhost:5000/app:1"}
	for _, name := range all {
		s.push(s.A, name, img)
	}
	s.tags("", all...)
	s.tags("app", "app:1", "app:2")
	s.tags("app/x", "app/x:1")
	s.tags("app-x", "app-x:1")
	s.tags("localhost:5000/app", "localhost:5000/app:1")
	s.tags("localhost:5000")
	s.tags("team")
	for range s.B.References(s.ctx(), "") {
		break
	}
}

func (s *suite) notFound() {
	s.absent("app:1")
	_, err := s.A.Resolve(s.ctx(), Ref(s.T, "app:1"))
	if fault.AdviceOf(err) == "" || !strings.Contains(err.Error(), "app:1") {
		s.Errorf("in an empty remote: %v, advice %q; want the name, and advice", err, fault.AdviceOf(err))
	}
	img := s.image("app", 1)
	for _, name := range []string{"app:first", "app:second", "other:third"} {
		s.push(s.A, name, img)
	}
	for _, test := range []struct {
		ref, with, without string
	}{
		{"app:1", "first, second", "third"},
		{"nothing:1", "app, other", "first"},
	} {
		_, err := s.B.Resolve(s.ctx(), Ref(s.T, test.ref))
		advice := fault.AdviceOf(err)
		if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), test.ref) ||
			!strings.Contains(advice, test.with) || strings.Contains(advice, test.without) {
			s.Errorf("resolve %s: %v, advice %q; want the name, %q, and not %q", test.ref, err, advice, test.with, test.without)
		}
	}

	// What an image names and the remote lacks is damage, and is named.
	id := image.DigestOf([]byte("nothing"))
	if _, err := s.B.Document(s.ctx(), id); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), id.Hex()) {
		s.Errorf("a document that is not there: %v, want a damaged fault that names it", err)
	}
	if _, err := remote.Layers(s.ctx(), s.B, []image.DiffID{img.DiffIDs()[0], id}); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), id.Hex()) {
		s.Errorf("a layer that is not there: %v, want a damaged fault that names it", err)
	}
	if layers, err := remote.Layers(s.ctx(), s.B, nil); err != nil || len(layers) != 0 {
		s.Errorf("no layers: %v, %v", layers, err)
	}
}

func (s *suite) tagMoves() {
	first, second := s.image("first", 2), s.image("second", 2)
	s.push(s.A, "app:1", first)
	s.push(s.A, "app:kept", first)
	s.push(s.B, "app:1", second)
	s.holds("app:1", second)
	s.holds("app:kept", first)
	if err := s.A.Tag(s.ctx(), Ref(s.T, "app:1"), first.ID); err != nil {
		s.Fatal(err)
	}
	s.holds("app:1", first)
	if err := s.A.Tag(s.ctx(), Ref(s.T, "app:1"), first.ID); err != nil {
		s.Errorf("tag again: %v", err)
	}
	s.holds("app:1", first)
	s.tags("", "app:1", "app:kept")
}
