package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
)

const large = 5<<20 + 1

// TestSecondTime reads an image twice: the second time the remote is asked what the
// tag names, and nothing else, also by another process.
func TestSecondTime(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	img := pushed(t, p, "app:1", remotetest.FileLayer(t, "a", "a"), remotetest.Noise("noise", large))
	for i := range 3 {
		from := cacheIn(t, dir, 1<<30, nil).New(p)
		got, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1"))
		if err != nil || img.Diff(got) != "" {
			t.Fatalf("%v: %s", err, img.Diff(got))
		}
		if n := p.since("resolve"); n != 1 {
			t.Errorf("time %d: %d tags", i, n)
		}
		want := map[string]int{"document": 1, "look": 1, "stored": 2, "open": 0}
		if i > 0 {
			clear(want)
		}
		for _, method := range []string{"document", "look", "stored", "open"} {
			if n := p.since(method); n != want[method] {
				t.Errorf("time %d: %s is asked for %d times, not %d", i, method, n, want[method])
			}
		}
	}
	// The tag has moved: that is seen at once.
	moved := pushed(t, p, "app:1", remotetest.FileLayer(t, "b", "b"))
	got, err := remotetest.Pull(t.Context(), cacheIn(t, dir, 1<<30, nil).New(p), remotetest.Ref(t, "app:1"))
	if err != nil || moved.Diff(got) != "" {
		t.Errorf("%v: %s", err, moved.Diff(got))
	}
}

// TestSameBytes: a layer lies in the cache as the remote keeps it, and is read by
// each of its digests.
func TestSameBytes(t *testing.T) {
	tar := remotetest.FileLayer(t, "text", strings.Repeat("text that compresses ", 10_000))
	zipped := gzipped(t, tar)
	blob := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(zipped), Size: int64(len(zipped))}
	whole := image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}
	for name, test := range map[string]struct {
		codec codec.Codec
		put   image.Descriptor
		bytes []byte
		asks  [][]byte // in this order
	}{
		"lz4":            {codec.LZ4, whole, tar, [][]byte{tar}},
		"zstd":           {codec.Zstd, whole, tar, [][]byte{tar}},
		"none":           {codec.None, whole, tar, [][]byte{tar}},
		"blob":           {codec.LZ4, blob, zipped, [][]byte{zipped, tar}},
		"tar of a blob":  {codec.LZ4, blob, zipped, [][]byte{tar, zipped}},
		"only that tar":  {codec.LZ4, blob, zipped, [][]byte{tar, tar}},
		"only that blob": {codec.LZ4, blob, zipped, [][]byte{zipped, zipped}},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newProbe(t), t.TempDir()
			r, err := repo.Open(t.Context(), p.store, repo.Options{Name: "the-remote", Codec: test.codec})
			if err != nil {
				t.Fatal(err)
			}
			there, err := r.PutLayer(t.Context(), test.put, bytes.NewReader(test.bytes))
			if err != nil {
				t.Fatal(err)
			}
			from := cacheIn(t, dir, 1<<30, nil).New(p)
			for range 2 {
				for _, ask := range test.asks {
					reads(t, from, ask)
				}
			}
			if n, m := p.since("stored"), p.since("open"); n != 1 || m != 0 {
				t.Errorf("it came %d times as it is stored, and %d times otherwise", n, m)
			}
			want, err := storage.Read(t.Context(), p.store, there.Object, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(there.Object)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes are kept, %d there, %v", len(got), len(want), err)
			}
			// A copy takes the same bytes, and from the cache too.
			layer := layerOf(t, from, test.asks[0])
			stored, err := from.OpenStored(t.Context(), layer)
			if err != nil {
				t.Fatal(err)
			}
			got, err = io.ReadAll(stored.Body)
			if err = errors.Join(err, stored.Body.Close()); err != nil || !bytes.Equal(got, want) || stored.Size != int64(len(want)) {
				t.Errorf("a copy gets %d bytes of %d, %v", len(got), len(want), err)
			}
			if n := p.since("stored"); n != 0 {
				t.Errorf("a copy reads the remote %d times", n)
			}
		})
	}
}

// TestPlainRemote: layers of a remote that keeps them in no known way are kept as the
// format has them, what is compressed as it came.
func TestPlainRemote(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.FileLayer(t, "text", strings.Repeat("text that compresses ", 10_000))
	zipped := gzipped(t, remotetest.FileLayer(t, "other", strings.Repeat("other text ", 1000)))
	for media, b := range map[string][]byte{"": tar, "application/vnd.oci.image.layer.v1.tar+gzip": zipped} {
		if _, err := p.PutLayer(t.Context(), image.Descriptor{MediaType: media, Digest: image.DigestOf(b), Size: -1}, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	from := cacheIn(t, dir, 1<<30, nil).New(plain{p})
	for range 2 {
		reads(t, from, tar)
		reads(t, from, zipped)
	}
	if n := p.since("open"); n != 2 {
		t.Errorf("two layers came %d times", n)
	}
	for file, b := range map[string][]byte{"layer.tar.lz4": tar, "blob": zipped} {
		if got := filepath.Base(layerFile(t, dir, image.DigestOf(b))); got != file {
			t.Errorf("it is kept as %s, not %s", got, file)
		}
	}
	if _, err := from.OpenStored(t.Context(), layerOf(t, from, tar)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("as the remote keeps it: %v", err)
	}
}

// TestOneDownload lets many read one layer at once: it comes once, nobody waits for
// one who has stopped reading, and it ends although the one has left who began it.
func TestOneDownload(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	opened := make(chan struct{})
	p.replace(func(ctx context.Context, body io.ReadCloser) io.ReadCloser {
		return &gate{ReadCloser: body, ctx: ctx, left: 3 << 20, open: opened}
	})
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	layer := layerOf(t, from, tar)
	start := func() io.ReadCloser {
		t.Helper()
		r, err := from.Open(t.Context(), layer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	leader, idle := start(), start()
	var readers []io.ReadCloser
	for range 6 {
		readers = append(readers, start())
	}
	if err := leader.Close(); err != nil {
		t.Error(err)
	}
	close(opened)
	rest := func(r io.ReadCloser) error {
		b, err := io.ReadAll(r)
		if err == nil && !bytes.Equal(b, tar[100:]) {
			err = errors.New("other bytes came")
		}
		return errors.Join(err, r.Close())
	}
	var g errgroup.Group
	for _, r := range readers {
		g.Go(func() error { return rest(r) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := p.since("stored"); n != 1 {
		t.Errorf("the layer came %d times", n)
	}
	if err := rest(idle); err != nil {
		t.Errorf("who has read nothing for long: %v", err)
	}
	p.replace(nil)
	reads(t, from, tar)
	if n := p.since("stored"); n != 0 {
		t.Errorf("then it came %d times more", n)
	}
}

// TestAllLeave: when nobody reads any more, the download ends, nothing is left of
// it, and the next one begins anew. So it is when contexts end, also of who waits.
func TestAllLeave(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	for name, left := range map[string]int{"before the first byte": 0, "in the middle": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			p.replace(func(ctx context.Context, body io.ReadCloser) io.ReadCloser {
				return &gate{ReadCloser: body, ctx: ctx, left: left} // which nobody opens
			})
			from := cacheIn(t, dir, 1<<30, nil).New(p)
			layer := layerOf(t, from, tar)
			ctx, cancel := context.WithCancel(t.Context())
			var readers []io.ReadCloser
			for range 2 {
				r, err := from.Open(ctx, layer)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, r)
			}
			var g errgroup.Group
			g.Go(func() error {
				if _, err := io.Copy(io.Discard, readers[0]); !errors.Is(err, context.Canceled) {
					return errors.Join(errors.New("reading does not end with the context"), err)
				}
				return nil
			})
			cancel()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			for _, r := range readers {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
			if names, _ := files(t, dir); len(names) > 0 {
				t.Errorf("%q are left", names)
			}
		})
	}
	p.replace(nil)
	reads(t, cacheIn(t, dir, 1<<30, nil).New(p), tar)
}

// TestRemoteFails: the failure of a remote is told to all readers as it is, and
// nothing is kept.
func TestRemoteFails(t *testing.T) {
	tar := remotetest.Noise("noise", large)
	broken := errors.New("broken on purpose")
	for name, through := range map[string]func(*probe) remote.Source{
		"as it is stored": func(p *probe) remote.Source { return p },
		"encoded":         func(p *probe) remote.Source { return plain{p} },
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newProbe(t), t.TempDir()
			img := pushed(t, p, "app:1", tar)
			var told notes
			from := cacheIn(t, dir, 1<<30, told.add).New(through(p))
			layer := layerOf(t, from, tar)
			opened := make(chan struct{})
			p.replace(func(ctx context.Context, body io.ReadCloser) io.ReadCloser {
				half := io.MultiReader(io.LimitReader(body, 4<<20), iotest.ErrReader(broken))
				return &gate{ReadCloser: struct {
					io.Reader
					io.Closer
				}{half, body}, ctx: ctx, left: 3 << 20, open: opened}
			})
			var readers []io.ReadCloser
			for range 3 {
				r, err := from.Open(t.Context(), layer)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, r)
			}
			close(opened)
			for _, r := range readers {
				if _, err := io.Copy(io.Discard, r); !errors.Is(err, broken) {
					t.Errorf("%v, want the remote's error", err)
				}
				_ = r.Close()
			}
			if names, _ := files(t, dir); len(names) > 0 {
				t.Errorf("%q are left", names)
			}
			// What is damaged there is the remote's, too.
			p.replace(nil)
			wrong := append([]byte{1}, tar[1:]...)
			encoded := codec.LZ4.Encode(bytes.NewReader(wrong))
			defer encoded.Close()
			if err := p.store.Put(t.Context(), layer.Object, encoded); err != nil {
				t.Fatal(err)
			}
			_, err := remotetest.Read(t.Context(), from, layer)
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), layer.Object+" in the-remote") {
				t.Errorf("%v, want damage of the remote", err)
			}
			if names, _ := files(t, dir); len(names) > 0 {
				t.Errorf("%q are left", names)
			}
			if line := told.since(); line != "" {
				t.Errorf("it tells %q of the cache", line)
			}
			if _, err := remotetest.Push(t.Context(), p.Repo, remotetest.Ref(t, "app:1"), img); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDamagedEntry: what is damaged in the cache is told, removed, and read from the
// remote again: at once, where nothing wrong was handed out.
func TestDamagedEntry(t *testing.T) {
	smallTar, largeTar := remotetest.FileLayer(t, "small", "small"), remotetest.Noise("noise", large)
	text := remotetest.FileLayer(t, "text", strings.Repeat("text that compresses ", 200_000))
	for name, test := range map[string]struct {
		tar    []byte
		damage func(t *testing.T, file string)
		once   bool // it fails once
	}{
		"small": {smallTar, func(t *testing.T, file string) { flip(t, file) }, false},
		"cut":   {largeTar, func(t *testing.T, file string) { cut(t, file) }, false},
		"gone":  {largeTar, func(t *testing.T, file string) { must(t, os.Remove(file)) }, false},
		"no json": {largeTar, func(t *testing.T, file string) {
			must(t, os.Remove(filepath.Join(filepath.Dir(file), "json")))
		}, false},
		"no tar any more": {text, func(t *testing.T, file string) { // the frame's own header
			content, err := os.ReadFile(file)
			must(t, err)
			content[0] ^= 0xff
			must(t, os.WriteFile(file, content, 0o644))
		}, false},
		"other bytes": {largeTar, func(t *testing.T, file string) { flip(t, file) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newProbe(t), t.TempDir()
			pushed(t, p, "app:1", test.tar)
			var told notes
			from := cacheIn(t, dir, 1<<30, told.add).New(p)
			reads(t, from, test.tar)
			layer := layerOf(t, from, test.tar)
			test.damage(t, layerFile(t, dir, layer.Digest))
			_, err := remotetest.Read(t.Context(), from, layer)
			if test.once {
				if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "the-cache") || fault.AdviceOf(err) == "" {
					t.Errorf("%v, want a damaged fault that names the cache", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			line := told.since()
			silent := name == "cut" || name == "gone" || name == "no json" // seen before it is read
			if !silent && (!strings.Contains(line, "damaged") || !strings.Contains(line, "the-cache")) {
				t.Errorf("it tells %q", line)
			}
			p.since("stored")
			p.since("open")
			reads(t, from, test.tar)
			reads(t, from, test.tar)
			if n := p.since("stored") + p.since("open"); n > 1 {
				t.Errorf("it came %d times more", n)
			}
			got, err := os.ReadFile(layerFile(t, dir, layer.Digest))
			want, failed := storage.Read(t.Context(), p.store, layer.Object, 1<<30)
			if err != nil || failed != nil || !bytes.Equal(got, want) {
				t.Errorf("then the cache has %d bytes of %d, %v %v", len(got), len(want), err, failed)
			}
		})
	}
}

// TestDamagedForCopies: so it is where bytes are taken as they are stored.
func TestDamagedForCopies(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	var told notes
	from := cacheIn(t, dir, 1<<30, told.add).New(p)
	reads(t, from, tar)
	layer := layerOf(t, from, tar)
	flip(t, layerFile(t, dir, layer.Digest))
	broken := errors.New("broken on purpose")
	if err := from.Damage(layer, broken); !fault.Is(err, fault.Damaged) || !errors.Is(err, broken) || !errors.Is(err, remote.ErrReplaced) || !strings.Contains(err.Error(), "the-cache") {
		t.Errorf("%v", err)
	}
	if file := layerFile(t, dir, layer.Digest); file != "" || !strings.Contains(told.since(), "damaged") {
		t.Errorf("%s is left", file)
	}
	reads(t, from, tar)
}

// TestDamagedDocument: a document is never handed out damaged.
func TestDamagedDocument(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	img := pushed(t, p, "app:1")
	var told notes
	from := cacheIn(t, dir, 1<<30, told.add).New(p)
	want := []int{1, 0, 1, 0}
	for i, n := range want {
		if i == 2 {
			flip(t, filepath.Join(dir, "images", img.ID.Hex(), "json"))
		}
		doc, err := from.Document(t.Context(), img.ID)
		if err != nil || !bytes.Equal(doc, img.Config) {
			t.Errorf("%q, %v", doc, err)
		}
		if got := p.since("document"); got != n {
			t.Errorf("time %d: the remote is asked %d times", i, got)
		}
		if line := told.since(); strings.Contains(line, "damaged") != (i == 2) {
			t.Errorf("time %d: it tells %q", i, line)
		}
	}
}

// TestAbsent: that something is not there is not remembered.
func TestAbsent(t *testing.T) {
	p := newProbe(t)
	from := cacheIn(t, t.TempDir(), 1<<30, nil).New(p)
	img := remotetest.NewImage(t, "app:1", remotetest.FileLayer(t, "a", "a"))
	for range 2 {
		if _, err := from.Document(t.Context(), img.ID); !fault.Is(err, fault.Damaged) {
			t.Errorf("%v", err)
		}
		found, err := from.Look(t.Context(), img.Closure(), nil)
		if err != nil || len(found.Layers) > 0 || len(found.Torn) != 1 || len(found.Documents) > 0 {
			t.Errorf("%+v, %v", found, err)
		}
	}
	pushed(t, p, "app:1", img.Layers...)
	got, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1"))
	if err != nil || img.Diff(got) != "" {
		t.Errorf("%v: %s", err, img.Diff(got))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cut(t testing.TB, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, fi.Size()/2))
}

// TestHas: a layer comes from the cache once it was read.
func TestHas(t *testing.T) {
	p := newProbe(t)
	img := pushed(t, p, "app:1", remotetest.FileLayer(t, "a", "a"))
	from := cacheIn(t, t.TempDir(), 1<<30, nil).New(p)
	layers, err := remote.Layers(t.Context(), p, img.DiffIDs())
	must(t, err)
	if from.Has(t.Context(), layers[0]) {
		t.Error("it has what nobody has read")
	}
	if _, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1")); err != nil {
		t.Fatal(err)
	}
	if !from.Has(t.Context(), layers[0]) {
		t.Error("it has not what was read")
	}
}
