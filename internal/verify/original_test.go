package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

// oldWorld is the golden repository of format 1.0, but for the image without its base.
func oldWorld(t *testing.T) *world {
	t.Helper()
	w := &world{store: mem.New()}
	for key, content := range originaltest.Golden() {
		if key != "repositories/baseless/1" && !strings.Contains(key, originaltest.ID("RUN baseless")) {
			put(t, w.store, key, content)
		}
	}
	w.objects = tree(t, w.store)
	return w
}

// problems are the findings of a report: what, where, and of which images.
func problems(r *verify.Report) (all []string) {
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s %s %s", f.Problem, f.Object, f.Images))
	}
	return all
}

// TestOriginals: images of format 1.0 are read to the end, each layer once; nothing
// proves them, and that is told. Nothing of them is taken for unreferenced.
func TestOriginals(t *testing.T) {
	w := oldWorld(t)
	var unreferenced []remote.Entry
	report := w.verify(t, verify.Options{Unreferenced: func(e remote.Entry) { unreferenced = append(unreferenced, e) }})
	if len(report.Findings) > 0 || len(unreferenced) > 0 || report.Unreferenced == nil {
		t.Errorf("findings %q, unreferenced %v", problems(report), unreferenced)
	}
	var unproved []string
	for _, u := range report.Unproved {
		unproved = append(unproved, fmt.Sprint(u.Images))
		if !strings.Contains(u.Why, "nothing proves") {
			t.Errorf("why: %s", u.Why)
		}
	}
	want := []string{"[deep:127]", "[localhost:5000/team/myapp:latest myapp:1]", "[myapp:2]", "[team/deep/nested:V2]"}
	if diff := cmp.Diff(want, unproved); diff != "" {
		t.Errorf("unproved (-want +got):\n%s", diff)
	}
	if report.Images != 4 || report.Layers != 6+127 || report.Documents != 7+127 { // one of seven entries has none
		t.Errorf("%d images, %d documents, %d layers", report.Images, report.Documents, report.Layers)
	}
	read := 0
	for n := 1; n <= 3; n++ {
		read += w.verify(t, verify.Options{Part: verify.Part{Number: n, Of: 3}}).Layers
	}
	if read != report.Layers {
		t.Errorf("in three parts %d layers were read, want %d", read, report.Layers)
	}
	put(t, w.store, fileOf(image.DigestOf([]byte("x")), "VERSION"), []byte("1.0"))
	if report = w.verify(t, verify.Options{}); report.Unreferenced == nil || report.Unreferenced.Entries != 1 {
		t.Errorf("an entry that no tag reaches: %+v", report.Unreferenced)
	}
}

// TestOriginalDamage names each damaged object and the images that need it.
func TestOriginalDamage(t *testing.T) {
	w := oldWorld(t)
	at := func(name, file string) string { return "images/" + originaltest.ID(name) + "/" + file }
	const two, both, three = "[myapp:2]", "[localhost:5000/team/myapp:latest myapp:1 myapp:2]", "[localhost:5000/team/myapp:latest myapp:1 myapp:2 team/deep/nested:V2]"
	cut := func(key string, n int) func() {
		return func() { put(t, w.store, key, w.objects[key][:n]) }
	}
	for _, c := range []struct {
		what   string
		damage func()
		want   []string
	}{
		{"a layer is gone", func() { remove(t, w.store, at("ADD base", "layer.tar.lz4")) }, []string{"missing " + at("ADD base", "layer.tar") + " " + three}},
		{"a truncated layer", cut(at("ADD base", "layer.tar.lz4"), 100), []string{"truncated " + at("ADD base", "layer.tar.lz4") + " " + three}},
		{"one that is stored as it is, cut between files", cut(at("RUN two", "layer.tar"), 512), []string{"truncated " + at("RUN two", "layer.tar") + " " + two}},
		{"a flipped bit", func() {
			key := at("CMD base", "layer.tar.lz4")
			b := slices.Clone(w.objects[key])
			b[len(b)-2] ^= 1 // of the checksum
			put(t, w.store, key, b)
		}, []string{"damaged " + at("CMD base", "layer.tar.lz4") + " " + both}},
		{"no tar", func() { put(t, w.store, at("RUN two", "layer.tar"), []byte(strings.Repeat("no tar ", 100))) }, []string{"damaged " + at("RUN two", "layer.tar") + " " + two}},
		{"a base that is gone", func() {
			for _, file := range []string{"json", "VERSION", "layer.tar.lz4"} {
				remove(t, w.store, at("ADD base", file))
			}
		}, []string{"missing " + at("ADD base", "json") + " " + three}},
		{"a json that is none", func() { put(t, w.store, at("CMD base", "json"), []byte("{")) }, []string{"damaged " + at("CMD base", "json") + " " + both}},
		{"two things at once", func() {
			put(t, w.store, at("CMD base", "json"), []byte("{"))
			remove(t, w.store, at("RUN two", "layer.tar"))
		}, []string{"damaged " + at("CMD base", "json") + " " + both, "missing " + at("RUN two", "layer.tar") + " " + two}},
	} {
		c.damage()
		report := w.verify(t, verify.Options{})
		slices.Sort(c.want)
		got := problems(report)
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		for _, u := range report.Unproved {
			if slices.Contains(u.Images, image.Reference{Repository: "myapp", Tag: "2"}) {
				t.Errorf("%s: said to be whole: %s", c.what, u.Images)
			}
		}
		w.restore(t)
	}
	if report := w.verify(t, verify.Options{Images: []image.Reference{{Repository: "myapp", Tag: "2"}}}); report.Layers != 4 || len(report.Unproved) != 1 {
		t.Errorf("one image: %d layers, %v", report.Layers, report.Unproved)
	}
}
