package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// made is what opens a layer that is put together, and counts.
type made struct {
	body func(ctx context.Context) io.Reader

	mu     sync.Mutex
	opened int
	closed int
}

func (m *made) open(ctx context.Context) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	return &madeBody{m.body(ctx), m}, nil
}

func (m *made) counts() (opened, closed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened, m.closed
}

type madeBody struct {
	io.Reader
	m *made
}

func (b *madeBody) Close() error {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.m.closed++
	return nil
}

func of(tar []byte) func(context.Context) io.Reader {
	return func(context.Context) io.Reader { return bytes.NewReader(tar) }
}

// TestOpenMade: what is put together is kept, and made once for all who want it; the remote is asked for none of it.
func TestOpenMade(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	layer := layerOf(t, from, tar)
	hold := make(chan struct{})
	m := &made{body: func(ctx context.Context) io.Reader {
		return &gate{ReadCloser: io.NopCloser(bytes.NewReader(tar)), ctx: ctx, left: large / 2, open: hold}
	}}
	var bodies []io.ReadCloser
	for range 3 {
		body, err := from.OpenMade(t.Context(), layer, m.open)
		must(t, err)
		bodies = append(bodies, body)
	}
	// One goes away, and the others get all.
	must(t, bodies[0].Close())
	close(hold)
	for _, body := range bodies[1:] {
		got, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, tar) {
			t.Errorf("%d bytes of %d, %v", len(got), len(tar), err)
		}
	}
	body, err := from.OpenMade(t.Context(), layer, m.open) // it is there by now
	must(t, err)
	must(t, body.Close())
	if opened, closed := m.counts(); opened != 1 || closed != 1 {
		t.Errorf("opened %d times, and closed %d times", opened, closed)
	}
	reads(t, from, tar)
	if n, o := p.since("stored"), p.since("open"); n+o > 0 {
		t.Errorf("the remote is read %d times", n+o)
	}
}

// TestOpenMadeFails: what fails is its opener's error, what comes out as another layer is not kept, and who wants the
// layer from the remote meanwhile gets it from there.
func TestOpenMadeFails(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	var told notes
	from := cacheIn(t, dir, 1<<30, told.add).New(p)
	layer := layerOf(t, from, tar)
	broken := errors.New("such a broken plan")
	_, err := from.OpenMade(t.Context(), layer, func(context.Context) (io.ReadCloser, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("the opener failed: %v", err)
	}
	hold := make(chan struct{})
	other := slices.Clone(tar)
	other[large-1] ^= 1
	m := &made{body: func(ctx context.Context) io.Reader {
		r := image.Verify(&gate{ReadCloser: io.NopCloser(bytes.NewReader(other)), ctx: ctx, left: large / 2, open: hold}, layer.Digest, layer.Size)
		return io.MultiReader(r)
	}}
	body, err := from.OpenMade(t.Context(), layer, m.open)
	must(t, err)
	if isThere(t, dir, tar) {
		t.Error("it is there before it is whole")
	}
	reads(t, from, tar) // meanwhile
	close(hold)
	_, err = io.ReadAll(body)
	var wrong *image.MismatchError
	if !errors.As(err, &wrong) {
		t.Errorf("another layer was made: %v", err)
	}
	must(t, body.Close())
	if said := told.since(); said != "" {
		t.Errorf("it says %q", said)
	}
	reads(t, from, tar)
	if n := p.since("stored"); n != 1 {
		t.Errorf("the remote was read %d times", n)
	}
}

// TestOpenMadeWithoutRoom: what the cache cannot have is refused before it is made.
func TestOpenMadeWithoutRoom(t *testing.T) {
	p := newProbe(t)
	tar := remotetest.Noise("noise", layerSize)
	pushed(t, p, "app:1", tar)
	from := cacheIn(t, t.TempDir(), layerSize/2, nil).New(p)
	m := &made{body: of(tar)}
	_, err := from.OpenMade(t.Context(), layerOf(t, from, tar), m.open)
	if opened, _ := m.counts(); !errors.Is(err, errors.ErrUnsupported) || opened > 0 {
		t.Errorf("%v, and it was opened %d times", err, opened)
	}
}

// TestOpenMadeIsInterrupted: when the last reader goes, making ends.
func TestOpenMadeIsInterrupted(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	m := &made{body: func(ctx context.Context) io.Reader {
		return &gate{ReadCloser: io.NopCloser(bytes.NewReader(tar)), ctx: ctx, left: large / 2}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	body, err := from.OpenMade(ctx, layerOf(t, from, tar), m.open)
	must(t, err)
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	must(t, body.Close())
	if opened, closed := m.counts(); opened != 1 || closed != 1 || isThere(t, dir, tar) {
		t.Errorf("opened %d times, and closed %d times", opened, closed)
	}
}

// TestKept: layers that others can be put together from, those that were of use last first, of which parts come from
// the cache. One that is being read stays.
func TestKept(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tars := manyLayers(t, p, 6)
	small := remotetest.FileLayer(t, "small", "small")
	zipped := gzipped(t, remotetest.Noise("in a blob", layerSize))
	pushed(t, p, "app:1", small)
	_, err := p.PutLayer(t.Context(), image.Descriptor{
		MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(zipped), Size: int64(len(zipped)),
	}, bytes.NewReader(zipped))
	must(t, err)
	from := cacheIn(t, dir, 5*layerSize, nil).New(p)
	for _, tar := range [][]byte{small, zipped, tars[0], tars[1], tars[2]} {
		readsLater(t, dir, from, tar)
	}
	kept := func(without ...image.Digest) (ids []image.Digest) {
		t.Helper()
		layers, err := from.Kept(t.Context(), without)
		must(t, err)
		for _, l := range layers {
			if l.Source != remote.InCache || l.Stored == 0 {
				t.Errorf("%+v", l)
			}
			ids = append(ids, l.Digest)
		}
		return ids
	}
	ids := func(numbers ...int) (ids []image.Digest) {
		for _, n := range numbers {
			ids = append(ids, image.DigestOf(tars[n]))
		}
		return ids
	}
	if got := kept(); !slices.Equal(got, ids(2, 1, 0)) {
		t.Errorf("%v", got)
	}
	if got := kept(ids(2, 1)...); !slices.Equal(got, ids(0, 2, 1)) {
		t.Errorf("without two: %v", got)
	}
	layers, err := from.Kept(t.Context(), nil)
	must(t, err)
	oldest := layers[2]
	done := from.Use(t.Context(), oldest)
	p.since("stored")
	must(t, p.store.Delete(t.Context(), oldest.Object)) // from here on it is the cache's
	body, err := from.OpenPart(t.Context(), oldest, 10, 100)
	must(t, err)
	part, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || len(part) != 100 {
		t.Errorf("%d bytes, %v", len(part), err)
	}
	for _, tar := range tars[3:] { // there is no room for all of them
		reads(t, from, tar)
	}
	if got := kept(); !slices.Contains(got, oldest.Digest) {
		t.Errorf("what is of use has been removed: %v", got)
	}
	done()
}

// TestKeptBlobs: what came compressed by zstd may have an index, so it is among them, as it is. What came compressed
// in another way is not.
func TestKeptBlobs(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", layerSize)
	pushed(t, p, "app:1", tar)
	encoded := codec.Zstd.Encode(bytes.NewReader(remotetest.Noise("in a blob", layerSize)))
	blob, err := io.ReadAll(encoded)
	must(t, errors.Join(err, encoded.Close()))
	zipped := gzipped(t, remotetest.Noise("in another", layerSize))
	for _, b := range [][]byte{blob, zipped} {
		_, err := p.PutLayer(t.Context(), image.Descriptor{MediaType: "application/octet-stream", Digest: image.DigestOf(b), Size: int64(len(b))}, bytes.NewReader(b))
		must(t, err)
	}
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	for _, b := range [][]byte{blob, tar, zipped} {
		readsLater(t, dir, from, b)
	}
	kept, err := from.Kept(t.Context(), nil)
	must(t, err)
	if len(kept) != 2 || kept[0].Digest != image.DigestOf(tar) || kept[1].Digest != image.DigestOf(blob) || kept[1].Stored != int64(len(blob)) {
		t.Fatalf("%+v", kept)
	}
	body, err := from.OpenPart(t.Context(), kept[1], int64(len(blob))-100, 100)
	must(t, err)
	part, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(part, blob[len(blob)-100:]) {
		t.Errorf("%d bytes, %v", len(part), err)
	}
	in := open(t, directory(t, dir))
	for i := range 70 { // that begin so is all that is known of them
		b := append([]byte("\x28\xb5\x2f\xfd"), remotetest.Noise(strconv.Itoa(i), 64<<10)...)
		_, err := in.PutLayer(t.Context(), image.Descriptor{MediaType: "application/octet-stream", Digest: image.DigestOf(b), Size: int64(len(b))}, bytes.NewReader(b))
		must(t, err)
	}
	if kept, err = from.Kept(t.Context(), nil); len(kept) != 64 || err != nil {
		t.Errorf("%d of 72, %v", len(kept), err)
	}
}
