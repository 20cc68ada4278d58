package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// TestRoom: what does not fit waits until something is closed, and room is given
// back once, also of what could not be opened.
func TestRoom(t *testing.T) {
	s := New(Options{})
	const half = maxMemory/2 + 1
	nothing := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }
	failing := func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
	for range 10 {
		if _, err := s.whenRoom(t.Context(), half, failing); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	first, err := s.whenRoom(t.Context(), half, nothing)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.whenRoom(ctx, half, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("there is room for a second one: %v", err)
	}
	for range 2 {
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if one, err := s.whenRoom(t.Context(), 10*maxMemory, nothing); err != nil { // one alone may take more than all
		t.Fatal(err)
	} else if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if !s.room.free.TryAcquire(maxMemory) {
		t.Error("room was not given back")
	}
}

// TestNoRoom: who waits for room is told to come again after a while, and does not
// keep its turn for ever; whether it reads a layer or writes one.
func TestNoRoom(t *testing.T) {
	s := New(Options{StoreMemory: 1, WriteMemory: 1})
	s.room.wait, s.writing.wait = time.Nanosecond, time.Nanosecond
	for what, ask := range map[string]func() error{
		"reading": func() error {
			_, err := s.open(t.Context(), "app", remote.Layer{Size: 2})
			return err
		},
		"sending": func() error { return s.sendLayer(getting(t), remote.Layer{Size: 2}) },
		"writing": func() error {
			return s.store(t.Context(), image.Descriptor{Size: 2}, strings.NewReader("ab"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			for _, r := range []*room{s.room, s.writing} {
				release, err := r.take(t.Context(), r.most)
				if err != nil {
					t.Fatal(err)
				}
				defer release()
			}
			var failed *failure
			if err := ask(); !errors.As(err, &failed) || failed.status != http.StatusServiceUnavailable || failed.retry == 0 {
				t.Errorf("%v", err)
			}
			if s.room.waiting.Load()+s.writing.waiting.Load() != 0 {
				t.Error("somebody still waits")
			}
		})
	}
}

// getting is the request of a client that gets something.
func getting(t *testing.T) call {
	return call{w: httptest.NewRecorder(), r: httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)}
}

// one has one layer.
type one struct {
	remote.Source
	layer string
}

func (o one) Open(context.Context, remote.Layer) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(o.layer)), nil
}

// TestRoomOfClients: what a client takes is given back with its answer, whether it gets
// all of a layer or a part of it.
func TestRoomOfClients(t *testing.T) {
	const bytes = "bytes of a layer"
	s := New(Options{From: one{layer: bytes}})
	b := blob{layer: remote.Layer{Digest: image.DigestOf([]byte(bytes)), Size: int64(len(bytes))}}
	for range 2 {
		if err := s.sendLayer(getting(t), b.layer); err != nil {
			t.Error(err)
		}
		if err := s.sendPart(getting(t), b, part{2, 5}); err != nil {
			t.Error(err)
		}
	}
	if !s.room.free.TryAcquire(maxMemory) {
		t.Error("room was not given back")
	}
}

// TestSeats: clients alone do not fill the room, so that what they wait for is read.
func TestSeats(t *testing.T) {
	s := New(Options{})
	s.room.wait = time.Nanosecond
	seated := 0
	for ; seated <= maxMemory/pieceSize; seated++ {
		stand, err := s.room.sit(t.Context(), pieceSize)
		if err != nil {
			break
		}
		defer stand()
	}
	release, err := s.room.take(t.Context(), decodedMemory)
	if err != nil {
		t.Fatalf("%d clients leave no room for a layer: %v", seated, err)
	}
	release()
	if seated < maxMemory/pieceSize/2 {
		t.Errorf("there is room for %d clients", seated)
	}
}

// wide has a layer that asks for room when it is opened.
type wide struct{ one }

func (w wide) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	release, err := remote.RoomOf(ctx)(100 << 20)
	if err != nil {
		return nil, err
	}
	return &weighed{io.NopCloser(strings.NewReader(w.layer)), release}, nil
}

// TestWindows: what a layer takes beside what any takes is bounded, too: who finds no
// room is told to come again, and what is taken is given back, also of what was proved before.
func TestWindows(t *testing.T) {
	const bytes = "bytes of a layer"
	s := New(Options{From: wide{one{layer: bytes}}})
	s.windows.wait = time.Nanosecond
	layer := remote.Layer{Digest: image.DigestOf([]byte(bytes)), Size: int64(len(bytes))}
	for range 2 {
		release, err := s.windows.take(t.Context(), 100<<20)
		if err != nil {
			t.Fatal(err)
		}
		var failed *failure
		if err := s.sendLayer(getting(t), layer); !errors.As(err, &failed) || failed.status != http.StatusServiceUnavailable {
			t.Errorf("two of them: %v", err)
		}
		release()
		if err := s.sendLayer(getting(t), layer); err != nil {
			t.Errorf("one: %v", err)
		}
	}
}

// TestPace: who is slow may be so while nobody waits.
func TestPace(t *testing.T) {
	r := newRoom(1, time.Second)
	for what, c := range map[string]struct {
		n       int // bytes a second
		waiting int64
		slow    bool
	}{
		"slow, alone":          {1000, 0, false},
		"slow, others wait":    {1000, 1, true},
		"a little too slow":    {leastTaken - 1, 1, true},
		"fast enough":          {leastTaken, 1, false},
		"takes nothing at all": {0, 1, true},
	} {
		r.waiting.Store(c.waiting)
		p, slow := r.pace(leastTaken), false
		for range 100 {
			slow = slow || p.tooSlow(c.n, time.Second)
		}
		if slow != c.slow {
			t.Errorf("%s: %v", what, slow)
		}
	}
	// What was fast once has to stay so, and who waited in vain meanwhile counts too.
	r.waiting.Store(0)
	p := r.pace(leastTaken)
	if p.tooSlow(1<<40, paceWindow) || p.tooSlow(1, paceWindow) {
		t.Error("too slow, and nobody waits")
	}
	r.waits.Add(1)
	if !p.tooSlow(1, paceWindow) || p.tooSlow(1, paceWindow) {
		t.Error("who has waited meanwhile does not count once")
	}
}

// TestSlowClient: an answer is broken off, and a body refused, where its client is too
// slow while others wait, and only then.
func TestSlowClient(t *testing.T) {
	for _, waiting := range []int64{0, 1} {
		s := New(Options{})
		s.room.window, s.writing.window = 1, 1
		s.room.waiting.Store(waiting)
		s.writing.waiting.Store(waiting)
		want := error(nil)
		if waiting > 0 {
			want = errSlow
		}
		c := call{w: slowWriter{httptest.NewRecorder()}, r: httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)}
		pace := s.room.pace(leastTaken)
		err := s.write(c, []byte("a"), &pace)
		if err == nil {
			err = s.write(c, []byte("b"), &pace)
		}
		if err != want {
			t.Errorf("%d wait: an answer ends with %v", waiting, err)
		}
		body := &paced{slowReader{strings.NewReader("abc")}, s.writing.pace(leastGiven)}
		if _, err := io.Copy(io.Discard, body); err != want {
			t.Errorf("%d wait: a body ends with %v", waiting, err)
		}
	}
}

type slowWriter struct{ http.ResponseWriter }

func (w slowWriter) Write(p []byte) (int, error) {
	<-time.After(time.Millisecond) // at least: a byte in it is too slow
	return w.ResponseWriter.Write(p)
}

type slowReader struct{ r io.Reader }

func (r slowReader) Read(p []byte) (int, error) {
	<-time.After(time.Millisecond)
	return r.r.Read(p[:1])
}

// TestMemoryOfALayer: what comes from a cache takes nothing of the store, and what is
// stored encoded is decoded, whatever somebody has written down of its sizes.
func TestMemoryOfALayer(t *testing.T) {
	there := remote.Layer{Digest: image.DigestOf([]byte("there"))}
	s := New(Options{StoreMemory: 1000, Cached: func(_ context.Context, l remote.Layer) bool { return l.Digest == there.Digest }})
	if n := s.memoryOf(t.Context(), there); n != 0 {
		t.Errorf("a layer in the cache takes %d bytes", n)
	}
	if n := s.memoryOf(t.Context(), remote.Layer{}); n != 1000 {
		t.Errorf("a layer takes %d bytes", n)
	}
	for _, c := range []struct {
		layer remote.Layer
		plain bool
	}{
		{remote.Layer{Size: 5, Stored: 5, Object: "images/0/layer.tar"}, true},
		{remote.Layer{Size: 5, Stored: 5, Object: "images/0/blob"}, true},
		{remote.Layer{Size: 5, Stored: 6, Object: "images/0/blob"}, false},
		{remote.Layer{Size: 5, Stored: 5, Object: "images/0/layer.tar.zst"}, false},
		{remote.Layer{Size: 5, Stored: 5, Object: "images/0/layer.tar.lz4"}, false},
		{remote.Layer{Size: 5, Stored: 5, Object: "images/1/blob", Packed: there.Digest}, false},
	} {
		if got := isPlain(c.layer); got != c.plain {
			t.Errorf("%+v is plain: %v", c.layer, got)
		}
	}
}

// TestLimited: a body may be as long as it may, and no byte longer.
func TestLimited(t *testing.T) {
	for _, most := range []int64{0, 4, 5, 6} {
		got, err := io.ReadAll(&limited{strings.NewReader("bytes"), most})
		if tooLarge := most < 5; errors.Is(err, image.ErrTooLarge) != tooLarge || !tooLarge && err != nil || int64(len(got)) != min(most, 5) {
			t.Errorf("of 5 bytes, at most %d: %q, %v", most, got, err)
		}
	}
}
