package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
)

// wire counts what comes from a registry.
type wire struct{ received atomic.Int64 }

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wiredConn{c, w}, nil
}

type wiredConn struct {
	net.Conn
	w *wire
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.received.Add(int64(n))
	return n, err
}

// registryWorld is a registry with two releases in zstd, an engine that has neither, and another machine's memory.
type registryWorld struct {
	server   *registrytest.Server
	host     string
	wire     wire
	engine   *classic
	keeper   *keeper
	one, two *enginetest.Image
	o        Options
	said     *recorder
}

func newRegistryWorld(t *testing.T, server registrytest.Options) *registryWorld {
	t.Helper()
	w := &registryWorld{server: registrytest.Start(t, server), said: &recorder{}}
	w.host = w.server.Host
	w.one, w.two = releases()
	for _, m := range []*enginetest.Image{w.one, w.two} {
		copyIn(t, m, registryAt(t, w.host, "", client.Zstd).In("much"))
	}
	w.engine = newClassic()
	w.keeper = &keeper{Client: w.engine.connect(t)}
	w.o = Options{Delta: DeltaAlways, leastDelta: 1 << 10, Progress: w.said, CacheDir: t.TempDir()}
	return w
}

// registry opens it as a run on a machine does that has pushed nothing.
func (w *registryWorld) registry(t *testing.T) *client.Registry {
	t.Helper()
	address, err := client.Parse("registry://" + w.host)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Open(client.Options{Address: address, Name: "registry://" + w.host, Dial: w.wire.dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// pull pulls an image, proves that it has come, and returns its layer with the release, and how much came for it.
func (w *registryWorld) pull(t *testing.T, to Loader, m *enginetest.Image) (LayerResult, int64) {
	t.Helper()
	w.wire.received.Store(0)
	w.said.notes = nil
	results, err := Pull(t.Context(), w.registry(t), to, pulls(t, m.Tags()[0]), w.o)
	if err != nil {
		t.Fatal(err)
	}
	id, i := w.engine.find(m.Tags()[0])
	if i == nil || id.String() != m.ID() || !bytes.Equal(i.layers[1], layerOf(m).Bytes()) {
		t.Errorf("the engine has %q, want %s", w.engine.names(), m.ID())
	}
	return results[0].Layers[1], w.wire.received.Load()
}

// TestDeltaOfRegistry: a pull remembers the index of the first release, and the second one is put together out of that,
// also into engines that take no zstd: how large the layer is says its index.
func TestDeltaOfRegistry(t *testing.T) {
	for name, server := range map[string]registrytest.Options{"3": {}, "2.8": {Debian: true}} {
		t.Run(name, func(t *testing.T) {
			w := newRegistryWorld(t, server)
			first, all := w.pull(t, w.keeper, w.one)
			if first.Local != 0 || all < first.Stored {
				t.Errorf("the first release: %+v, and %d bytes came", first, all)
			}
			w.keeper.tars = [][]byte{layerOf(w.one).Bytes()}
			w.o.DryRun = true
			would, err := Pull(t.Context(), w.registry(t), w.keeper, pulls(t, "much:2"), w.o)
			if err != nil || would[0].Layers[1].Local == 0 {
				t.Fatalf("a dry run: %+v, %v", would, err)
			}
			w.o.DryRun = false
			got, came := w.pull(t, w.keeper, w.two)
			if want := int64(releaseSize * releaseFiles); got.Local < want*6/10 || got.Size != layerOf(w.two).Size() || came > all/4 || got.Fetched > came {
				t.Errorf("%+v, and %d bytes came, of the first release %d", got, came, all)
			}
			if d := would[0].Layers[1]; d.Local != got.Local || d.Size != got.Size {
				t.Errorf("a dry run said %+v, and it was %+v", d, got)
			}
			if len(w.said.notes) > 0 {
				t.Errorf("notes: %q", w.said.notes)
			}
			w.engine = newClassic(w.one)
			w.keeper.Client = w.engine.connect(t)
			if got, came := w.pull(t, unpackingKeeper{w.keeper}, w.two); got.Local == 0 || came > all/4 {
				t.Errorf("an engine that would take the blob: %+v, and %d bytes came", got, came)
			}
		})
	}
}

type unpackingKeeper struct{ *keeper }

func (unpackingKeeper) Unpacks(string) bool { return true }

// TestDeltaOfRegistryIsNotWanted: where there are no ranges, no relatives, no index, and where it is told not to, the blob is read
// as before: once to know how large the tar is, for an engine that takes no zstd, and once to send it.
func TestDeltaOfRegistryIsNotWanted(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, w *registryWorld){
		"never":              func(_ *testing.T, w *registryWorld) { w.o.Delta = DeltaNever },
		"no relatives":       func(_ *testing.T, w *registryWorld) { w.keeper.tars = nil },
		"nothing remembered": func(_ *testing.T, w *registryWorld) { w.o.CacheDir = "" },
		"no ranges": func(t *testing.T, w *registryWorld) {
			proxy := registrytest.NewProxy(t, w.server)
			proxy.Rule(func(r *http.Request) registrytest.Fault {
				r.Header.Del("Range")
				return registrytest.Fault{}
			})
			w.host = proxy.Host
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRegistryWorld(t, registrytest.Options{})
			w.pull(t, w.keeper, w.one)
			w.keeper.tars = [][]byte{layerOf(w.one).Bytes()}
			change(t, w)
			got, came := w.pull(t, w.keeper, w.two)
			if got.Local != 0 || got.Fetched != 0 || len(w.said.notes) > 0 {
				t.Errorf("%+v, notes %q", got, w.said.notes)
			}
			if came < 2*got.Stored || came > got.Stored*22/10 {
				t.Errorf("%d bytes came of %d", came, got.Stored)
			}
		})
	}
}

// TestDeltaOfBlobs: who takes layers as they are compressed gets none that is put together, and nothing is asked for that.
func TestDeltaOfBlobs(t *testing.T) {
	w := newRegistryWorld(t, registrytest.Options{})
	p := &pull{from: w.registry(t).In("much"), to: w.keeper, o: w.o.withDefaults(), image: pulls(t, "much:2")[0]}
	id, err := p.from.Resolve(t.Context(), p.image.Source)
	if err != nil {
		t.Fatal(err)
	}
	if p.tree, err = remote.ReadTree(t.Context(), p.from, id, nil); err != nil {
		t.Fatal(err)
	}
	for _, l := range p.tree.Layers() {
		p.order = append(p.order, l.Digest)
	}
	found, err := p.from.Look(t.Context(), remote.Closure{Layers: p.order}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.layers = found.Layers
	if d := p.newDeltas(p.order); len(p.layers) != 2 || d != nil {
		t.Errorf("%d layers, %+v", len(p.layers), d)
	}
}

// TestDeltaOfRegistryIsMisled: an index that says another size, in a blob that is what its manifest says: the engine gets
// the right layer, whole.
func TestDeltaOfRegistryIsMisled(t *testing.T) {
	w := newRegistryWorld(t, registrytest.Options{})
	w.pull(t, w.keeper, w.one)
	w.keeper.tars = [][]byte{layerOf(w.one).Bytes()}
	w.forge(t)
	got, _ := w.pull(t, w.keeper, w.two)
	if notes := strings.Join(w.said.notes, "\n"); !strings.Contains(notes, "an index in the remote is wrong") {
		t.Errorf("notes %q", notes)
	}
	if got.Local != 0 || !got.Moved {
		t.Errorf("%+v", got)
	}
}

// forge replaces the blob of the second release by one of which the index is another layer's.
func (w *registryWorld) forge(t *testing.T) {
	t.Helper()
	at := firstRelease.Add(time.Hour)
	encode := func(entries []enginetest.Entry) []byte {
		encoded := chunk.Encode(codec.Zstd, bytes.NewReader(enginetest.NewLayer(entries...).Bytes()))
		defer encoded.Close()
		b, err := io.ReadAll(encoded)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	right := encode(release(at, 17))
	other := encode(append(release(at, 17), enginetest.File("srv/more", 0o644, strings.Repeat("more ", 100_000))))
	frames, lies := framesOf(t, right).Stored, framesOf(t, other).Stored
	forged := codec.AppendSkippable(slices.Clone(right[:frames]), 0, make([]byte, lies-frames-codec.SkippableHeader))
	forged = append(forged, other[lies:]...)

	in := w.registry(t).In("much")
	put := registryAt(t, w.host, "", client.Zstd).In("much")
	id, err := in.Resolve(t.Context(), reference(t, "much:2"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := in.Document(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	was := m.Layers[1]
	as := image.Descriptor{MediaType: was.MediaType, Digest: image.DigestOf(forged), Size: int64(len(forged))}
	if _, err := put.PutLayer(t.Context(), as, bytes.NewReader(forged)); err != nil {
		t.Fatal(err)
	}
	doc = bytes.ReplaceAll(doc, []byte(was.Digest.String()), []byte(as.Digest.String()))
	doc = bytes.ReplaceAll(doc, fmt.Appendf(nil, `"size":%d`, was.Size), fmt.Appendf(nil, `"size":%d`, as.Size))
	if err := put.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	if err := put.Tag(t.Context(), reference(t, "much:2"), image.DigestOf(doc)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.server.Blob(as.Digest)); err != nil {
		t.Fatal(err)
	}
}
