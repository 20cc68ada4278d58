package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const gzipTar = "application/vnd.oci.image.layer.v1.tar+gzip"

// kept is a layer in one of the ways in which a repository can keep it.
type kept struct {
	as    image.Descriptor // as a copy asks for it
	store *mem.Store       // has it, and nothing else
}

// keptLayers has a layer in every way.
func keptLayers(t *testing.T, tar []byte) map[string]kept {
	t.Helper()
	all := map[string]kept{}
	plain := image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}
	add := func(name string, c codec.Codec, put image.Descriptor, b []byte, as image.Descriptor) {
		s := mem.New()
		if _, err := open(t, s, c).PutLayer(t.Context(), put, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		all[name] = kept{as, s}
	}
	for _, c := range []codec.Codec{codec.None, codec.LZ4, codec.Zstd} {
		add(c.Name(), c, plain, tar, plain)
	}
	zipped := gzipped(t, tar)
	blob := image.Descriptor{MediaType: gzipTar, Digest: image.DigestOf(zipped), Size: int64(len(zipped))}
	add("blob", codec.LZ4, blob, zipped, blob)
	add("alias", codec.LZ4, blob, zipped, plain)
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`)
	other := image.Descriptor{MediaType: "application/vnd.in-toto+json", Digest: image.DigestOf(statement), Size: int64(len(statement))}
	add("no tar", codec.LZ4, other, statement, other)
	bare := plain // as another program might: a tar that is kept as a blob
	bare.MediaType = "application/octet-stream"
	add("tar in a blob", codec.LZ4, bare, tar, plain)
	return all
}

// carry moves a layer as a copy does. It returns what the source has and what the target got.
func (k kept) carry(ctx context.Context, t *testing.T, to storage.Store, wrap func(io.Reader) io.Reader) (remote.Layer, remote.Layer, error) {
	t.Helper()
	from, target := open(t, k.store, codec.LZ4), open(t, to, codec.Zstd)
	found, err := remote.Layers(ctx, from, []image.Digest{k.as.Digest})
	if err != nil {
		return remote.Layer{}, remote.Layer{}, err
	}
	stored, err := from.OpenStored(ctx, found[0])
	if err != nil {
		return remote.Layer{}, remote.Layer{}, err
	}
	defer stored.Body.Close()
	if wrap != nil {
		stored.Body = io.NopCloser(wrap(stored.Body))
	}
	as := k.as
	as.Size = found[0].Size
	got, err := target.PutStored(ctx, as, stored)
	return found[0], got, err
}

// TestStored moves a layer that is kept in each way: the other side then has the same objects.
func TestStored(t *testing.T) {
	for _, size := range []int{0, 1, 1024, 3<<20 + 1} {
		for name, k := range keptLayers(t, remotetest.Noise("stored", size)) {
			for how, wrap := range map[string]func(io.Reader) io.Reader{
				"as it comes": nil, "a byte at a time": iotest.OneByteReader, "with its end": iotest.DataErrReader,
			} {
				if how == "a byte at a time" && size > 1024 {
					continue
				}
				to := mem.New()
				was, got, err := k.carry(t.Context(), t, to, wrap)
				if err != nil {
					t.Errorf("%s of %d bytes, %s: %v", name, size, how, err)
					continue
				}
				if got.Digest != was.Digest || got.Size != was.Size || got.Stored != was.Stored || got.Object != was.Object {
					t.Errorf("%s of %d bytes: it was %+v, and is %+v", name, size, was, got)
				}
				same(t, fmt.Sprintf("%s of %d bytes, %s", name, size, how), k.store, to)
			}
		}
	}
}

// same fails the test unless two stores have the same objects.
func same(t *testing.T, what string, a, b storage.Store) {
	t.Helper()
	want, got := tree(t, a), tree(t, b)
	for key, content := range want {
		if !bytes.Equal(got[key], content) {
			t.Errorf("%s: %s is %.80q, not %.80q", what, key, got[key], content)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: %s is there too", what, key)
		}
	}
}

// handed counts the bytes that a store is given.
type handed struct {
	storage.Store
	n int
}

func (h *handed) Put(ctx context.Context, key string, body io.Reader) error {
	if !strings.Contains(key, "/layer.tar") && !strings.HasSuffix(key, "/blob") {
		return h.Store.Put(ctx, key, body)
	}
	b, err := io.ReadAll(body)
	h.n = len(b)
	if err != nil {
		return err
	}
	return h.Store.Put(ctx, key, bytes.NewReader(b))
}

// TestStoredDamage damages what is stored in every way. None of it is published,
// and the store never gets as many bytes as there are.
func TestStoredDamage(t *testing.T) {
	text := []byte(strings.Repeat("some text that compresses. ", 40))
	told := 0
	for name, k := range keptLayers(t, text) {
		object, content := "", []byte(nil)
		for key, b := range tree(t, k.store) {
			if strings.Contains(key, "/layer.tar") || strings.HasSuffix(key, "/blob") {
				object, content = key, b
			}
		}
		try := func(how string, damaged []byte) {
			t.Helper()
			put(t, k.store, object, damaged)
			to := &handed{Store: mem.New()}
			_, _, err := k.carry(t.Context(), t, to, nil)
			var wrong *remote.StoredError
			if !errors.As(err, &wrong) {
				t.Errorf("%s, %s: %v, want a StoredError", name, how, err)
				return
			}
			told++
			if left := keys(t, to, ""); len(left) > 0 {
				t.Errorf("%s, %s: %q is there", name, how, left)
			}
			if to.n >= len(damaged) && len(damaged) > 0 {
				t.Errorf("%s, %s: the store got all %d bytes", name, how, to.n)
			}
		}
		decodes := func(damaged []byte) bool { // to the same: then nothing is wrong
			if !strings.Contains(object, "/layer.tar") {
				return false
			}
			r := codecOf(t, object).Decode(bytes.NewReader(damaged))
			defer r.Close()
			b, err := io.ReadAll(r)
			return err == nil && bytes.Equal(b, text)
		}
		for i := range content {
			damaged := bytes.Clone(content)
			damaged[i] ^= 1 << (i % 8)
			if !decodes(damaged) {
				try(fmt.Sprintf("byte %d is flipped", i), damaged)
			}
			if i%7 == 0 && !decodes(content[:i]) {
				try(fmt.Sprintf("it ends after %d bytes", i), content[:i])
			}
		}
		try("a byte follows", append(bytes.Clone(content), 0))
		if !decodes(append(bytes.Clone(content), content...)) {
			try("it comes twice", append(bytes.Clone(content), content...))
		}
	}
	t.Logf("%d damages told", told)
	if told < 1000 {
		t.Errorf("only %d damages were told", told)
	}
}

// TestStoredBomb: what decodes to far more than its json says ends early.
func TestStoredBomb(t *testing.T) {
	for _, c := range []codec.Codec{codec.LZ4, codec.Zstd} {
		zeros := io.LimitReader(zero{}, 64<<20)
		bomb := all(t, c.Encode(zeros))
		id := image.DigestOf([]byte("such"))
		body := &counting{r: bytes.NewReader(bomb)}
		to := mem.New()
		_, err := open(t, to, codec.LZ4).PutStored(t.Context(), image.Descriptor{Digest: id, Size: 10},
			remote.Stored{File: "layer.tar" + c.Extension(), Size: int64(len(bomb)), Body: io.NopCloser(iotest.OneByteReader(body))})
		var wrong *remote.StoredError
		if !errors.As(err, &wrong) {
			t.Errorf("%s: %v", c, err)
		}
		if c == codec.LZ4 && body.n > len(bomb)/2 {
			t.Errorf("%s: %d of %d bytes were read", c, body.n, len(bomb))
		}
		if left := keys(t, to, ""); len(left) > 0 {
			t.Errorf("%s: %q is there", c, left)
		}
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// TestStoredAliasLies: a blob is what its name says, and has another layer in it
// than the alias says.
func TestStoredAliasLies(t *testing.T) {
	right, wrong := remotetest.FileLayer(t, "right", "right"), remotetest.FileLayer(t, "wrong", "wrong")
	k := keptLayers(t, wrong)["alias"]
	zipped := gzipped(t, wrong)
	lie := image.DigestOf(right)
	put(t, k.store, "images/"+lie.Hex()+"/json", fmt.Appendf(nil, `{"diffID":%q,"size":%d,"blob":%q}`, lie, len(right), image.DigestOf(zipped)))
	k.as = image.Descriptor{Digest: lie, Size: int64(len(right))}
	to := mem.New()
	_, _, err := k.carry(t.Context(), t, to, nil)
	var stored *remote.StoredError
	if !errors.As(err, &stored) {
		t.Errorf("got %v, want a StoredError", err)
	}
	if lies := keys(t, to, "images/"+lie.Hex()); len(lies) > 0 {
		t.Errorf("%q is there", lies)
	}
}

// TestStoredRefusals: what is not kept so is refused before anything is read.
func TestStoredRefusals(t *testing.T) {
	tar := remotetest.FileLayer(t, "a", "a")
	plain := image.Descriptor{Digest: image.DigestOf(tar), Size: int64(len(tar))}
	zipped := plain
	zipped.MediaType = gzipTar
	for _, test := range []struct {
		file string
		as   image.Descriptor
	}{{"layer.tar.xz", plain}, {"", plain}, {"../../VERSION", plain}, {"json", plain}, {"layer.tar.lz4", zipped}, {"layer.tar", zipped}} {
		to := mem.New()
		body := &counting{r: bytes.NewReader(tar)}
		_, err := open(t, to, codec.LZ4).PutStored(t.Context(), test.as, remote.Stored{File: test.file, Size: 1, Body: io.NopCloser(body)})
		if !errors.Is(err, errors.ErrUnsupported) || body.n > 0 || len(keys(t, to, "")) > 0 {
			t.Errorf("%q as %q: %v, %d bytes were read", test.file, test.as.MediaType, err, body.n)
		}
	}
}

// TestStoredFailures: a source or a store that fails is not damage.
func TestStoredFailures(t *testing.T) {
	broken := errors.New("connection reset")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, k := range keptLayers(t, remotetest.Noise("failing", 100<<10)) {
		to := mem.New()
		_, _, err := k.carry(t.Context(), t, to, func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 50<<10), iotest.ErrReader(broken))
		})
		var wrong *remote.StoredError
		if !errors.Is(err, broken) || errors.As(err, &wrong) {
			t.Errorf("%s: the source breaks: %v", name, err)
		}
		if left := keys(t, to, ""); len(left) > 0 {
			t.Errorf("%s: %q is there", name, left)
		}
		full := &refusing{to}
		if _, _, err := k.carry(t.Context(), t, full, nil); !errors.Is(err, storage.ErrNoSpace) || errors.As(err, &wrong) || fault.AdviceOf(err) == "" {
			t.Errorf("%s: the store is full: %v", name, err)
		}
		found, err := remote.Layers(t.Context(), open(t, k.store, codec.LZ4), []image.Digest{k.as.Digest})
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := open(t, k.store, codec.LZ4).OpenStored(ended, found[0]); err == nil {
			_, err = open(t, to, codec.LZ4).PutStored(ended, k.as, stored)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: cancelled: %v", name, err)
			}
		}
		remove(t, k.store, found[0].Object)
		if _, err := open(t, k.store, codec.LZ4).OpenStored(t.Context(), found[0]); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), found[0].Object) {
			t.Errorf("%s: the object is gone: %v", name, err)
		}
	}
}

// refusing is a store without room.
type refusing struct{ storage.Store }

func (refusing) Put(context.Context, string, io.Reader) error { return storage.ErrNoSpace }

// TestStoredReplaced: a store that notices that an object was replaced says so in
// words that others understand.
func TestStoredReplaced(t *testing.T) {
	k := keptLayers(t, remotetest.FileLayer(t, "a", "a"))["lz4"]
	r := open(t, changing{k.store}, codec.LZ4)
	found, err := remote.Layers(t.Context(), open(t, k.store, codec.LZ4), []image.Digest{k.as.Digest})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := r.OpenStored(t.Context(), found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Body.Close()
	if _, err := io.ReadAll(stored.Body); !errors.Is(err, remote.ErrReplaced) {
		t.Errorf("got %v", err)
	}
}

// changing is a store whose objects are replaced while they are read.
type changing struct{ storage.Store }

func (c changing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if !strings.Contains(key, "/layer.tar") {
		return c.Store.Get(ctx, key, offset, length)
	}
	return io.NopCloser(iotest.ErrReader(storage.ErrChanged)), nil
}
