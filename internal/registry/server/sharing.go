package server

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// sharing lets those who want a layer at about the same time read it together: it is
// read, decoded and proved once, and sent many times. What has been read is kept for
// those behind. Who is there too late, or is much slower than others, begins a reading
// of his own, which others may join in their turn. It is safe for concurrent use.
type sharing struct {
	mu    sync.Mutex
	of    map[image.Digest][]*reading
	spare int       // how many pieces readings may keep beside those that each one may
	free  sync.Pool // of *piece
}

// In pieces: what each reading may keep, what it may keep at most while there is enough
// of what all may keep beside, and how far it reads ahead of the first of its members.
// The beginning of a layer stays for late members until the first one is so far.
const (
	ownPieces   = 4
	mostPieces  = 32
	allPieces   = 96
	aheadPieces = 3
	latePieces  = 16
)

// A member that has a piece for longer than fastEnough, on average, and slowFactor times
// as long as the one who is first, is not waited for: it has a slow line. Where it is the
// processor that all wait for, all have their pieces about as long. It is looked at so
// often while others wait.
const (
	fastEnough = 4 * time.Millisecond
	slowFactor = 4
	lookAgain  = 20 * time.Millisecond
)

func newSharing() *sharing {
	return &sharing{of: map[image.Digest][]*reading{}, spare: allPieces, free: sync.Pool{New: func() any { return new(piece) }}}
}

// piece is some bytes of a layer.
type piece struct {
	bytes [pieceSize]byte
	n     int
	uses  int // of those who read it, and one while it is kept; guarded by sharing.mu
}

// reading is a layer that is being read. All but open and done is guarded by sharing.mu.
type reading struct {
	sharing *sharing
	id      image.Digest
	open    func(ctx context.Context, first int) (*pieceReader, error)
	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing is read any more

	first   int           // the number of the first piece that is kept
	kept    []*piece      // those from there on
	seen    []fingerprint // of all pieces from the beginning of the layer on
	err     error         // what comes after the last piece that is kept
	grown   chan struct{} // closed and replaced when there is more, or err
	moved   chan struct{} // gets something when a member has moved
	members map[*member]bool
}

// member is somebody who reads a layer with others. One goroutine uses it.
type member struct {
	in     *reading
	number int // of the next piece
	held   *piece

	took   time.Time     // when it got what it holds, or came
	busy   time.Duration // how long it had all that it held before
	pieces int           // how many these were

	// before are the fingerprints of what came from another reading. The reading that
	// proves the end has to have read the same.
	before []fingerprint
}

// errMixed says that two readings of a layer are not of the same bytes.
var errMixed = errors.New("it was read twice, and not with the same bytes")

// enter returns a member that has all of a layer before it. The caller calls leave.
func (s *sharing) enter(ctx context.Context, id image.Digest, open func(ctx context.Context, first int) (*pieceReader, error)) *member {
	m := &member{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.join(ctx, m, id, open)
	return m
}

// join lets a member of none read on in the reading that is the furthest of those that
// have its next piece, or come to it, and begins one where there is none.
func (s *sharing) join(ctx context.Context, m *member, id image.Digest, open func(ctx context.Context, first int) (*pieceReader, error)) {
	var best *reading
	for _, r := range s.of[id] {
		if r.first <= m.number && m.number <= r.end() && !r.failed() && (best == nil || r.end() > best.end()) {
			best = r
		}
	}
	if best == nil {
		best = &reading{
			sharing: s, id: id, open: open, first: m.number,
			done: make(chan struct{}), grown: make(chan struct{}), moved: make(chan struct{}, 1), members: map[*member]bool{},
		}
		// Whoever comes first may go first.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		best.cancel = cancel
		s.of[id] = append(s.of[id], best)
		go best.run(own)
	}
	m.in, m.took = best, time.Now()
	best.members[m] = true
}

// failed reports whether a reading has come to something else than its end: nobody
// joins it any more.
func (r *reading) failed() bool { return r.err != nil && r.err != io.EOF }

// end is the number of the piece behind the last one that is kept.
func (r *reading) end() int { return r.first + len(r.kept) }

// next returns the bytes that come next, until it is called again or the member
// leaves. The error is io.EOF behind the last ones of a layer that is proved.
func (m *member) next(ctx context.Context) ([]byte, error) {
	for {
		b, wait, err := m.take()
		if b != nil || err != nil {
			return b, err
		}
		if wait == nil {
			m.change(ctx)
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take returns the next bytes, or what to wait for. It returns neither where another
// reading has them, or this one has them no more.
func (m *member) take() (b []byte, wait <-chan struct{}, err error) {
	r := m.in
	s := r.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	m.giveBack()
	if m.number < r.first {
		return nil, nil, nil
	}
	if m.before != nil && (r.err == io.EOF || len(r.seen) >= m.number) {
		if len(r.seen) < m.number || !slices.Equal(m.before, r.seen[:m.number]) {
			return nil, nil, errMixed
		}
		m.before = nil
	}
	if m.number < r.end() {
		m.held = r.kept[m.number-r.first]
		m.held.uses++
		m.took = time.Now()
		m.number++
		r.trim()
		return m.held.bytes[:m.held.n], nil, nil
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	for _, other := range s.of[r.id] {
		if other != r && other.first <= m.number && m.number < other.end() && !other.failed() {
			return nil, nil, nil
		}
	}
	return nil, r.grown, nil
}

// change goes on in another reading.
func (m *member) change(ctx context.Context) {
	old := m.in
	s := old.sharing
	s.mu.Lock()
	if m.before == nil {
		m.before = old.seen[:m.number:m.number]
	}
	delete(old.members, m)
	s.join(ctx, m, old.id, old.open)
	ended := old.endIfLast()
	s.mu.Unlock()
	if ended {
		<-old.done
	}
}

// leave ends what enter began. The last one waits until nothing is read any more.
func (m *member) leave() {
	r := m.in
	s := r.sharing
	s.mu.Lock()
	m.giveBack()
	delete(r.members, m)
	ended := r.endIfLast()
	s.mu.Unlock()
	if ended {
		<-r.done
	}
}

func (m *member) giveBack() {
	if m.held != nil {
		m.busy += time.Since(m.took)
		m.pieces++
		m.in.sharing.release(m.held)
		m.held = nil
	}
}

// each is how long the member has had a piece, on average.
func (m *member) each() time.Duration {
	busy, pieces := m.busy, m.pieces
	if m.held != nil || pieces == 0 {
		busy, pieces = busy+time.Since(m.took), pieces+1
	}
	return busy / time.Duration(max(pieces, 1))
}

func (s *sharing) release(p *piece) {
	if p.uses--; p.uses == 0 {
		s.free.Put(p)
	}
}

// fingerprints returns those of the pieces that were read.
func (r *reading) fingerprints() []fingerprint {
	r.sharing.mu.Lock()
	defer r.sharing.mu.Unlock()
	return r.seen
}

// endIfLast ends a reading that has no members, so that nobody joins it any more.
func (r *reading) endIfLast() bool {
	if len(r.members) > 0 {
		r.trim()
		return false
	}
	r.cancel()
	for len(r.kept) > 0 {
		r.drop()
	}
	s := r.sharing
	s.of[r.id] = slices.DeleteFunc(s.of[r.id], func(other *reading) bool { return other == r })
	if len(s.of[r.id]) == 0 {
		delete(s.of, r.id)
	}
	return true
}

// drop forgets the first piece that is kept.
func (r *reading) drop() {
	if len(r.kept) > ownPieces {
		r.sharing.spare++
	}
	r.sharing.release(r.kept[0])
	r.kept[0] = nil
	r.kept = r.kept[1:]
	r.first++
}

// trim forgets what nobody needs, and tells that a member has moved.
func (r *reading) trim() {
	slowest, fastest := r.pace()
	for r.first < slowest && (r.first > 0 || fastest > latePieces) {
		r.drop()
	}
	select {
	case r.moved <- struct{}{}:
	default: // it is to look anyway
	}
}

// pace returns the numbers of the next pieces of the slowest and the fastest member.
func (r *reading) pace() (slowest, fastest int) {
	slowest = r.end()
	for m := range r.members {
		slowest, fastest = min(slowest, m.number), max(fastest, m.number)
	}
	return slowest, fastest
}

// isFull reports whether another piece takes the place of the oldest one.
func (r *reading) isFull() bool {
	return len(r.kept) >= mostPieces || len(r.kept) >= ownPieces && r.sharing.spare == 0
}

// wanted reports whether another piece is to be read now. If not, and that may change
// though nobody moves, again is true.
func (r *reading) wanted() (now, again bool) {
	r.sharing.mu.Lock()
	defer r.sharing.mu.Unlock()
	slowest, fastest := r.pace()
	if r.end() >= fastest+aheadPieces {
		return false, false
	}
	if !r.isFull() || slowest > r.first {
		return true, false
	}
	first := time.Duration(math.MaxInt64) // how long who is first has a piece
	for m := range r.members {
		if m.number == fastest {
			first = min(first, m.each())
		}
	}
	for m := range r.members {
		if each := m.each(); m.number == r.first && (each < fastEnough || each/slowFactor < first) {
			return false, true
		}
	}
	return true, false
}

// run reads until the end, or until no member is left.
func (r *reading) run(ctx context.Context) {
	defer close(r.done)
	defer r.cancel()
	first := r.first
	from, err := r.open(ctx, first)
	if err != nil {
		r.add(nil, nil, err)
		return
	}
	defer from.from.Close()
	for err == nil {
		p := r.place(ctx)
		if p == nil {
			return
		}
		wanted := from.next >= first
		p.n, err = from.fill(p.bytes[:])
		if p.n == 0 || !wanted {
			r.sharing.free.Put(p)
			p = nil
		}
		r.add(p, from.seen, err)
	}
	r.linger(ctx)
}

// linger waits until nothing is kept any more: so long that takes memory, which is
// reckoned as that of what was opened.
func (r *reading) linger(ctx context.Context) {
	for r.keeps() {
		select {
		case <-r.moved:
		case <-ctx.Done():
			return
		}
	}
}

func (r *reading) keeps() bool {
	r.sharing.mu.Lock()
	defer r.sharing.mu.Unlock()
	return len(r.kept) > 0
}

// place waits until another piece is wanted, and returns where to read it. It returns
// nil when none is any more.
func (r *reading) place(ctx context.Context) *piece {
	for {
		if ctx.Err() != nil {
			return nil
		}
		now, again := r.wanted()
		if now {
			p := r.sharing.free.Get().(*piece)
			p.uses = 1
			return p
		}
		var later <-chan time.Time
		if again {
			later = time.After(lookAgain)
		}
		select {
		case <-r.moved:
		case <-later:
		case <-ctx.Done():
		}
	}
}

// add lets members read a piece, if there is one, and tells them of an error behind it.
// Those who still need the oldest one are left behind where there is no place for both.
func (r *reading) add(p *piece, seen []fingerprint, err error) {
	s := r.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(r.members) == 0 { // and nothing is kept any more
		if p != nil {
			s.release(p)
		}
		return
	}
	if p != nil {
		if r.isFull() {
			r.drop()
		}
		if len(r.kept) >= ownPieces {
			s.spare--
		}
		r.kept = append(r.kept, p)
	}
	r.seen, r.err = seen, err
	close(r.grown)
	r.grown = make(chan struct{})
}
