package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
)

// parted is a layer that a registry has in a blob of zstd, and the blob.
type parted struct {
	server *registrytest.Server
	proxy  *registrytest.Proxy
	from   *client.Repository
	layer  remote.Layer
	blob   []byte
}

func newParted(t *testing.T, server registrytest.Options, change func(*client.Options)) *parted {
	t.Helper()
	s := registrytest.Start(t, server)
	p := &parted{server: s, proxy: registrytest.NewProxy(t, s)}
	p.from = open(t, p.proxy.Host, func(o *client.Options) {
		o.Compression = client.Zstd
		if change != nil {
			change(o)
		}
	}).In("app").(*client.Repository)
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(rand.IntN(200))
	}
	l := enginetest.NewLayer(enginetest.File("a", 0o644, string(content)))
	id, err := image.ParseDigest(l.DiffID())
	if err != nil {
		t.Fatal(err)
	}
	if p.layer, err = p.from.PutLayer(t.Context(), image.Descriptor{Digest: id, Size: l.Size()}, l.Open()); err != nil {
		t.Fatal(err)
	}
	if p.blob, err = os.ReadFile(s.Blob(p.layer.Packed)); err != nil {
		t.Fatal(err)
	}
	p.proxy.Rule(nil)
	return p
}

// read reads a part; its reader may fail, too.
func (p *parted) read(ctx context.Context, offset, n int64) ([]byte, error) {
	body, err := p.from.OpenPart(ctx, p.layer, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// TestParts: any part of a blob comes as it is, also where connections break, and the blob ends with the index of the layer.
func TestParts(t *testing.T) {
	for name, server := range map[string]registrytest.Options{"3": {}, "2.8": {Debian: true}} {
		t.Run(name, func(t *testing.T) {
			p := newParted(t, server, nil)
			size := int64(len(p.blob))
			check := func(what string) {
				t.Helper()
				for _, part := range [][2]int64{{0, 1}, {0, size}, {1, 100_000}, {size - 300_000, 300_000}, {size - 10, 100}, {size, 5}, {5, 0}} {
					want := p.blob[part[0]:min(part[0]+part[1], size)]
					if got, err := p.read(t.Context(), part[0], part[1]); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s, %v: %d bytes, error %v, want %d", what, part, len(got), err, len(want))
					}
				}
			}
			check("as it is")
			var cuts atomic.Int64
			p.proxy.Rule(func(r *http.Request) registrytest.Fault {
				if r.Method == http.MethodGet && cuts.Add(1)%2 == 1 {
					return registrytest.Fault{CutResponse: 50_000}
				}
				return registrytest.Fault{}
			})
			check("where it is cut")
			x, err := chunk.Read(t.Context(), func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
				return p.from.OpenPart(ctx, p.layer, offset, n)
			}, p.layer.Stored)
			if err != nil || x.Size != p.layer.Size {
				t.Errorf("index %+v, error %v", x, err)
			}
		})
	}
}

// TestNoParts: what gives no parts says so, as soon as it is known without a request.
func TestNoParts(t *testing.T) {
	unsupported := func(t *testing.T, p *parted, requests int) {
		t.Helper()
		p.proxy.Rule(func(r *http.Request) registrytest.Fault {
			r.Header.Del("Range") // who passes it on knows none
			return registrytest.Fault{}
		})
		for range 2 {
			if got, err := p.read(t.Context(), 100, 1000); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
		}
		if n := len(p.proxy.Requests()); n != requests {
			t.Errorf("%q, want %d requests", p.proxy.Requests(), requests)
		}
	}
	t.Run("no ranges", func(t *testing.T) {
		p := newParted(t, registrytest.Options{}, nil)
		unsupported(t, p, 1)
		body, err := p.from.Open(t.Context(), p.layer) // the whole is there all the same
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if n, err := io.Copy(io.Discard, body); n != p.layer.Size || err != nil {
			t.Errorf("%d bytes, error %v", n, err)
		}
	})
	t.Run("gzip", func(t *testing.T) {
		unsupported(t, newParted(t, registrytest.Options{}, func(o *client.Options) { o.Compression = client.Gzip }), 0)
	})
	t.Run("a blob itself", func(t *testing.T) {
		p := newParted(t, registrytest.Options{}, nil)
		p.layer = remote.Layer{Digest: p.layer.Packed, Size: p.layer.Stored, Stored: p.layer.Stored, Object: p.layer.Object}
		unsupported(t, p, 0)
	})
	t.Run("without an index", func(t *testing.T) {
		p := newParted(t, registrytest.Options{}, func(o *client.Options) { o.NoIndex = true })
		_, err := chunk.Read(t.Context(), func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
			return p.from.OpenPart(ctx, p.layer, offset, n)
		}, p.layer.Stored)
		if !errors.Is(err, chunk.ErrNone) {
			t.Errorf("error %v", err)
		}
	})
}

// TestPartsFail: failures are told as those of whole layers are, and other bytes than were asked for are none.
func TestPartsFail(t *testing.T) {
	p := newParted(t, registrytest.Options{}, nil)
	p.proxy.Rule(func(r *http.Request) registrytest.Fault {
		r.Header.Set("Range", "bytes=7-99")
		return registrytest.Fault{}
	})
	if got, err := p.read(t.Context(), 100, 1000); err == nil || !strings.Contains(err.Error(), "another part") {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	p.proxy.Rule(func(r *http.Request) registrytest.Fault {
		r.Header.Set("Range", "bytes=100-") // more than was asked for
		return registrytest.Fault{}
	})
	if got, err := p.read(t.Context(), 100, 1000); err != nil || !bytes.Equal(got, p.blob[100:1100]) {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	p.proxy.Rule(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: http.StatusForbidden} })
	if _, err := p.read(t.Context(), 100, 1000); !fault.Is(err, fault.Refused) {
		t.Errorf("error %v, want a refusal", err)
	}
	p.proxy.Rule(func(*http.Request) registrytest.Fault { return registrytest.Fault{StallResponse: 50_000} })
	ended, cancel := context.WithCancel(t.Context())
	body, err := p.from.OpenPart(ended, p.layer, 0, p.layer.Stored)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: error %v", err)
	}
	p.proxy.Rule(nil)
	p.server.Forget(t, "app", p.layer.Packed)
	if _, err := p.read(t.Context(), 100, 1000); !fault.Is(err, fault.Damaged) {
		t.Errorf("error %v, want that it is missing", err)
	}
}
