package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TestPullOfDamage: whatever is wrong with the middle layer's file, the fault names layer and file, and the engine gets
// no tag, no image and no layer of it.
func TestPullOfDamage(t *testing.T) {
	m := layered("1", "a", "b", "c")
	other := image.DigestOf(m.Layers()[0].Bytes())
	bad := image.DigestOf(m.Layers()[1].Bytes())
	entry := func(dir string, id image.Digest, name string) string {
		return filepath.Join(dir, "images", id.Hex(), name)
	}
	const file = "layer.tar.lz4"
	for what, c := range map[string]struct {
		damage func(dir string) error
		names  string // in the message besides the layer
	}{
		"a byte is another": {func(dir string) error { return flipByte(entry(dir, bad, file)) }, file},
		"truncated": {func(dir string) error {
			info, err := os.Stat(entry(dir, bad, file))
			return errors.Join(err, os.Truncate(entry(dir, bad, file), info.Size()/2))
		}, file},
		"last byte is gone": {func(dir string) error {
			info, err := os.Stat(entry(dir, bad, file))
			return errors.Join(err, os.Truncate(entry(dir, bad, file), info.Size()-1))
		}, file},
		"empty":   {func(dir string) error { return os.Truncate(entry(dir, bad, file), 0) }, file},
		"garbage": {func(dir string) error { return os.WriteFile(entry(dir, bad, file), []byte("such garbage"), 0o644) }, file},
		"something behind it": {func(dir string) error {
			b, err := os.ReadFile(entry(dir, other, file))
			if err != nil {
				return err
			}
			f, err := os.OpenFile(entry(dir, bad, file), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(b)
			return errors.Join(err, f.Close())
		}, file},
		"another layer's": {func(dir string) error {
			b, err := os.ReadFile(entry(dir, other, file))
			return errors.Join(err, os.WriteFile(entry(dir, bad, file), b, 0o644))
		}, file},
		"another size": {func(dir string) error {
			b, err := os.ReadFile(entry(dir, bad, "json"))
			if err != nil {
				return err
			}
			return os.WriteFile(entry(dir, bad, "json"), []byte(strings.Replace(string(b), `"size":`, `"size":1`, 1)), 0o644)
		}, file},
		"no file":      {func(dir string) error { return os.Remove(entry(dir, bad, file)) }, file},
		"no json":      {func(dir string) error { return os.Remove(entry(dir, bad, "json")) }, "json"},
		"broken json":  {func(dir string) error { return os.WriteFile(entry(dir, bad, "json"), []byte("{"), 0o644) }, "json"},
		"no entry":     {func(dir string) error { return os.RemoveAll(filepath.Dir(entry(dir, bad, "json"))) }, bad.Hex()},
		"plain tar":    {func(dir string) error { return os.Rename(entry(dir, bad, file), entry(dir, bad, "layer.tar")) }, "layer.tar"},
		"as zstd only": {func(dir string) error { return os.Rename(entry(dir, bad, file), entry(dir, bad, "layer.tar.zst")) }, "layer.tar.zst"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			r := remoteIn(t, dir)
			mustPush(t, newClassic(m).connect(t), r, "much:1")
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			e := newClassic(layered("before", "z"))
			client := e.connect(t)
			before := e.names()
			_, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{})
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), bad.Short()) || !strings.Contains(err.Error(), c.names) || fault.AdviceOf(err) == "" {
				t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
			}
			if strings.Contains(err.Error(), "cannot load") || errors.Is(err, errReaderGone) {
				t.Errorf("error hides its cause: %v", err)
			}
			if !slices.Equal(e.names(), before) {
				t.Errorf("the engine has %q, had %q", e.names(), before)
			}
			// A push mends what it can see to be wrong: sizes, and what is missing. The rest is for whoever reads the advice.
			if err := os.RemoveAll(filepath.Join(dir, "images", bad.Hex())); err != nil {
				t.Fatal(err)
			}
			mustPush(t, newClassic(m).connect(t), r, "much:1")
			checkWhole(t, r, "much:1", m)
		})
	}
}

func TestPullOfDamagedDocuments(t *testing.T) {
	m := layered("1", "a")
	id := image.DigestOf(m.Config())
	for what, c := range map[string]struct {
		path, content string
		kind          fault.Kind
	}{
		"tag of garbage":         {"repositories/much/1", "such tag", fault.Damaged},
		"empty tag":              {"repositories/much/1", "", fault.Damaged},
		"tag of what is missing": {"repositories/much/1", strings.Repeat("ab", 32), fault.Damaged},
		"tag of a layer":         {"repositories/much/1", image.DigestOf(m.Layers()[0].Bytes()).Hex(), fault.Damaged},
		"config":                 {"images/" + id.Hex() + "/json", `{"rootfs":{"type":"layers","diff_ids":[]}}`, fault.Damaged},
		"empty config":           {"images/" + id.Hex() + "/json", "", fault.Damaged},
	} {
		dir := t.TempDir()
		r := remoteIn(t, dir)
		client := newClassic(m).connect(t)
		mustPush(t, client, r, "much:1")
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(c.path)), []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		e := newClassic()
		_, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:1"), Options{})
		if !fault.Is(err, c.kind) || len(e.names()) > 0 || e.changed > 0 {
			t.Errorf("%s: error %v, the engine has %q", what, err, e.names())
		}
		mustPush(t, client, r, "much:1")
		checkWhole(t, r, "much:1", m)
	}
}
