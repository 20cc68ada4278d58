package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
)

// shelf has one layer, which it opens as often as it is asked to.
type shelf struct {
	layer  []byte
	prints *fingerprints
	opened atomic.Int64
	closed atomic.Int64

	// change, if any, is what an opening, counted from 1, is to read instead.
	change func(opening int64) io.Reader
	known  bool // whether a later opening recognises the layer
}

func newShelf(n int) *shelf {
	layer := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(layer) // it never fails
	return &shelf{layer: layer, prints: newFingerprints()}
}

func (s *shelf) id() image.Digest { return image.DigestOf(s.layer) }

func (s *shelf) open(_ context.Context, first int) (*pieceReader, error) {
	from := io.Reader(bytes.NewReader(s.layer))
	if opening := s.opened.Add(1); s.change != nil {
		from = s.change(opening)
	}
	r := &pieceReader{id: s.id(), prints: s.prints, damage: func(err error) error { return err }}
	if known, ok := s.prints.of.get(s.id()); ok && s.known {
		r.known = known
	} else {
		from = image.Verify(from, s.id(), -1)
	}
	r.from = counted{from, &s.closed}
	return r, nil
}

type counted struct {
	io.Reader
	closed *atomic.Int64
}

func (c counted) Close() error {
	c.closed.Add(1)
	return nil
}

// rest reads all that a member has before it.
func rest(ctx context.Context, m *member) (got []byte, err error) {
	for {
		b, err := m.next(ctx)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, b...)
	}
}

// ended checks that nothing is left of a sharing that nobody uses.
func ended(t *testing.T, s *sharing, from *shelf) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.of) > 0 || s.spare != allPieces {
		t.Errorf("%d layers are being read, and there is room for %d pieces of %d", len(s.of), s.spare, allPieces)
	}
	if from.opened.Load() != from.closed.Load() {
		t.Errorf("%d were opened, and %d closed", from.opened.Load(), from.closed.Load())
	}
}

// TestShared: a layer is read once for all who want it, whole, of any size, and what
// is known afterwards is what each piece is recognised by.
func TestShared(t *testing.T) {
	for _, n := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 40*pieceSize + 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s, from := newSharing(), newShelf(n)
			var members []*member
			for range 20 {
				members = append(members, s.enter(t.Context(), from.id(), from.open))
			}
			var g errgroup.Group
			for _, m := range members {
				g.Go(func() error {
					defer m.leave()
					for number := 0; ; number++ { // side by side, so that nobody is left behind
						b, err := m.next(t.Context())
						if err == io.EOF && number*pieceSize >= n {
							return nil
						}
						at := min(number*pieceSize, n)
						if want := from.layer[at:min(at+pieceSize, n)]; err != nil || !bytes.Equal(b, want) {
							return fmt.Errorf("piece %d: %d bytes, %w", number, len(b), err)
						}
					}
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if opened := from.opened.Load(); n <= latePieces*pieceSize && opened != 1 {
				t.Errorf("it was opened %d times", opened)
			}
			ended(t, s, from)
			known, ok := from.prints.of.get(from.id())
			if !ok || known.size != int64(n) || len(known.pieces) != (n+pieceSize-1)/pieceSize {
				t.Errorf("%+v is known of it", known)
			}
		})
	}
}

// TestLeftBehind: who does not keep up holds nobody up and keeps no more than may be
// kept, and gets the same bytes in the end, from a reading that others join.
func TestLeftBehind(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprint(known), func(t *testing.T) {
			s, from := newSharing(), newShelf((mostPieces+10)*pieceSize)
			from.known = known
			fast := s.enter(t.Context(), from.id(), from.open)
			var slow []*member
			var got [][]byte
			for i := range 3 {
				m := s.enter(t.Context(), from.id(), from.open)
				slow, got = append(slow, m), append(got, nil)
				for range i * 2 {
					b, err := m.next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					got[i] = append(got[i], b...)
				}
			}
			for whole := 0; ; {
				b, err := fast.next(t.Context())
				whole += len(b)
				s.mu.Lock()
				if kept := len(fast.in.kept); kept > mostPieces || s.spare < 0 {
					t.Errorf("%d pieces are kept, and there is room for %d", kept, s.spare)
				}
				s.mu.Unlock()
				if err == io.EOF && whole == len(from.layer) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			fast.leave()
			var g errgroup.Group
			for i, m := range slow {
				g.Go(func() error {
					defer m.leave()
					b, err := rest(t.Context(), m)
					if got[i] = append(got[i], b...); err == nil && !bytes.Equal(got[i], from.layer) {
						err = fmt.Errorf("member %d got %d other bytes", i, len(got[i]))
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if from.opened.Load() < 2 {
				t.Error("nobody was left behind")
			}
			ended(t, s, from)
		})
	}
}

// TestMixed: what comes from two readings makes no whole where one of them has read
// something else, whichever that is.
func TestMixed(t *testing.T) {
	for wrong := int64(1); wrong <= 2; wrong++ {
		s, from := newSharing(), newShelf((mostPieces+10)*pieceSize)
		from.change = func(opening int64) io.Reader {
			b := bytes.Clone(from.layer)
			if opening == wrong {
				b[5]++
			}
			return bytes.NewReader(b)
		}
		fast, slow := s.enter(t.Context(), from.id(), from.open), s.enter(t.Context(), from.id(), from.open)
		if _, err := slow.next(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := rest(t.Context(), fast)
		if right := wrong != 1; (err == nil) != right {
			t.Errorf("reading %d is wrong, and the first ends with %v", wrong, err)
		}
		if _, err := rest(t.Context(), slow); err == nil {
			t.Errorf("reading %d is wrong, and who has read a part of both has a whole", wrong)
		}
		fast.leave()
		slow.leave()
		ended(t, s, from)
	}
}

// TestSharedFailure: all who read hear of a failure, behind what came before it; who
// comes later tries again.
func TestSharedFailure(t *testing.T) {
	s, from := newSharing(), newShelf(5*pieceSize)
	broken, all := errors.New("the disk is broken"), make(chan struct{})
	from.change = func(opening int64) io.Reader {
		if opening > 1 {
			return bytes.NewReader(from.layer)
		}
		return io.MultiReader(bytes.NewReader(from.layer[:2*pieceSize]), failing{all, broken})
	}
	var members []*member
	for range 5 {
		members = append(members, s.enter(t.Context(), from.id(), from.open))
	}
	close(all)
	for _, m := range members {
		got, err := rest(t.Context(), m)
		if !errors.Is(err, broken) || !bytes.Equal(got, from.layer[:len(got)]) || len(got) < pieceSize {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if _, ok := from.prints.of.get(from.id()); ok {
		t.Error("what was not read to its end is known")
	}
	late := s.enter(t.Context(), from.id(), from.open)
	if got, err := rest(t.Context(), late); err != nil || !bytes.Equal(got, from.layer) {
		t.Errorf("later: %d bytes, %v", len(got), err)
	}
	for _, m := range append(members, late) {
		m.leave()
	}
	ended(t, s, from)
}

// failing fails when it is to.
type failing struct {
	when <-chan struct{}
	err  error
}

func (f failing) Read([]byte) (int, error) {
	<-f.when
	return 0, f.err
}

// TestLeave: who goes does not end what others read; when the last one has gone, a
// read that hangs has ended.
func TestLeave(t *testing.T) {
	s := newSharing()
	ctx, cancel := context.WithCancel(t.Context())
	hanging := make(chan struct{})
	open := func(ctx context.Context, _ int) (*pieceReader, error) {
		close(hanging)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	id := image.DigestOf(nil)
	first, second := s.enter(ctx, id, open), s.enter(t.Context(), id, open)
	<-hanging
	cancel()
	if _, err := first.next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone gets %v", err)
	}
	first.leave()
	select {
	case <-second.in.done:
		t.Error("the reading has ended with the one who began it")
	default:
	}
	second.leave()
	select {
	case <-second.in.done:
	default:
		t.Error("the reading goes on without anybody")
	}
	if len(s.of) > 0 || s.spare != allPieces {
		t.Errorf("%d layers are left", len(s.of))
	}
}

// TestWaitedFor: who is first waits, where there is no place for another piece, for
// those behind who are quick, or no slower than he is, and for no others.
func TestWaitedFor(t *testing.T) {
	const ms = time.Millisecond
	for what, c := range map[string]struct {
		kept        int // pieces, of which the member behind has none yet
		first, last time.Duration
		ahead       int // pieces that who is first has before him
		spare       int
		now, again  bool
	}{
		"quick":                     {mostPieces, 1, fastEnough - ms, 0, allPieces, false, true},
		"slow line":                 {mostPieces, ms, 100 * ms, 0, allPieces, true, false},
		"all are slow":              {mostPieces, 90 * ms, 100 * ms, 0, allPieces, false, true},
		"there is place":            {mostPieces - 1, ms, ms, 0, allPieces, true, false},
		"nothing to spare":          {ownPieces, ms, ms, 0, 0, false, true},
		"slow, nothing to spare":    {ownPieces, ms, 100 * ms, 0, 0, true, false},
		"own place":                 {ownPieces - 1, ms, ms, 0, 0, true, false},
		"there is enough before it": {mostPieces, ms, 100 * ms, aheadPieces, allPieces, false, false},
	} {
		s := newSharing()
		s.spare = c.spare
		first := &member{number: c.kept - c.ahead, busy: 10 * c.first, pieces: 10}
		last := &member{busy: 10 * c.last, pieces: 10}
		r := &reading{sharing: s, kept: make([]*piece, c.kept), members: map[*member]bool{first: true, last: true}}
		if now, again := r.wanted(); now != c.now || again != c.again {
			t.Errorf("%s: %v, %v", what, now, again)
		}
	}
}

// TestFailedIsNoOther: who waits for a piece waits for his own reading, where the only
// other one that has the piece has failed, and he cannot join it.
func TestFailedIsNoOther(t *testing.T) {
	s := newSharing()
	own := &reading{sharing: s, first: 2, grown: make(chan struct{})}
	other := &reading{sharing: s, kept: make([]*piece, 5)}
	s.of[own.id] = []*reading{own, other}
	for _, failed := range []error{nil, io.EOF, errors.New("damaged")} {
		other.err = failed
		m := &member{in: own, number: 2}
		_, wait, err := m.take()
		if goesOn := failed == nil || failed == io.EOF; err != nil || (wait == nil) != goesOn {
			t.Errorf("the other one ends with %v: waits: %v, %v", failed, wait != nil, err)
		}
	}
}

// TestLinger: what was opened stays open, and is reckoned, as long as something of it is
// kept for somebody.
func TestLinger(t *testing.T) {
	s, from := newSharing(), newShelf(3)
	m := s.enter(t.Context(), from.id(), from.open)
	for end := false; !end; { // until all is read
		s.mu.Lock()
		end = m.in.err == io.EOF
		s.mu.Unlock()
		runtime.Gosched()
	}
	if b, err := m.next(t.Context()); err != nil || len(b) != 3 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if from.closed.Load() != 0 {
		t.Error("it is closed already")
	}
	m.leave()
	ended(t, s, from)
}

// TestManyShare: members that come, go, hurry and dawdle as they like.
func TestManyShare(t *testing.T) {
	s, from := newSharing(), newShelf(40*pieceSize+77)
	from.known = true
	var wait sync.WaitGroup
	for i := range 40 {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		wait.Go(func() {
			m := s.enter(t.Context(), from.id(), from.open)
			defer m.leave()
			stop := r.IntN(100)
			for n := 0; ; {
				b, err := m.next(t.Context())
				if err == io.EOF && n == len(from.layer) || stop == n/pieceSize {
					return
				}
				if err != nil || !bytes.Equal(b, from.layer[n:n+len(b)]) {
					t.Errorf("at %d: %d other bytes, %v", n, len(b), err)
					return
				}
				n += len(b)
				for range r.IntN(3) * r.IntN(1000) { // no time that somebody waits for
					_ = r.Uint64()
				}
			}
		})
	}
	wait.Wait()
	ended(t, s, from)
}
