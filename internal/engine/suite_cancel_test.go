package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func TestEngineSlowReader(t *testing.T) { everyEngine(t, testEngineSlowReader) }

func testEngineSlowReader(t *testing.T, e *enginetest.Engine, c *Client) {
	img := loadNamed(t, e, c, wide())
	x := c.Export(t.Context(), img)
	defer x.Close()
	for seen := 0; seen < 4; {
		item, err := x.Next()
		if err != nil {
			t.Fatal(err)
		}
		sum, _, err := hashOf(&pausing{r: item.Body})
		if err != nil || sum != item.Digest {
			t.Errorf("%s has the content of %s, error %v", item.Digest.Short(), sum.Short(), err)
		}
		seen++
	}
}

// pausing reads with a pause each MiB.
type pausing struct {
	r    io.Reader
	read int
}

func (p *pausing) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.read/(1<<20) != (p.read+n)/(1<<20) {
		time.Sleep(50 * time.Millisecond)
	}
	p.read += n
	return n, err
}

// firstLayer goes on to a layer.
func firstLayer(t *testing.T, x *Export) Item {
	t.Helper()
	for {
		item, err := x.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !item.Document {
			return item
		}
	}
}

func TestEngineCancelExport(t *testing.T) { everyEngine(t, testEngineCancelExport) }

func testEngineCancelExport(t *testing.T, e *enginetest.Engine, c *Client) {
	img := loadNamed(t, e, c, wide())
	before := contents(t, e)
	for _, after := range []int64{0, 1, 1 << 20, 7 << 20} {
		ctx, cancel := context.WithCancel(t.Context())
		x := c.Export(ctx, img)
		item := firstLayer(t, x)
		if _, err := io.CopyN(io.Discard, item.Body, after); err != nil {
			t.Fatal(err)
		}
		cancel()
		start := time.Now()
		if _, err := io.Copy(io.Discard, item.Body); after < 6<<20 && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d bytes: error %v", after, err)
		}
		if _, err := walk(x); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d bytes: goes on with error %v", after, err)
		}
		if late := time.Since(start); late > 20*time.Second {
			t.Errorf("cancelled after %d bytes: took %v", after, late)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Export(ctx, img).Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: error %v", err)
	}
	unchanged(t, e, before)
}

// TestEngineCloseExportEarly: the engine ends its work when nobody listens, and takes the next request.
func TestEngineCloseExportEarly(t *testing.T) { everyEngine(t, testEngineCloseExportEarly) }

func testEngineCloseExportEarly(t *testing.T, e *enginetest.Engine, c *Client) {
	img := loadNamed(t, e, c, wide())
	before := contents(t, e)
	for range 3 {
		x := c.Export(t.Context(), img)
		if _, err := x.Next(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	unchanged(t, e, before)
	if err := c.Export(t.Context(), img).Close(); err != nil {
		t.Errorf("closed unread: %v", err)
	}
}

func TestEngineCancelLoad(t *testing.T) { everyEngine(t, testEngineCancelLoad) }

func testEngineCancelLoad(t *testing.T, e *enginetest.Engine, c *Client) {
	m := wide()
	removeNamed(t, e, m.Tags()[0])
	before := contents(t, e)
	for _, after := range []int64{0, 1000, 12 << 20, 22 << 20} { // of 24 MiB: what is sent in full, the engine finishes
		ctx, cancel := context.WithCancel(t.Context())
		var start time.Time
		err := load(ctx, c, archiveOf(t, m, 0), func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, after), calling{func() { start = time.Now(); cancel() }}, r)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d bytes: error %v", after, err)
		}
		if late := time.Since(start); late > 20*time.Second {
			t.Errorf("cancelled after %d bytes: took %v", after, late)
		}
		cleanUp(t, c, archiveOf(t, m, 0))
		unchanged(t, e, before)
	}
}

// calling is an empty reader that calls something.
type calling struct{ f func() }

func (c calling) Read([]byte) (int, error) { c.f(); return 0, io.EOF }

func TestEngineTagAndRemove(t *testing.T) { everyEngine(t, testEngineTagAndRemove) }

func testEngineTagAndRemove(t *testing.T, e *enginetest.Engine, c *Client) {
	m, _ := crafted(t)
	id := c.idOf(archiveOf(t, m, 0))
	before := contents(t, e)
	if err := load(t.Context(), c, archiveOf(t, m, 0), same); err != nil {
		t.Fatal(err)
	}
	ref := image.Reference{Repository: "localhost:5000/dogestry-test/tagged", Tag: "much_Tag-1.0"}
	if err := c.Tag(t.Context(), id, ref); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveUntagged(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if img, err := c.Inspect(t.Context(), ref.String()); err != nil || img.ID != id || !slices.Equal(img.Tags, []string{ref.String()}) {
		t.Errorf("image %+v, error %v", img, err)
	}
	removeNamed(t, e, id.String())
	if err := c.RemoveUntagged(t.Context(), id); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if err := c.Tag(t.Context(), id, ref); !fault.Is(err, fault.Other) {
		t.Errorf("tagging what is gone: %v", err)
	}
	unchanged(t, e, before)
}
