package cli

import (
	"path/filepath"
	"testing"
)

// TestCanonical proves that one remote has one name for caches, and another remote another.
func TestCanonical(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	groups := [][]string{
		{"images", "./images", "images/", filepath.Join(here, "images"), "file://" + filepath.Join(here, "images")},
		{"./other"},
		{"s3://bucket", "s3://bucket/", "s3://bucket?part-size=16MiB", "s3://bucket?sse=AES256"},
		{"s3://bucket/prefix", "s3://bucket/prefix/?storage-class=STANDARD_IA"},
		{"s3://bucket?endpoint=https://s3.example.com"},
		{"s3://bucket?profile=other"},
		{"ftp://somewhere"},
	}
	seen := map[string]string{}
	for _, group := range groups {
		for _, name := range group {
			if got, want := canonical(name), canonical(group[0]); got != want {
				t.Errorf("%s is %q, and %s is %q", name, got, group[0], want)
			}
		}
		if other, twice := seen[canonical(group[0])]; twice {
			t.Errorf("%s and %s are the same", group[0], other)
		}
		seen[canonical(group[0])] = group[0]
	}
}
