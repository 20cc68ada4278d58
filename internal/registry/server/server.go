// Package server answers the requests of registry clients (OCI distribution
// specification 1.1) out of any remote: docker, containerd, Podman, skopeo and
// others pull from a directory or a bucket, and push to it.
//
// It keeps nothing that another process would need: any server over the same
// remote answers any request.
package server

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Writable is a remote that clients can push to. One that has remote.Sessions is
// written to in a session for each request.
type Writable interface {
	remote.Target
	remote.Holder
	remote.Memberships
	remote.Uploads
	remote.Untagger
}

// Options of a Server.
type Options struct {
	// From is what is read. What it can do besides is made use of: remote.Memberships,
	// remote.Members, remote.Referred, remote.Manifests, remote.Ranges, remote.Repositories, remote.Catalogued, remote.Paged,
	// remote.Unproved. Besides is asked instead where From is a view of it that does not show all of that.
	From    remote.Source
	Besides any

	// To is what is written, the same remote; nil makes the server read only.
	To Writable

	// Mirrors are registries, such as docker.io, in whose place the server answers:
	// those that a client may name in the parameter ns of a request. See docs/serve.md.
	Mirrors []string

	// Own is the one of Mirrors that From itself is, whose images it calls without
	// its name; "" is none.
	Own string

	// StoreMemory is what the store takes for a layer that is read, in bytes, beside
	// what decoding it takes: so many are read at once that memory is bounded. 0 stands
	// for next to nothing.
	StoreMemory int64

	// Cached reports whether a layer comes from a cache on this machine, so that the
	// store takes nothing for it. It may be nil.
	Cached func(ctx context.Context, layer remote.Layer) bool

	// WriteMemory is what the store takes for a layer that is written, in bytes, beside
	// what encoding it takes: so many are written at once that memory is bounded.
	WriteMemory int64

	// MaxBlob is how large a blob may be that a client pushes, in bytes, in however
	// many requests it comes. 0 stands for any.
	MaxBlob int64

	// Damage is told of bytes that are not what their digest says. It may be nil, and
	// may be called by several goroutines at once.
	Damage func(error)

	Log *slog.Logger // nil logs nothing
}

// Server is an http.Handler for the paths at /v2/. It is safe for concurrent use,
// and has nothing to close.
type Server struct {
	from    remote.Source
	to      Writable
	mirrors []string
	own     string // of mirrors
	damage  func(error)
	log     *slog.Logger

	storeMemory int64
	writeMemory int64
	cached      func(context.Context, remote.Layer) bool // nil where there is no cache
	maxBlob     int64

	memberships remote.Memberships // nil where there are none
	members     remote.Members     // nil where there are none
	referred    remote.Referred    // nil where that is not known
	catalogued  remote.Catalogued  // nil where tags have to be listed for that
	paged       remote.Paged       // nil where tags come in any order, and all of them
	manifests   remote.Manifests   // nil where there is none
	ranges      remote.Ranges      // nil where there are none
	unproved    remote.Unproved    // nil where there is none

	routes  []route
	buffers sync.Pool // of *[pieceSize]byte
	room    *room     // for layers on their way out
	windows *room     // for what some of them take besides
	writing *room     // for those on their way to the store

	found   *memory[image.Digest, remote.Layer] // as it was when it was looked for last
	prints  *fingerprints                       // of layers that were proved
	sharing *sharing                            // layers that are being read
	tagged  *memory[taggedKey, image.ID]        // what tags name, by their versions
	reached *memory[image.ID, []image.Digest]   // the manifests that a tag on an image leads to
	by      *memory[memberKey, string]          // the tag by which a repository has a manifest
	configs *memory[image.Digest, image.Digest] // configs, by the manifests that follow from them
}

// What is remembered, in entries of the kind that each memory counts. Together
// they are some 50 MB.
const (
	maxFound   = 32 << 10
	maxTagged  = 64 << 10
	maxReached = 128 << 10
	maxBy      = 16 << 10
	maxConfigs = 64 << 10
)

// What layers on their way may take together, and each that is being read, in bytes:
// one that is decoded, and one that is not, with the pieces that it may keep. What the
// store takes for it comes to that, and a piece for each client. What readings may keep
// beside (allPieces) is not in it.
const (
	maxMemory     = 128 << 20
	decodedMemory = 6<<20 + ownPieces*pieceSize
	plainMemory   = 256<<10 + ownPieces*pieceSize
)

// maxWindows is what all may take together, in bytes, that refer further back than what
// dogestry writes (remote.WithRoom): one of the largest ones that there may be.
const maxWindows = 128 << 20

// What layers on their way to the store may take together, in bytes, and one for
// being encoded. What the store takes for it, and for the upload that it is read from,
// comes to that.
const (
	maxWriting    = 256 << 20
	encodedMemory = 24 << 20
)

// How long is waited for room. Those who write are so few (see --max-uploads) that
// they may wait longer: no client likes to send a layer again.
const (
	roomWait    = 30 * time.Second
	writingWait = 5 * time.Minute
)

// crowdedWrite is how much is written to a client at once while somebody waits, in
// bytes: a slow one shows sooner.
const crowdedWrite = 32 << 10

// New returns a server. It does no I/O.
func New(o Options) *Server {
	s := &Server{
		from: o.From, to: o.To, mirrors: o.Mirrors, own: o.Own, damage: o.Damage, log: o.Log,
		storeMemory: o.StoreMemory, writeMemory: o.WriteMemory, cached: o.Cached, maxBlob: o.MaxBlob,
		found:   newMemory[image.Digest, remote.Layer](maxFound),
		prints:  newFingerprints(),
		sharing: newSharing(),
		tagged:  newMemory[taggedKey, image.ID](maxTagged),
		reached: newMemory[image.ID, []image.Digest](maxReached),
		by:      newMemory[memberKey, string](maxBy),
		configs: newMemory[image.Digest, image.Digest](maxConfigs),
		room:    newRoom(maxMemory, roomWait),
		windows: newRoom(maxWindows, roomWait),
		writing: newRoom(maxWriting, writingWait),
	}
	if s.maxBlob == 0 {
		s.maxBlob = math.MaxInt64 - 1
	}
	s.buffers.New = func() any { return new([pieceSize]byte) }
	if o.Besides == nil {
		o.Besides = o.From
	}
	s.memberships, _ = o.Besides.(remote.Memberships)
	s.members, _ = o.Besides.(remote.Members)
	s.referred, _ = o.Besides.(remote.Referred)
	s.catalogued, _ = o.Besides.(remote.Catalogued)
	s.paged, _ = o.Besides.(remote.Paged)
	s.manifests, _ = o.Besides.(remote.Manifests)
	s.ranges, _ = o.Besides.(remote.Ranges)
	s.unproved, _ = o.Besides.(remote.Unproved)
	if s.damage == nil {
		s.damage = func(error) {}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.routes = s.table()
	return s
}

// ServeHTTP answers a request. It panics with http.ErrAbortHandler where an answer
// that has begun cannot be ended well, so that no client takes it for whole.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	answer := &answer{ResponseWriter: w}
	err := s.serve(answer, r)
	if err == nil {
		return
	}
	failed := s.errorOf(r, err)
	s.logFailure(r, failed, err)
	if answer.begun {
		panic(http.ErrAbortHandler)
	}
	writeError(answer, r, failed)
}

// answer knows whether a part of it has been sent.
type answer struct {
	http.ResponseWriter
	begun bool
}

func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
