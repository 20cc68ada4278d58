package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// FuzzTagContent: what a tag or pointer may contain is 64 lower-case hex
// digits and at most one newline, and it is read as it was written.
func FuzzTagContent(f *testing.F) {
	id := strings.Repeat("0a", 32)
	for _, seed := range []string{id, id + "\n", id + "\n\n", id + "\r\n", " " + id, strings.ToUpper(id), id[1:], id + "0", "sha256:" + id, "", "\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := parseID(content)
		digits := bytes.TrimSuffix(content, []byte("\n"))
		valid := len(digits) == 64 && !bytes.ContainsFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) })
		if valid != (err == nil) {
			t.Fatalf("%q: %v", content, err)
		}
		if err == nil && got.Hex() != string(digits) {
			t.Errorf("%q is read as %s", content, got.Hex())
		}
	})
}

// FuzzTagKey: parseTagKey is the inverse of tagKey, and no key has two readings.
func FuzzTagKey(f *testing.F) {
	for _, seed := range []string{
		"myapp:1", "team/app:V1", "localhost:5000/app:1", "[::1]:5000/app:1", "docker.io/library/app:1", "app",
		"repositories/myapp/1", "repositories/localhost%3A5000/app/1", "repositories/a%3A1/2", "repositories/localhost:5000/app/1",
		"repositories/docker.io/library/app/1", "repositories/app/", "repositories//1", "repositories/app/.1", "repositories/a%2Fb/1",
		"repositories/app/1@sha256", "repositories/App/1", "images/x/1", "repositories/app%253A1/x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ref, ok := parseTagKey(s); ok {
			if key := tagKey(ref); key != s {
				t.Errorf("the key %q is read as %s, whose key is %q", s, ref, key)
			}
			if !ref.Digest.IsZero() || ref.Tag == "" {
				t.Errorf("the key %q is read as %+v", s, ref)
			}
			if err := storage.ValidKey(s); err != nil {
				t.Errorf("a tag's key: %v", err)
			}
		}
		ref, err := image.ParseReference(s)
		if err != nil || !ref.Digest.IsZero() {
			return
		}
		key := tagKey(ref)
		if err := storage.ValidKey(key); err != nil {
			t.Errorf("the key of %s: %v", ref, err)
		}
		if back, ok := parseTagKey(key); !ok || back != ref {
			t.Errorf("%s has the key %q, which is read as %s, %t", ref, key, back, ok)
		}
	})
}

// FuzzMetadata: whatever the json of an entry is, it is refused as torn, or
// gives a layer that lies in that entry and is safe to open.
func FuzzMetadata(f *testing.F) {
	id := image.DigestOf([]byte("layer"))
	for _, seed := range []string{
		fmt.Sprintf(`{"diffID":%q,"size":5,"file":"layer.tar","storedSize":5}`+"\n", id),
		fmt.Sprintf(`{"diffID":%q,"size":5,"file":"layer.tar.zst","storedSize":9}`, id),
		fmt.Sprintf(`{"diffID":%q,"size":-1}`, id),
		fmt.Sprintf(`{"diffID":%q,"size":99999999999999999999}`, id),
		fmt.Sprintf(`{"diffID":%q,"file":"../../VERSION"}`, id),
		fmt.Sprintf(`{"DIFFID":%q,"diffID":"sha256:"}`, id),
		fmt.Sprintf(`{"diffID":%q,"size":5,"blob":%q}`, id, id),
		"layer", "", "null", "{}", "[", strings.Repeat("[", 20000), `{"rootfs":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		ctx := context.Background()
		s := mem.New()
		r, err := Open(ctx, s, Options{Name: "the-remote"})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []struct {
			name    string
			content []byte
		}{{"layer.tar", []byte("layer")}, {"layer.tar.lz4", nil}, {entryJSON, content}} {
			if err := s.Put(ctx, entryKey(id, o.name), bytes.NewReader(o.content)); err != nil {
				t.Fatal(err)
			}
		}
		var torn *tornError
		in, err := r.files(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.layer(ctx, id, in, remote.Layer{})
		if err != nil {
			if !errors.As(err, &torn) {
				t.Fatalf("%q: %v", content, err)
			}
			return
		}
		if e.Digest != id || e.Size < 0 || e.Object != entryKey(id, e.file) || !slices.Contains([]string{"layer.tar", "layer.tar.lz4"}, e.file) {
			t.Errorf("%q gives %+v", content, e)
		}
		if e.fits && e.Stored != map[string]int64{"layer.tar": 5, "layer.tar.lz4": 0}[e.file] {
			t.Errorf("%q gives a size that it cannot know: %+v", content, e)
		}
		doc, err := r.document(ctx, id)
		if err == nil && (image.DigestOf(doc) != id || string(content) != "layer") || err != nil && !errors.As(err, &torn) {
			t.Errorf("%q is the document %q, %v", content, doc, err)
		}
	})
}

// FuzzSignatureKey: parseSignature is the inverse of signatureKey, and no key is
// of the signatures of two tags.
func FuzzSignatureKey(f *testing.F) {
	id := image.DigestOf([]byte("image"))
	const signer = "0123456789abcdef"
	for _, seed := range [][2]string{
		{"myapp:1", "signatures/myapp/1@" + id.Hex() + "." + signer},
		{"localhost:5000/team/app:V1", "signatures/localhost%3A5000/team/app/V1@" + id.Hex() + "." + signer},
		{"a/b:c", "signatures/a/b@" + id.Hex() + "." + signer},
		{"myapp:1", "signatures/myapp/1@" + id.Hex() + ".0123456789ABCDEF"},
		{"myapp:1", "signatures/myapp/1@" + id.Hex()[1:] + ".." + signer},
		{"myapp:1", "repositories/myapp/1"},
		{"app", "signatures/app/latest@"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, key string) {
		ref, err := image.ParseReference(name)
		if err != nil || !ref.Digest.IsZero() {
			return
		}
		own := signatureKey(ref, id, signer)
		if err := storage.ValidKey(own); err != nil {
			t.Errorf("the key of a signature of %s: %v", ref, err)
		}
		if s, ok := parseSignature(ref, own); !ok || s.Image != id || s.Key != signer {
			t.Errorf("%q is read as %+v, %t", own, s, ok)
		}
		if tag, ok := parseTagKey(own); ok {
			t.Errorf("%q is a key of the tag %s, too", own, tag)
		}
		if s, ok := parseSignature(ref, key); ok && signatureKey(ref, s.Image, s.Key) != key {
			t.Errorf("%q is read as %+v of %s, whose key is %q", key, s, ref, signatureKey(ref, s.Image, s.Key))
		}
	})
}
