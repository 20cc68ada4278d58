package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func entries(t testing.TB, s storage.Store) (all []remote.Entry) {
	t.Helper()
	for e, err := range open(t, s, codec.LZ4).Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// TestEntries: each entry once, in order, with all that lies in it, and nothing
// of what readers have to ignore.
func TestEntries(t *testing.T) {
	if got := entries(t, mem.New()); len(got) > 0 {
		t.Errorf("an empty remote has %v", got)
	}
	s := newStored(t)
	torn, odd := image.DigestOf([]byte("torn")), image.DigestOf([]byte("odd"))
	put(t, s.store, "images/"+torn.Hex()+"/json", []byte("cut"))
	time.Sleep(2 * time.Millisecond)
	put(t, s.store, "images/"+odd.Hex()+"/what/no/format/knows", make([]byte, 100))
	put(t, s.store, "images/"+odd.Hex()+"/VERSION", []byte("2.0"))
	for _, key := range []string{
		"images/README", "images/0123/json", "images/" + odd.Hex()[:63] + "g/json", "images/" + odd.Hex() + "0/json",
		"images2/" + odd.Hex() + "/json", "run/" + torn.Hex() + "/json",
	} {
		put(t, s.store, key, []byte("nobody's"))
	}

	want := map[image.Digest]remote.Entry{}
	for info, err := range s.store.List(t.Context(), "images/") {
		if err != nil {
			t.Fatal(err)
		}
		var hex, name string
		if n, _ := fmt.Sscanf(info.Key, "images/%64s/%s", &hex, &name); n != 2 {
			continue
		}
		id, err := image.ParseHex(hex)
		if err != nil {
			continue
		}
		e := want[id]
		e.ID, e.Objects, e.Bytes, e.Files = id, e.Objects+1, e.Bytes+info.Size, append(e.Files, name)
		if info.Modified.After(e.Modified) {
			e.Modified = info.Modified
		}
		want[id] = e
	}
	got := entries(t, s.store)
	if len(got) != len(want) || len(got) != len(s.img.Layers)+2+2 {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if !slices.IsSortedFunc(got, func(a, b remote.Entry) int { return slices.Compare(a.ID[:], b.ID[:]) }) {
		t.Error("they are not in order")
	}
	for _, e := range got {
		if w := want[e.ID]; fmt.Sprint(e) != fmt.Sprint(w) {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	for e, err := range open(t, s.store, codec.LZ4).Entries(t.Context()) { // stops early
		if err != nil || e.ID != got[0].ID {
			t.Errorf("first: %v, %v", e.ID, err)
		}
		break
	}
}

// listing is a store that lists what nobody may put.
type listing struct {
	storage.Store
	keys []string
	err  error
}

func (l listing) List(context.Context, string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for _, k := range l.keys {
			if !yield(storage.Info{Key: k, Size: 1}, nil) {
				return
			}
		}
		if l.err != nil {
			yield(storage.Info{}, l.err)
		}
	}
}

// TestHostileEntries: an entry with a million files, and keys that stores let pass.
func TestHostileEntries(t *testing.T) {
	id := image.DigestOf([]byte("x")).Hex()
	l := listing{Store: mem.New(), keys: []string{"images/" + id + "/.hidden", "images/" + id + "/a/.b", "images/" + id + "/", "images/" + id + "/c/"}}
	if got := entries(t, l); len(got) > 0 {
		t.Errorf("what is to be ignored makes an entry: %v", got)
	}
	for i := range 50_000 {
		l.keys = append(l.keys, fmt.Sprintf("images/%s/%08d", id, i))
	}
	got := entries(t, l)
	if len(got) != 1 || got[0].Objects != 50_000 || got[0].Bytes != 50_000 || len(got[0].Files) != remote.MaxEntryFiles {
		t.Errorf("%d entries, %d objects, %d files", len(got), got[0].Objects, len(got[0].Files))
	}
	l.err = io.ErrUnexpectedEOF
	n := 0
	var last error
	for _, err := range open(t, l, codec.LZ4).Entries(t.Context()) {
		n++
		last = err
	}
	if n != 1 || !errors.Is(last, l.err) || !fault.Is(last, fault.Other) {
		t.Errorf("a list that breaks off yields %d times, %v", n, last)
	}
}

// TestAudit is about what is proved where not all layers are known.
func TestAudit(t *testing.T) {
	s := newStored(t)
	r := open(t, s.store, codec.LZ4)
	layers, err := remote.Layers(t.Context(), r, image.Distinct(s.img.DiffIDs()))
	if err != nil {
		t.Fatal(err)
	}
	manifest := image.DigestOf(s.img.Manifest())
	for what, c := range map[string]struct {
		layers []remote.Layer
		point  string
		keeps  []image.Digest
		damage int
	}{
		"whole":                       {layers, manifest.Hex(), []image.Digest{manifest}, 0},
		"whole, with a line feed":     {layers, manifest.Hex() + "\n", []image.Digest{manifest}, 0},
		"another manifest":            {layers, s.img.ID.Hex(), []image.Digest{manifest}, 1},
		"garbage":                     {layers, "garbage", []image.Digest{manifest}, 1},
		"too large":                   {layers, string(make([]byte, 1<<17)), []image.Digest{manifest}, 1},
		"a layer is not known":        {layers[1:], s.img.ID.Hex(), []image.Digest{s.img.ID}, 0},
		"no layer is known, garbage":  {nil, "garbage", nil, 0},
		"no layer is known, and true": {nil, manifest.Hex(), []image.Digest{manifest}, 0},
	} {
		put(t, s.store, "images/"+s.img.ID.Hex()+"/manifest", []byte(c.point))
		keeps, damage, err := r.Audit(t.Context(), s.img.ID, c.layers)
		if err != nil || !slices.Equal(keeps, c.keeps) || len(damage) != c.damage {
			t.Errorf("%s: keeps %v, damage %v, %v", what, keeps, damage, err)
		}
		var where *remote.Damage
		for _, d := range damage {
			if !errors.As(d, &where) || where.Object != "images/"+s.img.ID.Hex()+"/manifest" || !fault.Is(d, fault.Damaged) {
				t.Errorf("%s: %v names %v", what, d, where)
			}
		}
	}
	if err := r.Restore(t.Context(), s.img.ID, layers); err != nil {
		t.Fatal(err)
	}
	if diff := firstDifference(s.objects, tree(t, s.store)); diff != "" {
		t.Errorf("Restore does not bring back %s", diff)
	}
	remove(t, s.store, "images/"+s.img.ID.Hex()+"/manifest")
	if keeps, damage, err := r.Audit(t.Context(), s.img.ID, layers); err != nil || len(keeps)+len(damage) > 0 {
		t.Errorf("without a pointer: keeps %v, damage %v, %v", keeps, damage, err)
	}
}

// TestLaterAlias proves that a blob that is written again mends an alias that lies.
func TestLaterAlias(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.LZ4)
	tar := remotetest.FileLayer(t, "a", "b")
	blob := gzipped(t, tar)
	d := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(blob), Size: int64(len(blob))}
	write := func() {
		t.Helper()
		if _, err := r.PutLayer(t.Context(), d, bytes.NewReader(blob)); err != nil {
			t.Fatal(err)
		}
	}
	write()
	key := "images/" + image.DigestOf(tar).Hex() + "/json"
	right := get(t, s, key)
	for _, lie := range []string{
		fmt.Sprintf(`{"diffID":%q,"size":7,"blob":%q}`, image.DigestOf(tar), d.Digest),
		fmt.Sprintf(`{"diffID":%q,"size":%d,"blob":%q}`, image.DigestOf(tar), len(tar), image.DigestOf(tar)),
	} {
		put(t, s, key, []byte(lie))
		write()
		if got := get(t, s, key); string(got) != string(right) {
			t.Errorf("after %s there is %s", lie, got)
		}
	}
	// A layer that is there by itself stays.
	if _, err := r.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}, bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	own := get(t, s, key)
	write()
	if got := get(t, s, key); string(got) != string(own) || string(own) == string(right) {
		t.Errorf("a layer by itself becomes %s", got)
	}
}
