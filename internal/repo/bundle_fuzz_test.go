package repo

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// smallBundle returns a bundle of one image of one layer, with a signature.
func smallBundle(t testing.TB) []byte {
	t.Helper()
	tar := remotetest.FileLayer(t, "f", "content")
	img, ref, key := remotetest.NewImage(t, "small", tar), remotetest.Ref(t, "app:1"), "0123456789abcdef"
	layer := image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}
	var out bytes.Buffer
	b, err := NewBundle(&out, "out.tar", &remote.Bundle{
		Tags: []remote.BundleTag{{Image: ref, ID: img.ID}}, Documents: []image.Digest{img.ID},
		Layers: []remote.BundleLayer{{ID: layer.Digest, Size: layer.Size, Stored: layer.Size}},
	}, map[image.Digest]remote.Layer{layer.Digest: {Digest: layer.Digest, Size: layer.Size}})
	if err == nil {
		_, err = b.PutLayer(t.Context(), layer, bytes.NewReader(tar))
	}
	if err == nil {
		err = b.PutDocument(t.Context(), img.Config)
	}
	if err == nil {
		err = b.(remote.Signatures).PutSignature(t.Context(), ref, img.ID, key, []byte("signed"))
	}
	if err == nil {
		err = b.Tag(t.Context(), ref, img.ID)
	}
	if err == nil {
		err = b.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestSmallBundle makes sure that the seed of the fuzz target is a good one.
func TestSmallBundle(t *testing.T) {
	b, err := OpenBundle(bytes.NewReader(smallBundle(t)), "in.tar")
	if err != nil {
		t.Fatal(err)
	}
	var kinds string
	for {
		item, err := b.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case item.Layer != nil:
			kinds += "l"
		case item.Document != nil:
			kinds += "d"
		case item.Signature != nil:
			kinds += "s"
		case item.Tag != nil:
			kinds += "t"
		}
	}
	if kinds != "ldst" {
		t.Errorf("it has %q", kinds)
	}
}

// FuzzBundle: whatever is read, nothing comes out of it that the list does not
// announce or that is not what its name says, and each failure is a fault.
func FuzzBundle(f *testing.F) {
	whole := smallBundle(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(bytes.Replace(whole, []byte("VERSION"), []byte("../RSION"), 1))
	f.Add([]byte(`{"bundle":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = ReadBundleList(bytes.NewReader(content), "in.tar")
		b, err := OpenBundle(bytes.NewReader(content), "in.tar")
		if err != nil {
			mustBeFault(t, err)
			return
		}
		list := b.Bundle()
		has, documents, tags := list.Has(), map[image.Digest]bool{}, map[image.Reference]image.ID{}
		for _, id := range list.Documents {
			documents[id] = true
		}
		for _, tag := range list.Tags {
			tags[tag.Image] = tag.ID
		}
		for {
			item, err := b.Next(t.Context())
			if err == io.EOF {
				return
			}
			if err != nil {
				mustBeFault(t, err)
				return
			}
			switch {
			case item.Layer != nil:
				if _, known := codecOf(item.Layer.As.File); !has[item.Layer.ID] || !known {
					t.Errorf("layer %s in %q", item.Layer.ID, item.Layer.As.File)
				}
			case item.Document != nil:
				if !documents[image.DigestOf(item.Document)] {
					t.Errorf("document %.80q", item.Document)
				}
			case item.Held != nil:
				if !documents[item.Held.Index] || !documents[item.Held.Manifest] {
					t.Errorf("mark %+v", item.Held)
				}
			case item.Signature != nil:
				if s := item.Signature; tags[s.Reference] != s.Image || s.Reference.Tag == "" || len(s.Content) > remote.MaxSignature {
					t.Errorf("signature %+v", s)
				}
			case item.Tag == nil, item.Tag.ID.IsZero(), tags[item.Tag.Image] != item.Tag.ID:
				t.Errorf("tag %+v", item.Tag)
			}
		}
	})
}

func mustBeFault(t *testing.T, err error) {
	t.Helper()
	var known *fault.Error
	if !errors.As(err, &known) {
		t.Errorf("%v is no fault", err)
	}
}
