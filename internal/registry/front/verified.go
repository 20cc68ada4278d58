package front

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// maxVerified bounds the passwords that are remembered as right.
const maxVerified = 1024

// verified remembers which passwords were right: comparing one by bcrypt takes a
// processor for as long as it takes to serve a thousand requests. It keeps a keyed
// hash of name, bcrypt's hash and password, no password. With another hash in the file the
// password is another; a user who is taken out is not asked for here.
type verified struct {
	key [32]byte // random, of this process

	mu  sync.Mutex
	was map[proof]struct{}
}

type proof [sha256.Size]byte

func newVerified() *verified {
	v := &verified{was: map[proof]struct{}{}}
	_, _ = rand.Read(v.key[:]) // never fails
	return v
}

func (v *verified) proof(name string, hash []byte, password string) (p proof) {
	h := hmac.New(sha256.New, v.key[:])
	for _, part := range [][]byte{[]byte(name), hash, []byte(password)} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	h.Sum(p[:0])
	return p
}

func (v *verified) has(p proof) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.was[p]
	return ok
}

// add remembers p, for any other where there are too many.
func (v *verified) add(p proof) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.was) >= maxVerified {
		for other := range v.was {
			delete(v.was, other)
			break
		}
	}
	v.was[p] = struct{}{}
}
