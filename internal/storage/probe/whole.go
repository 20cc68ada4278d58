package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

// overwrite proves that readers beside a writer get one whole object or an
// error, never a mix, and that an object is not gone while it is replaced.
func (p *probe) overwrite(ctx context.Context) (string, error) {
	const name, writes = "overwrite/object", 20
	bodies := [][]byte{bytesOf(1, 200_000), bytesOf(2, 100_000), bytesOf(3, 300_000)}
	if err := p.put(ctx, p.a, name, bodies[0]); err != nil {
		return "", err
	}
	var group errgroup.Group
	var whole atomic.Int64
	var last atomic.Value // the last error that a reader may have
	stop := make(chan struct{})
	for i := range 3 {
		group.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				default:
				}
				got, err := p.content(ctx, p.side(i), name)
				switch {
				case errors.Is(err, storage.ErrNotFound):
					return fmt.Errorf("an object is gone for a moment while it is replaced: %w", err)
				case err != nil:
					last.Store(err.Error())
				case !isOneOf(got, bodies):
					return errors.New("a reader got a mix of the old object and the new one")
				default:
					whole.Add(1)
				}
			}
		})
	}
	var writeErr error
	for i := range writes {
		if writeErr = p.put(ctx, p.a, name, bodies[(i+1)%len(bodies)]); writeErr != nil {
			break
		}
	}
	for deadline := time.Now().Add(time.Second); whole.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // the writes were too quick for the readers
	}
	close(stop)
	if err := group.Wait(); err != nil {
		return "", err
	}
	if writeErr != nil {
		return "", writeErr
	}
	if whole.Load() == 0 {
		return "", fmt.Errorf("no reader got an object: %v", last.Load())
	}
	return fmt.Sprintf("%d overwrites, no reader got a mix", writes), nil
}

func isOneOf(got []byte, bodies [][]byte) bool {
	for _, body := range bodies {
		if bytes.Equal(got, body) {
			return true
		}
	}
	return false
}

var errBody = errors.New("upload broken off on purpose")

// broken is a body of size bytes that then calls end, and breaks off with its error.
func broken(size int64, end func() error) io.Reader {
	return io.MultiReader(io.LimitReader(random(4), size), endReader(end))
}

type endReader func() error

func (r endReader) Read([]byte) (int, error) { return 0, r() }

// failedUpload proves that a body which breaks off, or whose context ends, changes nothing.
func (p *probe) failedUpload(ctx context.Context) (string, error) {
	old := []byte("old content")
	if err := p.put(ctx, p.a, "failed/old", old); err != nil {
		return "", err
	}
	for _, size := range []int64{0, 1000, p.part + p.part/8} {
		for _, name := range []string{"failed/old", "failed/new"} {
			err := p.writing(name, func(key string) error {
				return p.a.Put(ctx, key, broken(size, func() error { return errBody }))
			})
			if err := p.unchanged(ctx, err, errBody, size, old); err != nil {
				return "", err
			}
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	err := p.writing("failed/new", func(key string) error {
		return p.a.Put(cancelled, key, broken(1000, func() error {
			cancel()
			return io.EOF
		}))
	})
	if err := p.unchanged(ctx, err, context.Canceled, 1000, old); err != nil {
		return "", err
	}
	return "a broken-off upload changes nothing", nil
}

// unchanged returns an error unless a write failed with want, and changed nothing.
func (p *probe) unchanged(ctx context.Context, err, want error, size int64, old []byte) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("an upload broken off after %d bytes ends with: %w", size, orNil(err))
	}
	if err := p.absent(ctx, p.a, "failed/new", fmt.Sprintf("an upload broken off after %d bytes left an object", size)); err != nil {
		return err
	}
	if err := p.holds(ctx, p.a, "failed/old", old); err != nil {
		return fmt.Errorf("an upload broken off after %d bytes has changed the old object: %w", size, err)
	}
	return nil
}

// large moves an object of more than two parts there and back.
func (p *probe) large(ctx context.Context) (string, error) {
	const name = "large/object"
	size := 2*p.part + p.part/2
	err := p.writing(name, func(key string) error {
		return p.a.Put(ctx, key, io.LimitReader(random(5), size))
	})
	if err != nil {
		return "", err
	}
	r, err := p.a.Get(ctx, p.prefix+name, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	want := io.LimitReader(random(5), size)
	got, expected := make([]byte, 256<<10), make([]byte, 256<<10)
	for at := 0; ; {
		n, err := io.ReadFull(r, got)
		m, _ := io.ReadFull(want, expected)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return "", err
		}
		if !bytes.Equal(got[:n], expected[:m]) {
			return "", fmt.Errorf("what came back is not what was written, from byte %d on at the latest", at+min(n, m))
		}
		if at += n; err != nil {
			return fmt.Sprintf("%d MB there and back, in parts where the store has them", at/1_000_000), nil
		}
	}
}
