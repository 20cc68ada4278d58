package client

import (
	"sync"

	"github.com/dogestry/dogestry/internal/image"
)

// shelf holds documents that were read or put in this run, those of all repositories
// of a registry together: the last ones, as many as fit. They are asked for again
// where they have gone. It is safe for concurrent use.
type shelf struct {
	mu    sync.Mutex
	docs  map[shelved][]byte
	order []shelved // oldest first
	held  int       // bytes
}

type shelved struct {
	in *Repository
	id image.Digest
}

// mostDocs bounds the documents that are held, in bytes.
const mostDocs = 64 << 20

func (s *shelf) get(in *Repository, id image.Digest) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.docs[shelved{in, id}]
}

func (s *shelf) put(in *Repository, id image.Digest, doc []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := shelved{in, id}
	if s.docs[key] != nil || len(doc) > mostDocs {
		return
	}
	if s.docs == nil {
		s.docs = map[shelved][]byte{}
	}
	for s.held += len(doc); s.held > mostDocs; s.order = s.order[1:] {
		s.held -= len(s.docs[s.order[0]])
		delete(s.docs, s.order[0])
	}
	s.docs[key], s.order = doc, append(s.order, key)
}
