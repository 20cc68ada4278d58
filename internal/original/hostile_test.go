package original_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// chain is entries of which each is the next one's parent; it returns the top.
func chain(r originaltest.Repository, n int) (top string) {
	for i := range n {
		top = r.Add(top, originaltest.Step{Name: fmt.Sprint("step ", i), Layer: originaltest.Empty()})
	}
	return top
}

// TestHostile tells for each thing that is wrong with an image what is said about
// it: which object it is, and what.
func TestHostile(t *testing.T) {
	one, base := originaltest.ID("one"), originaltest.ID("base")
	entry := func(id, file string) string { return "images/" + id + "/" + file }
	for _, c := range []struct {
		what   string
		damage func(r originaltest.Repository)
		object string
		text   string
	}{
		{"no base", func(r originaltest.Repository) {
			for _, f := range []string{"VERSION", "json", "layer.tar.lz4"} {
				delete(r, entry(base, f))
			}
		}, entry(base, "json"), "the image needs entry " + base + ", which is not here"},
		{"no json", func(r originaltest.Repository) { delete(r, entry(one, "json")) }, entry(one, "json"), "is missing"},
		{"no json of the base", func(r originaltest.Repository) { delete(r, entry(base, "json")) }, entry(base, "json"), "the image needs entry " + base},
		{"no layer", func(r originaltest.Repository) { delete(r, entry(base, "layer.tar.lz4")) }, entry(base, "layer.tar"), "is missing, and so is layer.tar.lz4"},
		{"no VERSION", func(r originaltest.Repository) { delete(r, entry(base, "VERSION")) }, entry(base, "VERSION"), "does not say"},
		{"another VERSION", func(r originaltest.Repository) { r[entry(base, "VERSION")] = []byte("2.0") }, entry(base, "VERSION"), "does not say"},
		{"no JSON", func(r originaltest.Repository) { r[entry(base, "json")] = []byte("{") }, entry(base, "json"), "damaged"},
		{"two of them", func(r originaltest.Repository) { r[entry(base, "json")] = append(r[entry(base, "json")], "{}"...) }, entry(base, "json"), "something behind"},
		{"a huge one", func(r originaltest.Repository) {
			r[entry(base, "json")] = append(bytes.TrimSuffix(r[entry(base, "json")], []byte("}")), `,"x":"`+strings.Repeat("x", image.MaxDocument)+`"}`...)
		}, entry(base, "json"), "too large"},
		{"another id", func(r originaltest.Repository) {
			r[entry(base, "json")] = bytes.Replace(r[entry(base, "json")], []byte(base), []byte(one), 1)
		}, entry(base, "json"), "not that of the entry"},
		{"no id", func(r originaltest.Repository) { r.Add("", originaltest.Step{Name: "base", JSON: `{}`}) }, entry(base, "json"), "not that of the entry"},
		{"two ids", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", JSON: `{"id":"` + base + `","ID":"` + base + `"}`})
		}, entry(base, "json"), `"id" occurs twice`},
		{"two parents", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", JSON: `{"id":"` + base + `","parent":"","parent":"` + one + `"}`})
		}, entry(base, "json"), `"parent" occurs twice`},
		{"a parent that is no id", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", JSON: `{"id":"` + base + `","parent":"../../x"}`})
		}, entry(base, "json"), "its parent"},
		{"a loop", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", JSON: `{"id":"` + base + `","parent":"` + one + `"}`})
		}, entry(base, "json"), "is above it too"},
		{"its own parent", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", JSON: `{"id":"` + base + `","parent":"` + base + `"}`})
		}, entry(base, "json"), "is above it too"},
		{"an endless chain", func(r originaltest.Repository) { r.Tag("app/1", chain(r, 1001)) }, entry(originaltest.ID("step 1"), "json"), "more than 1000 entries"},
		{"much JSON", func(r originaltest.Repository) {
			top := ""
			for i := range 10 {
				top = r.Add(top, originaltest.Step{Name: fmt.Sprint("big ", i), Layer: originaltest.Empty(), Members: map[string]any{"x": strings.Repeat("x", image.MaxDocument-9000)}})
			}
			r.Tag("app/1", top)
		}, entry(originaltest.ID("big 1"), "json"), "more than 67108864 bytes"},
		{"a mixture", func(r originaltest.Repository) {
			r.Tag("app/1", r.Add(base, originaltest.Step{Name: "mixture", Layer: originaltest.Empty(), Members: map[string]any{"docker_version": "1.9.0", "layers": []any{}}}))
		}, entry(originaltest.ID("mixture"), "json"), "mixture of a config and a manifest"},
		{"a time that is none", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", Layer: originaltest.Empty(), Members: map[string]any{"created": "long ago"}})
		}, entry(base, "json"), "long ago"},
		{"a truncated layer", func(r originaltest.Repository) {
			r[entry(base, "layer.tar.lz4")] = r[entry(base, "layer.tar.lz4")][:30]
		}, entry(base, "layer.tar.lz4"), "unexpected EOF"},
		{"a layer that is no tar", func(r originaltest.Repository) {
			r.Add("", originaltest.Step{Name: "base", Layer: bytes.Repeat([]byte("no tar "), 1000)})
		}, entry(base, "layer.tar.lz4"), "holds no whole tar"},
		{"a layer with something behind it", func(r originaltest.Repository) {
			r[entry(base, "layer.tar.lz4")] = append(r[entry(base, "layer.tar.lz4")], "more"...)
		}, entry(base, "layer.tar.lz4"), "damaged"},
		{"no bytes", func(r originaltest.Repository) { r[entry(base, "layer.tar.lz4")] = nil }, entry(base, "layer.tar.lz4"), "damaged"},
	} {
		if c.what == "much JSON" && testing.Short() {
			continue // 80 MB of it
		}
		t.Run(c.what, func(t *testing.T) {
			r := small()
			c.damage(r)
			s := mem.New()
			fill(t, s, r)
			id, err := sourceOn(open(t, s), original.Options{}).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
			var where *remote.Damage
			if !fault.Is(err, fault.Damaged) || !errors.As(err, &where) {
				t.Fatalf("%s, %v, want damage", id.Short(), err)
			}
			if where.Object != c.object || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "app:1") {
				t.Errorf("%s: %v; want %s: %s", where.Object, err, c.object, c.text)
			}
		})
	}
	// What is as deep as it may be is read.
	r := originaltest.Repository{}
	r.Tag("app/1", chain(r, 1000))
	s := mem.New()
	fill(t, s, r)
	if _, err := sourceOn(open(t, s), original.Options{}).Resolve(t.Context(), remotetest.Ref(t, "app:1")); err != nil {
		t.Error(err)
	}
}

// TestVersionLies: what is named by its digest is a document, whatever VERSION says;
// and what is not, no document may name.
func TestVersionLies(t *testing.T) {
	s := mem.New()
	fill(t, s, small())
	r := open(t, s)
	img := remotetest.NewImage(t, "today", remotetest.FileLayer(t, "a", "a"))
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "today:1"), img); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "images/"+img.ID.Hex()+"/VERSION", strings.NewReader("1.0")); err != nil {
		t.Fatal(err)
	}
	source := sourceOn(r, original.Options{Warn: func(line string) { t.Errorf("a warning of what is proved: %s", line) }})
	if got, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, "today:1")); err != nil || img.Diff(got) != "" {
		t.Errorf("a config that says it is of format 1.0: %v, %s", err, img.Diff(got))
	}

	old, err := image.ParseHex(originaltest.ID("one"))
	if err != nil {
		t.Fatal(err)
	}
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`, old)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":1},"layers":[]}`, old)
	config := fmt.Appendf(nil, `{"rootfs":{"type":"layers","diff_ids":[%q]}}`, old)
	for name, doc := range map[string][]byte{"index": index, "manifest": manifest, "config": config} {
		id := image.DigestOf(doc)
		if err := r.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		for key, content := range map[string]string{"repositories/" + name + "/1": id.Hex(), "images/" + id.Hex() + "/held-" + old.Hex(): ""} {
			if err := s.Put(t.Context(), key, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, name+":1"))
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "images/"+old.Hex()) {
			t.Errorf("%s of an entry of format 1.0: %v", name, err)
		}
	}
	_, err = source.Resolve(t.Context(), remotetest.Ref(t, "app@sha256:"+old.Hex()))
	if !fault.Is(err, fault.Damaged) || !errors.Is(err, remote.ErrOriginal) {
		t.Errorf("by its id as a digest: %v", err)
	}
}

// layers is a remote of one layer.
type layers struct{ open func() io.Reader }

func (layers) Original(context.Context, image.Digest) (remote.Original, error) {
	return remote.Original{}, errors.ErrUnsupported
}

func (l layers) OpenOriginal(context.Context, remote.Layer) (io.ReadCloser, error) {
	return io.NopCloser(l.open()), nil
}

// TestMeasureTruncated cuts a tar at every length: only the whole one has a digest.
func TestMeasureTruncated(t *testing.T) {
	whole := originaltest.Tar("etc/", "etc/a="+strings.Repeat("\x00", 1024), "etc/.wh.b", "etc/c="+strings.Repeat("c", 700))
	for n := range len(whole) + 1 {
		id, size, err := original.Measure(t.Context(), layers{func() io.Reader { return bytes.NewReader(whole[:n]) }}, remote.Layer{Object: "the/object"})
		switch {
		case n <= len(whole)-512: // one block of zeros is an end
			if !errors.Is(err, io.ErrUnexpectedEOF) || !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "the/object") {
				if n != len(whole)-512 || err != nil {
					t.Errorf("of %d bytes of %d: %v", n, len(whole), err)
				}
			}
		case n == len(whole):
			if err != nil || id != image.DigestOf(whole) || size != int64(n) {
				t.Errorf("the whole: %s, %d, %v", id.Short(), size, err)
			}
		}
	}
	// What follows the end is part of the bytes, and of no file.
	padded := append(bytes.Clone(whole), make([]byte, 9000)...)
	if id, _, err := original.Measure(t.Context(), layers{func() io.Reader { return bytes.NewReader(padded) }}, remote.Layer{}); err != nil || id != image.DigestOf(padded) {
		t.Errorf("padded: %s, %v", id.Short(), err)
	}
}

// TestMeasureBombs: neither a layer that decodes to a thousand times its size nor a
// file of nothing but holes takes memory, or time beyond its bytes.
func TestMeasureBombs(t *testing.T) {
	const size = 256 << 20
	var packed bytes.Buffer
	w := lz4.NewWriter(&packed)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: "bomb", Size: size, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	header := b.Bytes()[:512]
	if _, err := w.Write(header); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size/len(zeros) + 1 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := mem.New()
	r := originaltest.Repository{}
	id := r.Add("", originaltest.Step{Name: "bomb", Layer: originaltest.Empty()})
	r["images/"+id+"/layer.tar.lz4"] = packed.Bytes()
	r.Tag("bomb/1", id)
	fill(t, s, r)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := sourceOn(open(t, s), original.Options{}).Resolve(t.Context(), remotetest.Ref(t, "bomb:1")); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/2 {
		t.Errorf("%d bytes packed, %d unpacked: %d bytes of memory were asked for", packed.Len(), size, used)
	}

	hole := bytes.Clone(header)
	copy(hole[156:], "S")                           // an old GNU sparse file
	copy(hole[257:], "ustar  \x00")                 // in GNU's format
	copy(hole[386:], "00000000000\x0000000000000 ") // of which nothing is there
	copy(hole[483:], "\x80\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00")
	copy(hole[124:], "00000000000\x00")
	copy(hole[148:], "        ")
	sum := 0
	for _, c := range hole {
		sum += int(c)
	}
	copy(hole[148:], fmt.Sprintf("%06o\x00 ", sum))
	hole = append(hole, make([]byte, 1024)...)
	if _, n, err := original.Measure(t.Context(), layers{func() io.Reader { return bytes.NewReader(hole) }}, remote.Layer{}); err != nil || n != int64(len(hole)) {
		t.Errorf("a file of holes: %d, %v", n, err)
	}
}

// FuzzImage: whatever a json says, what comes of it is a config or an error.
func FuzzImage(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"config":{"Cmd":"x","ExposedPorts":{"80/tcp":{}}},"container_config":null,"created":"2013-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"docker_version":"1.9.0","rootfs":1,"history":2,"<":"\u2028"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r := originaltest.Repository{}
		id := r.Add("", originaltest.Step{Name: "fuzz", Layer: originaltest.Empty()})
		doc = bytes.Replace(doc, []byte("{"), []byte(`{"id":"`+id+`",`), 1)
		r["images/"+id+"/json"] = doc
		r.Tag("fuzz/1", id)
		s := mem.New()
		fill(t, s, r)
		source := sourceOn(open(t, s), original.Options{})
		img, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, "fuzz:1"))
		if err != nil {
			if !fault.Is(err, fault.Damaged) {
				t.Errorf("%q: %v", doc, err)
			}
			return
		}
		config, err := image.ParseConfig(img.Config)
		if err != nil || len(config.DiffIDs) != 1 || image.DigestOf(img.Config) != img.ID {
			t.Errorf("%q becomes %q: %v", doc, img.Config, err)
		}
	})
}
