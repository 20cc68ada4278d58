package catalog_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// spaces are lines "what own shared total".
func spaces(u *catalog.Usage) (lines []string) {
	line := func(what string, s catalog.Space) {
		lines = append(lines, fmt.Sprintf("%s %d %d %d", what, s.Own, s.Shared, s.Total))
	}
	for _, r := range u.Repositories {
		line(r.Repository, r.Space)
		for _, t := range r.Tags {
			line(r.Repository+":"+t.Tag, t.Space)
		}
	}
	line("all", u.Space)
	return lines
}

func TestUsage(t *testing.T) {
	s := mem.New()
	r := open(t, s)
	usage := func(dir string) *catalog.Usage {
		t.Helper()
		u, err := catalog.Cached(r, dir, remoteName, nil).Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := usage(""); u.Repositories == nil || u.Tags != 0 || u.Total != 0 {
		t.Errorf("an empty remote: %+v", u)
	}
	// Layers of these sizes, so that each sum is of one set of them alone.
	base, libs, one, two, other := layer(t, "base", 10000), layer(t, "libs", 2000), layer(t, "one", 300), layer(t, "two", 40), layer(t, "other", 5)
	push(t, r, "app:1", remotetest.NewImage(t, "1", base, libs, one, base))
	push(t, r, "app:2", remotetest.NewImage(t, "2", base, libs, two))
	push(t, r, "app:again", remotetest.NewImage(t, "2", base, libs, two))
	push(t, r, "app/sub:1", remotetest.NewImage(t, "sub", base))
	push(t, r, "other:1", remotetest.NewImage(t, "other", other))
	push(t, r, "none:1", remotetest.NewImage(t, "none"))
	want := []string{
		"app 2340 10000 12340", // libs, one and two are its own, whichever of its tags share them
		"app:1 300 12000 12300",
		"app:2 0 12040 12040",
		"app:again 0 12040 12040",
		"app/sub 0 10000 10000",
		"app/sub:1 0 10000 10000",
		"none 0 0 0",
		"none:1 0 0 0",
		"other 5 0 5",
		"other:1 5 0 5",
		"all 305 12040 12345",
	}
	dir := t.TempDir()
	for _, how := range []string{"", dir, dir} { // without a cache, filling it, and by it
		u := usage(how)
		if diff := cmp.Diff(want, spaces(u)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if u.Tags != 6 || u.Damaged != 0 {
			t.Errorf("%d tags, %d damaged", u.Tags, u.Damaged)
		}
	}

	// What is damaged is a row of its own, and counts nowhere.
	put(t, s, "repositories/app/garbage", "not an ID")
	if err := s.Delete(t.Context(), "images/"+image.DigestOf(one).Hex()+"/layer.tar"); err != nil {
		t.Fatal(err)
	}
	u := usage(dir)
	want = []string{
		"app 2040 10000 12040", "app:1 0 0 0", "app:2 0 12040 12040", "app:again 0 12040 12040", "app:garbage 0 0 0",
		"app/sub 0 10000 10000", "app/sub:1 0 10000 10000", "none 0 0 0", "none:1 0 0 0", "other 5 0 5", "other:1 5 0 5",
		"all 5 12040 12045",
	}
	if diff := cmp.Diff(want, spaces(u)); diff != "" {
		t.Errorf("with damage (-want +got):\n%s", diff)
	}
	for _, tag := range u.Repositories[0].Tags {
		if damaged := tag.Tag == "1" || tag.Tag == "garbage"; damaged != (tag.Damage != "") {
			t.Errorf("app:%s: damage %q", tag.Tag, tag.Damage)
		}
	}
	if u.Tags != 7 || u.Damaged != 2 {
		t.Errorf("%d tags, %d damaged", u.Tags, u.Damaged)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if u, err := catalog.New(r).Usage(ended); !errors.Is(err, context.Canceled) || u != nil {
		t.Errorf("cancelled: %v, %v", u, err)
	}
}

// TestUsageOfAliases: a layer that one image knows compressed, and another by its
// diffID, is stored once, and counts once.
func TestUsageOfAliases(t *testing.T) {
	r := open(t, mem.New())
	img := remotetest.NewImage(t, "classic", remotetest.FileLayer(t, "base", strings.Repeat("base ", 1000)))
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(img.Layers[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	size := int64(packed.Len())
	blob := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(packed.Bytes()), Size: size}
	if _, err := r.PutLayer(t.Context(), blob, bytes.NewReader(packed.Bytes())); err != nil {
		t.Fatal(err)
	}
	manifest := image.StackManifest(img.Config, []image.Descriptor{blob})
	for _, doc := range [][]byte{img.Config, manifest} {
		if err := r.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	for ref, id := range map[string]image.ID{"packed:1": image.DigestOf(manifest), "classic:1": img.ID} {
		if err := r.Tag(t.Context(), remotetest.Ref(t, ref), id); err != nil {
			t.Fatal(err)
		}
	}
	u, err := catalog.New(r).Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, what := range []string{"classic", "classic:1", "packed", "packed:1", "all"} {
		want = append(want, fmt.Sprintf("%s 0 %d %d", what, size, size))
	}
	if diff := cmp.Diff(want, spaces(u)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
