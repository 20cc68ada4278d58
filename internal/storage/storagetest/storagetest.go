// Package storagetest proves that a storage.Store keeps to its contract (Run),
// and breaks one on purpose (Faulty) to prove that its users survive it.
package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/storage"
)

// Harness says how to reach a store and what it can do. What it does not
// declare is not skipped: the suite proves that the store refuses it clearly.
type Harness struct {
	// Open returns an empty target. It is called once for each test, of a Brief harness by
	// several at once, and cleans up with t.Cleanup.
	Open func(t *testing.T) Target

	// Create: the store is a storage.Creator. Without it, it must not have the method.
	Create bool

	// Swap: the store is a storage.Swapper. Without it, it must not have the method.
	Swap bool

	// Remove: the store is a storage.Remover. Without it, it must not have the method.
	Remove bool

	// Ranges: Get takes any offset and length. Without it, everything but
	// (0, -1) gets errors.ErrUnsupported.
	Ranges bool

	// ReadOnly: the store can only be read, and fails to write with
	// errors.ErrUnsupported. Target.Fill writes what is read.
	ReadOnly bool

	// Unlisted: List yields errors.ErrUnsupported, and nothing else. For stores that are
	// ReadOnly.
	Unlisted bool

	// Conflicts: "a" beside "a/b" gets ErrConflict. Without it, both live side by side.
	Conflicts bool

	// Large is the size, in bytes, of the largest objects: more than the
	// store moves at once (its buffers, parts, blocks). Zero means 9 MiB and a byte.
	Large int

	// Many is how many objects the large listing has. Zero means 2,500: more than two pages of most servers.
	Many int

	// Slow: each operation starts a process, or the like. Races have fewer rounds then, and what does not depend on each
	// other is done at once.
	Slow bool

	// Brief leaves out the races, what is large and what breaks off at any moment, and
	// runs the other tests at once. For stores whose whole suite runs elsewhere.
	Brief bool
}

// Target is one place opened twice, as two processes would, or two hosts.
type Target struct {
	A, B storage.Store

	// Leftovers returns what is there that is no object: temporary files, open
	// uploads. Nil where a store cannot have any.
	Leftovers func(t *testing.T) []string

	// Fill puts an object there from behind, for a store that is ReadOnly. Nil for others.
	Fill func(t *testing.T, key string, body []byte)
}

type test struct {
	name string
	run  func(*suite)
}

// brief are the tests of a Harness that is Brief.
var brief = []string{"not found", "ranges", "odd keys", "failing body", "create", "swap", "remove", "list", "delete", "conflict", "guard"}

// Run proves what storage.Store, storage.Creator, storage.Swapper and storage.Remover
// promise. Its tests run one after the other, unless the harness is Brief.
func Run(t *testing.T, h Harness) {
	if h.Large == 0 {
		h.Large = 9<<20 + 1
	}
	if h.Many == 0 {
		h.Many = 2500
	}
	tests := []test{
		{"not found", (*suite).notFound},
		{"round trip", (*suite).roundTrip},
		{"ranges", (*suite).ranges},
		{"odd keys", (*suite).oddKeys},
		{"invalid keys", (*suite).invalidKeys},
		{"failing body", (*suite).failingBody},
		{"cancelled", (*suite).cancelled},
		{"overwrite under a reader", (*suite).overwriteUnderReader},
		{"concurrent overwriters", (*suite).concurrentOverwriters},
		{"readers beside an overwriter", (*suite).readersBesideOverwriter},
		{"create", (*suite).create},
		{"create race", (*suite).createRace},
		{"create failing", (*suite).createFailing},
		{"swap", (*suite).swap},
		{"swap race", (*suite).swapRace},
		{"swap chain", (*suite).swapChain},
		{"swap cancelled", (*suite).swapCancelled},
		{"remove", (*suite).remove},
		{"remove race", (*suite).removeRace},
		{"remove beside put", (*suite).removeBesidePut},
		{"remove beside swap", (*suite).removeBesideSwap},
		{"remove cancelled", (*suite).removeCancelled},
		{"list", (*suite).list},
		{"list many", (*suite).listMany},
		{"list while writing", (*suite).listWhileWriting},
		{"delete", (*suite).delete},
		{"delete beside put", (*suite).deleteBesidePut},
		{"conflict", (*suite).conflict},
		{"guard", (*suite).guard},
	}
	if h.ReadOnly {
		tests = readOnlyTests
	}
	for _, test := range tests {
		if h.Brief && !slices.Contains(brief, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			if h.Brief {
				t.Parallel()
			}
			s := &suite{T: t, Harness: h, Target: h.Open(t)}
			test.run(s)
			s.noLeftovers()
		})
	}
}

// suite is one test's view of its target.
type suite struct {
	*testing.T
	Harness
	Target
}

func (s *suite) ctx() context.Context { return s.T.Context() }

// rounds is how often something is tried that takes n tries on a quick store.
func (s *suite) rounds(n int) int {
	if s.Slow {
		return max(n/10, 3)
	}
	return n
}

// each does something for each of n things that do not depend on each other.
func (s *suite) each(n int, do func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		if s.Slow {
			group.Go(func() { do(i) })
		} else {
			do(i)
		}
	}
	group.Wait()
}

func (s *suite) noLeftovers() {
	s.Helper()
	if s.Leftovers == nil {
		return
	}
	if left := s.Leftovers(s.T); len(left) > 0 {
		s.Errorf("left over: %q", left)
	}
}

func (s *suite) put(key string, body []byte) {
	s.Helper()
	if s.Fill != nil {
		s.Fill(s.T, key, body)
		return
	}
	if err := s.A.Put(s.ctx(), key, bytes.NewReader(body)); err != nil {
		s.Fatalf("put %s: %v", key, err)
	}
}

// putAll writes objects of 100 bytes, each its own.
func (s *suite) putAll(keys []string) {
	s.Helper()
	s.each(len(keys), func(i int) {
		if err := s.A.Put(s.ctx(), keys[i], bytes.NewReader(bytesOf(i, 100))); err != nil {
			s.Errorf("put %s: %v", keys[i], err)
		}
	})
}

// content reads key from store, all of it.
func (s *suite) content(store storage.Store, key string) ([]byte, error) {
	r, err := store.Get(s.ctx(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// holds fails the test unless key, seen from both sides, has that content.
func (s *suite) holds(key string, want []byte) {
	s.Helper()
	for i, store := range []storage.Store{s.A, s.B} {
		got, err := s.content(store, key)
		if err != nil {
			s.Errorf("get %s by store %d: %v", key, i, err)
			continue
		}
		if !bytes.Equal(got, want) {
			s.Errorf("get %s by store %d: %d bytes (%x…), want %d (%x…)", key, i, len(got), head(got), len(want), head(want))
		}
		info, err := store.Stat(s.ctx(), key)
		if err != nil {
			s.Errorf("stat %s by store %d: %v", key, i, err)
			continue
		}
		if info.Key != key || info.Size != int64(len(want)) || info.Modified.IsZero() {
			s.Errorf("stat %s by store %d: %+v, want %d bytes and a time", key, i, info, len(want))
		}
	}
}

// absent fails the test unless nothing is under key, seen from both sides.
func (s *suite) absent(key string) {
	s.Helper()
	for i, store := range []storage.Store{s.A, s.B} {
		if r, err := store.Get(s.ctx(), key, 0, -1); !errors.Is(err, storage.ErrNotFound) {
			if err == nil {
				_ = r.Close()
			}
			s.Errorf("get %s by store %d: %v, want ErrNotFound", key, i, err)
		}
		if _, err := store.Stat(s.ctx(), key); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("stat %s by store %d: %v, want ErrNotFound", key, i, err)
		}
	}
}

// keys lists prefix.
func (s *suite) keys(store storage.Store, prefix string) []string {
	s.Helper()
	keys := []string{}
	for info, err := range store.List(s.ctx(), prefix) {
		if err != nil {
			s.Errorf("list %q: %v", prefix, err)
			return nil
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// lists fails the test unless listing prefix gives these keys in byte order.
func (s *suite) lists(prefix string, want ...string) {
	s.Helper()
	want = slices.Sorted(slices.Values(want))
	for i, store := range []storage.Store{s.A, s.B} {
		if diff := cmp.Diff(append([]string{}, want...), s.keys(store, prefix)); diff != "" {
			s.Errorf("list %q by store %d (-want +got):\n%s", prefix, i, diff)
		}
	}
}

// bytesOf returns size bytes that do not compress, the same for the same seed.
func bytesOf(seed, size int) []byte {
	b := make([]byte, size)
	var chacha [32]byte
	binary.LittleEndian.PutUint64(chacha[:], uint64(seed))
	_, _ = rand.NewChaCha8(chacha).Read(b)
	return b
}

func head(b []byte) []byte { return b[:min(len(b), 8)] }
