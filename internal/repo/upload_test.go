package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// openPieces opens a repository whose uploads have pieces of this size.
func openPieces(t testing.TB, s storage.Store, size int64) *repo.Repo {
	t.Helper()
	r := open(t, s, codec.LZ4)
	r.SetPieceSize(size)
	return r
}

func createUpload(t testing.TB, r *repo.Repo) string {
	t.Helper()
	id, err := r.CreateUpload(t.Context(), "localhost:5000/app")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func appendUpload(t testing.TB, r *repo.Repo, id string, offset int64, content []byte) {
	t.Helper()
	if size, err := r.AppendUpload(t.Context(), id, offset, bytes.NewReader(content)); err != nil || size != offset+int64(len(content)) {
		t.Fatalf("%d bytes, %v", size, err)
	}
}

func readUpload(t testing.TB, r *repo.Repo, id string) ([]byte, error) {
	t.Helper()
	body, err := r.OpenUpload(t.Context(), id)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

// TestUploadKeys: what is written is what docs/format.md says.
func TestUploadKeys(t *testing.T) {
	s := mem.New()
	r := openPieces(t, s, 10)
	id := createUpload(t, r)
	appendUpload(t, r, id, 0, []byte("0123456789abcdef"))
	appendUpload(t, r, id, 16, []byte("ghi"))
	appendUpload(t, r, id, 19, nil)
	prefix := "run/uploads/" + id + "/"
	want := map[string]string{
		prefix + "session":              `{"repository":"localhost:5000/app"}` + "\n",
		prefix + "00000000000000000000": "0123456789",
		prefix + "00000000000000000010": "abcdef",
		prefix + "00000000000000000016": "ghi",
	}
	if got := contents(t, s, ""); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("it has %q, want %q", got, want)
	}
	if err := r.RemoveUpload(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if left := keys(t, s, ""); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestUploadOfManyPieces has more than come in one page of a list.
func TestUploadOfManyPieces(t *testing.T) {
	r := openPieces(t, mem.New(), 1)
	id, content := createUpload(t, r), remotetest.Noise("many", 1100)
	appendUpload(t, r, id, 0, content)
	if got, err := readUpload(t, r, id); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestUploadBroken: the whole pieces that came before a connection broke stay.
func TestUploadBroken(t *testing.T) {
	s := mem.New()
	r := openPieces(t, s, 10)
	id, content := createUpload(t, r), remotetest.Noise("broken", 45)
	errBroken := errors.New("the connection broke")
	size, err := r.AppendUpload(t.Context(), id, 0, io.MultiReader(bytes.NewReader(content[:35]), iotest.ErrReader(errBroken)))
	if size != 30 || !errors.Is(err, errBroken) {
		t.Errorf("%d bytes, %v", size, err)
	}
	appendUpload(t, openPieces(t, s, 7), id, 30, content[30:])
	if got, err := readUpload(t, r, id); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUploadLostAnswers: a client that asks how much is there whenever something fails, and goes on behind that,
// brings every byte once, whichever operation fails, before or after it was done.
func TestUploadLostAnswers(t *testing.T) {
	content := remotetest.Noise("lost", 35)
	bring := func(s storage.Store, r *repo.Repo) (got []byte, failures int) {
		t.Helper()
		id, size := "", int64(0)
		for failures < 5 {
			var err error
			if id == "" {
				id, err = r.CreateUpload(t.Context(), "app")
			} else if size, _, err = r.UploadSize(t.Context(), id); err == nil && size < int64(len(content)) {
				_, err = r.AppendUpload(t.Context(), id, size, bytes.NewReader(content[size:]))
			} else if err == nil {
				if got, err = readUpload(t, r, id); err == nil {
					return got, failures
				}
			}
			if err != nil {
				failures++
			}
		}
		t.Fatalf("it failed %d times", failures)
		return nil, failures
	}
	count := storagetest.NewFaulty(mem.New())
	bring(count, openPieces(t, count, 10))
	for n := 2; n <= count.Ops(); n++ { // behind the one that opens it
		for _, mode := range []storagetest.Mode{storagetest.Before, storagetest.After, storagetest.Inside} {
			inner := storagetest.NewFaulty(mem.New())
			r := openPieces(t, inner, 10)
			inner.FailAt(n, mode)
			if got, _ := bring(inner, r); !bytes.Equal(got, content) {
				t.Errorf("operation %d %s: %q", n, mode, got)
			}
		}
	}
}

// TestUploadDamaged: pieces that do not make a whole are told, and never read as one.
func TestUploadDamaged(t *testing.T) {
	for name, damage := range map[string]func(s storage.Store, prefix string){
		"a piece is missing":    func(s storage.Store, p string) { remove(t, s, p+"00000000000000000010") },
		"the first is missing":  func(s storage.Store, p string) { remove(t, s, p+"00000000000000000000") },
		"a piece is shorter":    func(s storage.Store, p string) { put(t, s, p+"00000000000000000000", []byte("x")) },
		"a piece is longer":     func(s storage.Store, p string) { put(t, s, p+"00000000000000000000", []byte("0123456789x")) },
		"two lie on each other": func(s storage.Store, p string) { put(t, s, p+"00000000000000000005", []byte("x")) },
		"the session is none":   func(s storage.Store, p string) { put(t, s, p+"session", []byte("x")) },
	} {
		s := mem.New()
		r := openPieces(t, s, 10)
		id := createUpload(t, r)
		appendUpload(t, r, id, 0, remotetest.Noise("damaged", 25))
		damage(s, "run/uploads/"+id+"/")
		if _, _, err := r.UploadSize(t.Context(), id); !fault.Is(err, fault.Damaged) {
			t.Errorf("%s: its size: %v", name, err)
		}
		if _, err := r.AppendUpload(t.Context(), id, 25, strings.NewReader("x")); !fault.Is(err, fault.Damaged) {
			t.Errorf("%s: append: %v", name, err)
		}
		if got, err := readUpload(t, r, id); !fault.Is(err, fault.Damaged) {
			t.Errorf("%s: it is read as %q, %v", name, got, err)
		}
		if err := r.RemoveUpload(t.Context(), id); err != nil || len(keys(t, s, "run/")) > 0 {
			t.Errorf("%s: removed: %v, left %q", name, err, keys(t, s, "run/"))
		}
	}
}

// TestUploadChangesWhileRead: pieces that change behind the look at them are no end of the bytes.
func TestUploadChangesWhileRead(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s storage.Store, key string)
		kind   fault.Kind
	}{
		"shorter": {func(s storage.Store, key string) { put(t, s, key, []byte("x")) }, fault.Damaged},
		"removed": {func(s storage.Store, key string) { remove(t, s, key) }, fault.NotFound},
	} {
		s := mem.New()
		r := openPieces(t, s, 10)
		id := createUpload(t, r)
		appendUpload(t, r, id, 0, remotetest.Noise("changes", 25))
		body, err := r.OpenUpload(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		c.change(s, "run/uploads/"+id+"/00000000000000000010")
		if got, err := io.ReadAll(body); !fault.Is(err, c.kind) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSweepUploads: what nobody has added to for a day goes, by the store's clock, with a collection and by itself.
func TestSweepUploads(t *testing.T) {
	for name, sweep := range map[string]func(s storage.Store, r *repo.Repo) int{
		"gc": func(s storage.Store, _ *repo.Repo) int {
			before := len(uploads(t, s))
			collect(t, s, repo.CollectOptions{})
			return before - len(uploads(t, s))
		},
		"sweep": func(s storage.Store, r *repo.Repo) int {
			n, err := r.SweepUploads(t.Context(), repo.UploadAge)
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, off := mem.New(), time.Duration(0)
			s.Now = func() time.Time { return time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC).Add(off) } // far from this machine's
			pushTo(t, s, "app:1", image3(t, "app"))
			r := openPieces(t, s, 10)
			old, goesOn, empty := createUpload(t, r), createUpload(t, r), createUpload(t, r)
			appendUpload(t, r, old, 0, make([]byte, 25))
			appendUpload(t, r, goesOn, 0, make([]byte, 25))
			put(t, s, "run/uploads/"+strings.Repeat("0", 32)+"/00000000000000000000", []byte("of a session that is gone"))
			put(t, s, "run/uploads/nobody's", nil)
			off = repo.UploadAge - time.Second
			if n := sweep(s, r); n != 0 {
				t.Errorf("%d are removed that are younger than a day", n)
			}
			appendUpload(t, r, goesOn, 25, []byte("x"))
			young := createUpload(t, r)
			off += 2 * time.Second
			if n := sweep(s, r); n != 3 {
				t.Errorf("%d are removed", n)
			}
			want := []string{goesOn, young, "nobody's"}
			slices.Sort(want)
			if got := uploads(t, s); !slices.Equal(got, want) {
				t.Errorf("left are %q, want %q", got, want)
			}
			for _, id := range []string{old, empty} {
				if _, _, err := r.UploadSize(t.Context(), id); !fault.Is(err, fault.NotFound) {
					t.Errorf("a swept one: %v", err)
				}
			}
			appendUpload(t, r, goesOn, 26, []byte("y"))
		})
	}
	if n, err := open(t, mem.New(), codec.LZ4).SweepUploads(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("of none: %d, %v", n, err)
	}
}

// uploads returns the names below run/uploads/.
func uploads(t testing.TB, s storage.Store) (ids []string) {
	t.Helper()
	for _, key := range keys(t, s, "run/uploads/") {
		ids = append(ids, strings.Split(key, "/")[2])
	}
	return slices.Compact(ids)
}

// TestRanges: a part of what is stored as its own bytes comes as it is; of what is encoded none does.
func TestRanges(t *testing.T) {
	tar := remotetest.FileLayer(t, "file", strings.Repeat("content ", 100))
	packed := gzipped(t, tar)
	s := mem.New()
	for name, c := range map[string]struct {
		codec codec.Codec
		put   image.Descriptor
		body  []byte
		ask   image.Digest
		want  []byte // nil: unsupported
	}{
		"a plain tar":        {codec.None, image.Descriptor{Digest: image.DigestOf(tar), Size: -1}, tar, image.DigestOf(tar), tar},
		"a blob":             {codec.LZ4, image.Descriptor{MediaType: "a/b", Digest: image.DigestOf(packed), Size: -1}, packed, image.DigestOf(packed), packed},
		"a tar in a blob":    {codec.LZ4, image.Descriptor{MediaType: "a/b", Digest: image.DigestOf(packed), Size: -1}, packed, image.DigestOf(tar), nil},
		"a tar that is lz4":  {codec.LZ4, image.Descriptor{Digest: image.DigestOf(tar), Size: -1}, tar, image.DigestOf(tar), nil},
		"a tar that is zstd": {codec.Zstd, image.Descriptor{Digest: image.DigestOf(tar), Size: -1}, tar, image.DigestOf(tar), nil},
	} {
		restore(t, s, nil)
		r := open(t, s, c.codec)
		if _, err := r.PutLayer(t.Context(), c.put, bytes.NewReader(c.body)); err != nil {
			t.Fatal(err)
		}
		layers, err := remote.Layers(t.Context(), r, []image.Digest{c.ask})
		if err != nil {
			t.Fatal(err)
		}
		if c.want == nil {
			if _, err := r.OpenRange(t.Context(), layers[0], 0, -1); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		size := int64(len(c.want))
		for _, at := range [][2]int64{{0, -1}, {0, 0}, {0, 1}, {1, 100}, {size - 1, -1}, {size - 1, 10}, {size, -1}, {size + 5, 3}, {0, size}, {7, size}} {
			body, err := r.OpenRange(t.Context(), layers[0], at[0], at[1])
			if err != nil {
				t.Errorf("%s, %v: %v", name, at, err)
				continue
			}
			from, to := min(at[0], size), size
			if at[1] >= 0 {
				to = min(size, from+at[1])
			}
			if got := all(t, body); !bytes.Equal(got, c.want[from:to]) {
				t.Errorf("%s, %v: %d bytes, want %d", name, at, len(got), to-from)
			}
		}
		if _, err := r.OpenRange(t.Context(), layers[0], -1, 5); err == nil {
			t.Errorf("%s: a negative offset", name)
		}
		remove(t, s, layers[0].Object)
		if _, err := r.OpenRange(t.Context(), layers[0], 0, 5); !fault.Is(err, fault.Damaged) {
			t.Errorf("%s: gone since: %v", name, err)
		}
	}
	if _, err := open(t, s, codec.LZ4).OpenRange(t.Context(), remote.Layer{Object: "run/sweep"}, 0, -1); err == nil {
		t.Error("it reads what is no layer")
	}
}
