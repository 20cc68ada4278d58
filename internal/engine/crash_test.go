package engine

import (
	"io"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
)

// TestEngineIsKilled kills an engine half-way through an export, and then through a load. Its clock is not in UTC, which
// must not keep us from predicting the names in its exports.
func TestEngineIsKilled(t *testing.T) {
	t.Setenv("TZ", "Asia/Kolkata")
	enginetest.EachKind(t, testEngineIsKilled)
}

func testEngineIsKilled(t *testing.T, k enginetest.Kind) {
	e := enginetest.StartFor(t, k.Options)
	c := connect(t, e.Host)
	m := wide()
	img := described(t, m)
	if err := e.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	clear := func(what string, err error) {
		t.Helper()
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), e.Host) || fault.AdviceOf(err) == "" {
			t.Errorf("%s: error %v, advice %q", what, err, fault.AdviceOf(err))
		}
	}
	x := c.Export(t.Context(), img)
	item := firstLayer(t, x)
	if _, err := io.CopyN(io.Discard, item.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	n, err := io.Copy(io.Discard, item.Body)
	if n < 7<<20-1 { // else all of this layer was on its way already
		clear("reading a layer", err)
	}
	_, err = walk(x)
	clear("reading on", err)
	_, err = walk(c.Export(t.Context(), img))
	clear("another export", err)

	if err := e.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	x = c.Export(t.Context(), img) // by the same client
	got, err := walk(x)
	if err != nil {
		t.Fatal(err)
	}
	got.check(t, m)
	if x.pass != 1 {
		t.Errorf("took %d passes: its names were not predicted", x.pass)
	}

	if err := e.Empty(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{1 << 20, 20 << 20} {
		err = load(t.Context(), c, archiveOf(t, m, 0), func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, after), calling{e.Kill}, r)
		})
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), e.Host) {
			t.Errorf("killed after %d bytes of a load: error %v", after, err)
		}
		if err := e.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if has, err := c.Has(t.Context(), img.ID); has || err != nil {
			t.Errorf("killed after %d bytes of a load: has %v, error %v", after, has, err)
		}
	}
	if err := load(t.Context(), c, archiveOf(t, m, 0), same); err != nil {
		t.Errorf("the load once more: %v", err)
	}
}
