package names_test

import (
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
)

// FuzzParsePattern: a pattern reads back as what it was, a name stands for itself
// alone, and no pattern stands for a tag when it does not say which.
func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"app", "app:1", "team/*:old-*", "localhost:5000/*:*", "a[:1", `app:\*`, "*:", "[::1]:5000/app:1", "a:b:c*"} {
		f.Add(s, "team/app:old-1")
	}
	f.Fuzz(func(t *testing.T, s, name string) {
		p, err := names.ParsePattern(s)
		if err != nil {
			return
		}
		again, err := names.ParsePattern(p.String())
		if err != nil || again != p {
			t.Fatalf("%q reads as %v, and that as %v, %v", s, p, again, err)
		}
		ref, err := image.ParseReference(name)
		if err != nil || !ref.Digest.IsZero() {
			return
		}
		if p.Plain() && p.Match(ref) != (ref.String() == p.String()) {
			t.Fatalf("%q matches %s: %t", s, ref, p.Match(ref))
		}
	})
}
