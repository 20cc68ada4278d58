package transfer

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// fetch opens the layers in order, o.Parallel at once, and returns their
// streams. Closing a stream makes room for the next layer.
func (p *pull) fetch(ctx context.Context, g *errgroup.Group, ids []image.Digest) map[image.Digest]*stream {
	streams := make(map[image.Digest]*stream, len(ids))
	slots := make(chan struct{}, p.o.Parallel)
	for _, d := range ids {
		s := newStream(int(max(1, p.o.Ahead/chunkSize)))
		s.onGone = func() {
			select {
			case <-slots:
			default: // it never got its place
			}
		}
		streams[d] = s
	}
	g.Go(func() error {
		for _, d := range ids {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error { return p.fetchLayer(ctx, p.layers[d], streams[d]) })
		}
		return nil
	})
	return streams
}

func (p *pull) fetchLayer(ctx context.Context, layer remote.Layer, s *stream) error {
	as := p.sent(layer.Digest)
	bar := p.o.Progress.Layer(layer.Digest.Short(), as.Size)
	tar, err := p.deltas.open(ctx, p.from, as)
	if err != nil {
		tar = io.NopCloser(failing{err})
	}
	defer tar.Close()
	if err := s.fill(ctx, tar, bar.Add); err != nil {
		bar.Fail()
		if errors.Is(err, errReaderGone) {
			return nil // who went away says why
		}
		return err
	}
	bar.Done()
	return nil
}

// failing is a reader that gives an error alone.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
