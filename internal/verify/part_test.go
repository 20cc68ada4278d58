package verify_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/verify"
)

// TestParts proves that parts are disjoint and complete, and of about one size.
func TestParts(t *testing.T) {
	for _, of := range []int{1, 2, 7, 1000} {
		counts := make([]int, of)
		for range 20_000 {
			var d image.Digest
			for i := range d {
				d[i] = byte(rand.Uint32())
			}
			in := 0
			for n := range of {
				if (verify.Part{Number: n + 1, Of: of}).Has(d) {
					counts[n]++
					in++
				}
			}
			if in != 1 {
				t.Fatalf("%s is in %d of %d parts", d, in, of)
			}
		}
		if of == 7 && slices.Min(counts) < 20_000/7*9/10 {
			t.Errorf("parts of %v", counts)
		}
	}
	for d, first := range map[image.Digest]bool{{}: true, {255, 255, 255, 255, 255, 255, 255, 255}: false} {
		if (verify.Part{Number: 1, Of: 7}).Has(d) != first || (verify.Part{Number: 7, Of: 7}).Has(d) == first || !(verify.Part{}).Has(d) {
			t.Errorf("%s is in the wrong part", d)
		}
	}
	for _, s := range []string{"", "2", "/", "0/7", "8/7", "-1/7", "1/0", "1/1001", "a/b", "1/7/2", "2/7 "} {
		if p, err := verify.ParsePart(s); err == nil {
			t.Errorf("%q is %s", s, p)
		}
	}
	if p, err := verify.ParsePart("2/7"); err != nil || p.String() != "2/7" {
		t.Errorf("2/7 is %s, %v", p, err)
	}

	w := newWorld(t)
	damaged := fileOf(w.blobs[0].Digest, "blob")
	put(t, w.store, damaged, []byte("x"))
	remove(t, w.store, fileOf(w.one.DiffIDs()[0], "layer.tar.lz4"))
	layers, findings := 0, 0
	for n := range 3 {
		report := w.verify(t, verify.Options{Part: verify.Part{Number: n + 1, Of: 3}})
		layers += report.Layers
		for _, f := range report.Findings {
			if f.Object == damaged {
				findings++
			}
		}
		if !slices.ContainsFunc(report.Findings, func(f verify.Finding) bool { return f.Problem == verify.Missing }) {
			t.Errorf("part %d does not tell what is missing", n+1)
		}
	}
	if layers != 5 || findings != 1 {
		t.Errorf("all parts together read %d layers and found %d times what is damaged", layers, findings)
	}
}
