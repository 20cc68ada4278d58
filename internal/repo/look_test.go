package repo_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// lister counts listings, and those of more than one entry.
type lister struct {
	storage.Store
	all, large atomic.Int64
	fail       map[string]error // by prefix
}

func (l *lister) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	l.all.Add(1)
	if len(prefix) < len("images/")+64 {
		l.large.Add(1)
	}
	if err := l.fail[prefix]; err != nil {
		return func(yield func(storage.Info, error) bool) { yield(storage.Info{}, err) }
	}
	return l.Store.List(ctx, prefix)
}

// TestLookAtManyIsLookAtEach proves that one listing of images/ says of all
// kinds of entries, whole and torn, what a look at each of them says.
func TestLookAtManyIsLookAtEach(t *testing.T) {
	s := &lister{Store: mem.New()}
	r := open(t, s, codec.LZ4)
	var asked remote.Closure
	put := func(id image.Digest, name, content string) {
		if err := s.Put(t.Context(), "images/"+id.Hex()+"/"+name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 400 {
		content := fmt.Sprintf("layer %d", i)
		id := image.DigestOf([]byte(content))
		meta := fmt.Sprintf(`{"diffID":"%s","size":%d,"file":"layer.tar"}`, id, len(content))
		switch i % 8 {
		case 0: // nothing
		case 1:
			put(id, "layer.tar", content)
		case 2:
			put(id, "json", meta)
		case 3:
			put(id, "json", "garbage")
			put(id, "layer.tar", content)
		case 4:
			put(id, "json", meta)
			put(id, "layer.tar.zst", "of some size")
			put(id, "layer.tar.lz4", "of another")
		case 5:
			put(id, "json", content) // a document
			put(id, "layer.tar", content)
		case 6:
			put(id, "VERSION", "2.0")
		case 7:
			put(id, "json", meta)
			put(id, "json-old/layer.tar", "a stranger")
			put(id, "layer.tar", content)
		}
		asked.Documents = append(asked.Documents, id)
		asked.Layers = append(asked.Layers, id)
	}
	put(image.DigestOf([]byte("not asked for")), "json", "x")
	for _, stranger := range []string{"images/" + asked.Layers[0].Hex(), "images/0", "images/0/json", "images/stranger/json", "images/" + strings.Repeat("0", 64)} {
		_ = s.Put(t.Context(), stranger, strings.NewReader("x")) // some are in the way of others
	}

	one := &remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.DiffID]remote.Layer{}, Torn: map[image.DiffID]error{}}
	for i := range asked.Layers {
		f, err := r.Look(t.Context(), remote.Closure{Documents: asked.Documents[i : i+1], Layers: asked.Layers[i : i+1]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for id, v := range f.Documents {
			one.Documents[id] = v
		}
		for id, l := range f.Layers {
			one.Layers[id] = l
		}
		for id, err := range f.Torn {
			one.Torn[id] = err
		}
	}
	if n := s.large.Load(); n != 0 {
		t.Errorf("%d listings of more than one entry for a few", n)
	}
	before := s.all.Load()
	if before != int64(len(asked.Layers)) {
		t.Errorf("%d listings of %d entries that may be documents or layers", before, len(asked.Layers))
	}
	many, err := r.Look(t.Context(), asked, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.all.Load() - before; n != 1+16 {
		t.Errorf("%d listings for many, want a sample and 16 parts", n)
	}
	text := cmp.Transformer("text", func(err error) string { return err.Error() })
	if diff := cmp.Diff(one, many, text); diff != "" {
		t.Errorf("one by one and all at once (-one +all):\n%s", diff)
	}
	if len(many.Layers) != 150 || len(many.Torn) != 250 || len(many.Documents) != 250 {
		t.Errorf("%d layers, %d torn, %d documents", len(many.Layers), len(many.Torn), len(many.Documents))
	}

	// What is known is not read again while it has this version, and else is.
	for what, version := range map[string]func(string) string{
		"the same version":    func(v string) string { return v },
		"another version":     func(string) string { return "another" },
		"no version at all":   func(string) string { return "" },
		"the known is absent": nil,
	} {
		known := map[image.DiffID]remote.Layer{}
		for id, l := range many.Layers {
			if version != nil {
				known[id] = remote.Layer{Digest: id, Size: 1000 + l.Size, Version: version(l.Version)}
			}
		}
		again, err := r.Look(t.Context(), asked, known)
		if err != nil {
			t.Fatal(err)
		}
		for id, l := range many.Layers {
			want := l
			if what == "the same version" && !strings.HasPrefix(l.Object, "images/"+id.Hex()+"/layer.tar.") { // of two files the json tells
				want.Size += 1000
			}
			if diff := cmp.Diff(want, again.Layers[id]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		if diff := cmp.Diff(many.Torn, again.Torn, text); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	lost := errors.New("the network is gone")
	for _, prefix := range []string{"images/00", "images/7"} {
		s.fail = map[string]error{prefix: lost}
		if _, err := r.Look(t.Context(), asked, nil); !errors.Is(err, lost) || !strings.Contains(err.Error(), "the-remote") {
			t.Errorf("when listing %s fails: %v", prefix, err)
		}
	}
	few := remote.Closure{Documents: asked.Documents[:3], Layers: asked.Layers[3:6]}
	for _, id := range []image.Digest{few.Documents[1], few.Layers[1]} {
		s.fail = map[string]error{"images/" + id.Hex() + "/": lost}
		if _, err := r.Look(t.Context(), few, nil); !errors.Is(err, lost) || !strings.Contains(err.Error(), "the-remote") {
			t.Errorf("when listing %s fails: %v", id.Short(), err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.fail = nil
	if _, err := r.Look(ended, asked, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestLookAtAFewOfMany proves that a large remote is not listed for a small part of it.
func TestLookAtAFewOfMany(t *testing.T) {
	s := &lister{Store: mem.New()}
	r := open(t, s, codec.LZ4)
	for i := range 200 { // a 256th of 51,200 keys
		key := fmt.Sprintf("images/00%062x/json", i)
		if err := s.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	var asked remote.Closure
	for i := range 1000 {
		asked.Documents = append(asked.Documents, image.DigestOf([]byte(fmt.Sprint(i))))
	}
	for _, test := range []struct{ ask, listings int64 }{
		{511, 511},
		{600, 1 + 600},
		{1000, 1 + 16},
	} {
		before := s.all.Load()
		if _, err := r.Look(t.Context(), remote.Closure{Documents: asked.Documents[:test.ask]}, nil); err != nil {
			t.Fatal(err)
		}
		if n := s.all.Load() - before; n != test.listings {
			t.Errorf("%d listings for %d entries, want %d", n, test.ask, test.listings)
		}
	}
}
