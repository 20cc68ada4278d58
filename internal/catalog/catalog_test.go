package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, s storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func push(t *testing.T, r remote.Target, ref string, img remotetest.Image) {
	t.Helper()
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, ref), img); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s storage.Store, key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// Layers of these sizes, so that sums tell which ones were counted.
func layer(t *testing.T, name string, size int) []byte {
	t.Helper()
	return remotetest.Noise(name, size)
}

func names(rows []catalog.Image) []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.Reference.String())
	}
	return names
}

func TestList(t *testing.T) {
	r := open(t, mem.New())
	c := catalog.New(r)
	if rows, err := c.List(t.Context(), ""); err != nil || len(rows) != 0 {
		t.Fatalf("an empty remote: %v, %v", rows, err)
	}
	a, b := layer(t, "a", 1000), layer(t, "b", 200)
	one, two := remotetest.NewImage(t, "one", a, b, a), remotetest.NewImage(t, "two", b)
	for _, ref := range []string{"b:1", "app:10", "app:9", "app-x:1", "app/x:1", "localhost:5000/app:1", "app:B", "app:a"} {
		push(t, r, ref, one)
	}
	push(t, r, "app:9", two)
	rows, err := c.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"app:10", "app:9", "app:B", "app:a", "app-x:1", "app/x:1", "b:1", "localhost:5000/app:1"}
	if diff := cmp.Diff(want, names(rows)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, row := range rows {
		size, id := int64(1200), one.ID
		if row.Reference.String() == "app:9" {
			size, id = 200, two.ID
		}
		if row.ID != id || row.Size != size || row.Stored != size || row.Damage != "" || row.Platform != "linux/amd64" || row.Created.Year() != 2026 {
			t.Errorf("%s: %+v, want %s of %d bytes", row.Reference, row, id.Short(), size)
		}
	}
	rows, err = c.List(t.Context(), "app")
	if diff := cmp.Diff([]string{"app:10", "app:9", "app:B", "app:a"}, names(rows)); err != nil || diff != "" {
		t.Errorf("rows of app: %v (-want +got):\n%s", err, diff)
	}
	if rows, err := c.List(t.Context(), "nothing"); err != nil || len(rows) != 0 {
		t.Errorf("no such repository: %v, %v", rows, err)
	}
}

func TestListDamaged(t *testing.T) {
	s := mem.New()
	r := open(t, s)
	whole := remotetest.NewImage(t, "whole", layer(t, "a", 10))
	push(t, r, "a:whole", whole)
	torn := remotetest.NewImage(t, "torn", layer(t, "b", 10))
	push(t, r, "b:torn", torn)
	entry := "images/" + torn.DiffIDs()[0].Hex()
	if err := s.Delete(t.Context(), entry+"/layer.tar"); err != nil {
		t.Fatal(err)
	}
	nothing := image.DigestOf([]byte("nothing")).Hex()
	index := `{"manifests":[{"digest":"sha256:` + nothing + `","size":7}]}`
	indexID := image.DigestOf([]byte(index)).Hex()
	put(t, s, "repositories/c/nothing", nothing)
	put(t, s, "repositories/d/garbage", "garbage")
	put(t, s, "repositories/e/index", indexID)
	put(t, s, "images/"+indexID+"/json", index)
	empty := `{"manifests":[]}` // which lacks nothing
	put(t, s, "repositories/g/empty", image.DigestOf([]byte(empty)).Hex())
	put(t, s, "images/"+image.DigestOf([]byte(empty)).Hex()+"/json", empty)
	original := strings.Repeat("1", 64)
	put(t, s, "repositories/f/original", original)
	put(t, s, "images/"+original+"/json", `{"id":"`+original+`","parent":"`+nothing+`"}`)
	put(t, s, "images/"+original+"/VERSION", "1.0")

	rows, err := catalog.New(r).List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for ref, damage := range map[string]string{
		"a:whole":    "",
		"b:torn":     entry,
		"c:nothing":  nothing,
		"d:garbage":  "repositories/d/garbage",
		"e:index":    "none of its platforms",
		"f:original": "the image needs entry " + nothing,
		"g:empty":    "",
	} {
		i := slices.IndexFunc(rows, func(r catalog.Image) bool { return r.Reference.String() == ref })
		if i < 0 {
			t.Errorf("%s is not listed", ref)
			continue
		}
		if row := rows[i]; (damage == "") != (row.Damage == "") || !strings.Contains(row.Damage, damage) {
			t.Errorf("%s: damage %q, want %q in it", ref, row.Damage, damage)
		}
	}
	for ref, kind := range map[string]fault.Kind{"b:torn": fault.Damaged, "c:nothing": fault.Damaged, "d:garbage": fault.Damaged, "x:1": fault.NotFound} {
		if _, err := catalog.New(r).Inspect(t.Context(), remotetest.Ref(t, ref)); fault.KindOf(err) != kind {
			t.Errorf("inspect %s: %v, want %s", ref, err, kind)
		}
	}
	// Damage of others does not hide what is whole.
	if d, err := catalog.New(r).Inspect(t.Context(), remotetest.Ref(t, "a:whole")); err != nil || d.ID != whole.ID {
		t.Errorf("inspect a:whole: %v, %v", d, err)
	}
}

func TestInspect(t *testing.T) {
	r := open(t, mem.New())
	a, b := layer(t, "a", 1000), layer(t, "b", 200)
	one, two := remotetest.NewImage(t, "one", a, b, a), remotetest.NewImage(t, "two", b)
	push(t, r, "one:1", one)
	push(t, r, "one:2", one)
	push(t, r, "two:1", two)
	push(t, r, "three:1", remotetest.NewImage(t, "three"))
	c := catalog.New(r)
	d, err := c.Inspect(t.Context(), remotetest.Ref(t, "one:1"))
	if err != nil {
		t.Fatal(err)
	}
	shared := func(refs ...string) []image.Reference {
		list := []image.Reference{}
		for _, ref := range refs {
			list = append(list, remotetest.Ref(t, ref))
		}
		return list
	}
	var got []catalog.Layer
	for _, l := range d.Layers {
		l.Object, l.Source, l.Version = "", "", ""
		got = append(got, l)
	}
	la := catalog.Layer{Layer: remote.Layer{Digest: image.DigestOf(a), Size: 1000, Stored: 1000}, Shared: shared("one:2")}
	lb := catalog.Layer{Layer: remote.Layer{Digest: image.DigestOf(b), Size: 200, Stored: 200}, Shared: shared("one:2", "two:1")}
	if diff := cmp.Diff([]catalog.Layer{la, lb, la}, got); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if d.ID != one.ID || d.Size != 1200 || d.Config.User != "one" {
		t.Errorf("details: %+v", d.Image)
	}
	if d, err := c.Inspect(t.Context(), remotetest.Ref(t, "three:1")); err != nil || d.Layers == nil || len(d.Layers) != 0 {
		t.Errorf("an image without layers: %+v, %v", d, err)
	}
	if d, err := c.Inspect(t.Context(), remotetest.Ref(t, "one@"+one.ID.String())); err != nil || d.ID != one.ID {
		t.Errorf("by digest: %+v, %v", d, err)
	}
}

// stubborn fails or blocks at Document until it is told otherwise.
type stubborn struct {
	remote.Source
	mu   sync.Mutex
	fail func(context.Context) error
}

func (s *stubborn) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(ctx); err != nil {
			return nil, err
		}
	}
	return s.Source.Document(ctx, id)
}

// TestFailurePasses proves that a catalog does not remember what is not lasting.
func TestFailurePasses(t *testing.T) {
	r := open(t, mem.New())
	push(t, r, "app:1", remotetest.NewImage(t, "app", layer(t, "a", 10)))
	lost := errors.New("the network is gone")
	s := &stubborn{Source: r, fail: func(context.Context) error { return lost }}
	c := catalog.New(s)
	if _, err := c.List(t.Context(), ""); !errors.Is(err, lost) {
		t.Errorf("list: %v", err)
	}

	// One hangs in an image and is cancelled; another reads the same image meanwhile.
	begun := make(chan struct{}, 2)
	s.fail = func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var first error
	var group sync.WaitGroup
	group.Go(func() { _, first = c.List(ctx, "") })
	<-begun
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	_, second := c.List(t.Context(), "")
	cancel()
	group.Wait()
	if !errors.Is(first, context.Canceled) || second != nil {
		t.Errorf("the cancelled one: %v; the other: %v", first, second)
	}
	if rows, err := c.List(t.Context(), ""); err != nil || len(rows) != 1 {
		t.Errorf("list again: %v, %v", rows, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.List(ended, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// counting counts how many tags are resolved at once, and how often a Source is asked for documents.
type counting struct {
	remote.Source
	mu        sync.Mutex
	documents int
	resolving int
	most      int // of resolving
}

func (c *counting) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	c.mu.Lock()
	c.resolving++
	c.most = max(c.most, c.resolving)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.resolving--
		c.mu.Unlock()
	}()
	return c.Source.Resolve(ctx, ref)
}

func (c *counting) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	c.mu.Lock()
	c.documents++
	c.mu.Unlock()
	return c.Source.Document(ctx, id)
}

func TestManyTags(t *testing.T) {
	const repositories, tags = 10, 1000
	dir := t.TempDir()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := open(t, s)
	a, b := layer(t, "a", 100), layer(t, "b", 20)
	images := []remotetest.Image{remotetest.NewImage(t, "one", a, b), remotetest.NewImage(t, "two", b)}
	push(t, r, "one:1", images[0])
	push(t, r, "two:1", images[1])
	for i := range repositories {
		folder := filepath.Join(dir, "repositories", fmt.Sprintf("app-%d", i))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range tags {
			tag := filepath.Join(dir, "repositories", []string{"one", "two"}[j%2], "1")
			if err := os.Link(tag, filepath.Join(folder, fmt.Sprintf("v%04d", j))); err != nil {
				t.Fatal(err)
			}
		}
	}
	source := &counting{Source: r}
	begun := time.Now()
	rows, err := catalog.New(source).List(t.Context(), "")
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	if want := repositories*tags + 2; len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	if !slices.IsSortedFunc(rows, func(a, b catalog.Image) int { return a.Reference.Compare(b.Reference) }) {
		t.Error("the rows are not in order")
	}
	for _, row := range rows {
		if row.Damage != "" || row.Size != 120 && row.Size != 20 {
			t.Fatalf("%+v", row)
		}
	}
	if source.documents != len(images) {
		t.Errorf("%d documents were read for %d images", source.documents, len(images))
	}
	if source.most < 2 || source.most > 128 {
		t.Errorf("%d tags were resolved at once, want several, at most 128", source.most)
	}
	t.Logf("%d tags in %v, %d at once", len(rows), took, source.most)
	if took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
