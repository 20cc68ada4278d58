package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// store is a remote that gives layers at a pace, and counts.
type store struct {
	pace   time.Duration // for each mebibyte
	layers map[image.Digest][]byte

	mu       sync.Mutex
	tag      image.ID
	resolved int
	looks    int
	docs     int
	opens    map[image.Digest]int
	sent     int64
	fail     map[image.Digest]int64 // how many bytes come before an error
	change   func(layer image.Digest, open int, content []byte) []byte
}

func newStore(t testing.TB, pace time.Duration, sizes ...int) (s *store, order []image.Digest) {
	t.Helper()
	s = &store{pace: pace, layers: map[image.Digest][]byte{}, opens: map[image.Digest]int{}, fail: map[image.Digest]int64{}}
	for i, size := range sizes {
		b := make([]byte, size)
		random := rand.NewChaCha8([32]byte{byte(i)})
		_, _ = random.Read(b)
		id := image.DigestOf(b)
		s.layers[id] = b
		order = append(order, id)
	}
	return s, order
}

func (s *store) Resolve(context.Context, image.Reference) (image.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolved++
	return s.tag, nil
}

func (s *store) Document(_ context.Context, id image.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs++
	return []byte(id.Hex()), nil
}

func (s *store) Look(_ context.Context, c remote.Closure, _ map[image.Digest]remote.Layer) (*remote.Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	f := &remote.Found{Layers: map[image.Digest]remote.Layer{}}
	for _, id := range c.Layers {
		f.Layers[id] = s.layer(id)
	}
	return f, nil
}

func (s *store) References(context.Context, string) iter.Seq2[remote.Tag, error] {
	return func(func(remote.Tag, error) bool) {}
}

func (s *store) layer(id image.Digest) remote.Layer {
	return remote.Layer{Digest: id, Size: int64(len(s.layers[id]))}
}

var errRemote = errors.New("the remote has trouble")

func (s *store) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens[layer.Digest]++
	content := s.layers[layer.Digest]
	if s.change != nil {
		content = s.change(layer.Digest, s.opens[layer.Digest], content)
	}
	until, fails := s.fail[layer.Digest]
	if !fails {
		until = -1
	}
	return &paced{ctx: ctx, s: s, rest: content, until: until}, nil
}

type paced struct {
	ctx   context.Context
	s     *store
	rest  []byte
	until int64
}

func (p *paced) Read(b []byte) (int, error) {
	if p.until == 0 {
		return 0, errRemote
	}
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), len(p.rest), chunkSize)
	if p.until > 0 {
		n = min(n, int(p.until))
		p.until -= int64(n)
	}
	if sleep(p.ctx, p.s.pace*time.Duration(n)/chunkSize) != nil {
		return 0, p.ctx.Err()
	}
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.sent += int64(n)
	return n, nil
}

func (p *paced) Close() error { return nil }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// host reads as transfer does for an engine: three layers ahead, fed one by one.
type host struct {
	name   string
	id     string
	unwell error
	wait   time.Duration                            // before it says what it lacks
	before func(ctx context.Context, job Job) error // the same
	pace   time.Duration                            // for each mebibyte
	lacks  [][]image.Digest
	stop   int // after so many layers it fails
	silent bool

	got  [][]byte
	took time.Duration
	ids  []image.ID
}

func (h *host) Name() string { return h.name }
func (h *host) IsFed()       {}
func (h *host) Close() error { return nil }
func (h *host) Check(ctx context.Context) (string, error) {
	if h.silent {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return h.id, h.unwell
}

var errDied = fault.New(fault.Other, "the engine has died")

func (h *host) Pull(ctx context.Context, job Job) (results []transfer.Result, err error) {
	start := time.Now()
	defer func() { h.took = time.Since(start) }()
	for i, img := range job.Images {
		id, err := job.Source.Resolve(ctx, img.Source)
		if err != nil {
			return results, err
		}
		h.ids = append(h.ids, id)
		if job.Options.Verify != nil {
			if _, err := job.Options.Verify(ctx, img.Source, id); err != nil {
				return results, err
			}
		}
		if err := sleep(ctx, h.wait); err != nil {
			return results, err
		}
		if h.before != nil {
			if err := h.before(ctx, job); err != nil {
				return results, err
			}
		}
		var layers []remote.Layer
		if len(h.lacks[i]) > 0 {
			if layers, err = remote.Layers(ctx, job.Source, h.lacks[i]); err != nil {
				return results, err
			}
		}
		job.Options.Lacks(img, layers)
		if err := h.feed(ctx, job.Source, layers); err != nil {
			return results, err
		}
		results = append(results, transfer.Result{ID: id})
	}
	return results, nil
}

func (h *host) feed(ctx context.Context, from remote.Source, layers []remote.Layer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	streams := make([]chan []byte, len(layers))
	errs := make([]error, len(layers))
	slots := make(chan struct{}, 3)
	for i := range layers {
		streams[i] = make(chan []byte, 2)
	}
	running.Go(func() {
		for i, l := range layers {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer close(streams[i])
				r, err := from.Open(ctx, l)
				if err != nil {
					errs[i] = err
					return
				}
				defer r.Close()
				for {
					b := make([]byte, chunkSize)
					n, err := readFull(r, b)
					if n > 0 {
						select {
						case streams[i] <- b[:n]:
						case <-ctx.Done():
							errs[i] = ctx.Err()
							return
						}
					}
					if err == io.EOF {
						return
					}
					if err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
	})
	for i := range layers {
		if h.stop > 0 && len(h.got) == h.stop {
			return errDied
		}
		var all []byte
		for {
			var b []byte
			var ok bool
			select {
			case b, ok = <-streams[i]:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !ok {
				break
			}
			if err := sleep(ctx, h.pace*time.Duration(len(b))/chunkSize); err != nil {
				return err
			}
			all = append(all, b...)
		}
		if errs[i] != nil {
			return errs[i]
		}
		h.got = append(h.got, all)
		<-slots
	}
	return nil
}

func jobOf(t testing.TB, s *store, images int) Job {
	t.Helper()
	job := Job{Source: s}
	for i := range images {
		ref, err := image.ParseReference(fmt.Sprintf("app:%d", i))
		if err != nil {
			t.Fatal(err)
		}
		job.Images = append(job.Images, transfer.PullImage{Source: ref, Target: ref})
	}
	return job
}

func hostsOf(all []*host) (hosts []Host) {
	for i, h := range all {
		if h.name == "" {
			h.name = fmt.Sprintf("h%d", i)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// got fails the test unless a host has these layers.
func (h *host) has(t *testing.T, s *store, want ...image.Digest) {
	t.Helper()
	var got []image.Digest
	for _, b := range h.got {
		got = append(got, image.DigestOf(b))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s got %d layers, %v, want %v", h.name, len(got), got, want)
	}
	for i, id := range want {
		if i < len(h.got) && !bytes.Equal(h.got[i], s.layers[id]) {
			t.Errorf("%s: layer %d is another", h.name, i)
		}
	}
}

const mib = 1 << 20
