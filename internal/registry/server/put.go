package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// putManifest stores a manifest or index, lets it belong to the repository, and
// tags it. It is a push (docs/format.md, "Push"): what it names is leased before it
// is looked for.
func (s *Server) putManifest(c call) error {
	var ref image.Reference
	ok := true
	want := image.Digest{}
	if c.isDigest() {
		var err error
		if want, err = c.digest(); err != nil {
			return err
		}
	} else if ref, ok = c.reference(); !ok {
		return &failure{status: http.StatusBadRequest, code: codeTagInvalid, message: "this is not a tag"}
	}
	doc, err := readManifest(c)
	if err != nil {
		return err
	}
	id := image.DigestOf(doc)
	if !want.IsZero() && id != want {
		return &image.MismatchError{Want: want, Got: id, Size: -1, Read: int64(len(doc))}
	}
	m, err := parseManifest(doc, c.r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	to, end := remote.Begin(s.to, nil)
	defer end(c.r.Context())
	if err := s.put(c, to, id, m, ref); err != nil {
		return err
	}
	h := c.w.Header()
	setDigest(h, id)
	setSubject(h, m.about)
	h.Set("Location", "/v2/"+c.name+"/manifests/"+id.String())
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func readManifest(c call) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(c.r.Body, image.MaxDocument+1))
	if err != nil {
		return nil, bodyFailure(err)
	}
	if len(doc) > image.MaxDocument {
		return nil, image.ErrTooLarge
	}
	return doc, nil
}

// pushed is a manifest or an index that a client puts.
type pushed struct {
	doc      []byte
	about    *image.About
	manifest *image.Manifest // nil for an index
	index    *image.Index    // nil for a manifest
}

func badManifest(err error) error {
	return &failure{status: http.StatusBadRequest, code: codeManifestInvalid, message: err.Error(), cause: err}
}

// parseManifest reads what a client puts. It refuses what would be incomplete here
// for ever, and what readers do not agree on.
func parseManifest(doc []byte, contentType string) (*pushed, error) {
	about, err := image.ParseAbout(doc)
	if err != nil {
		if keys, isObject := image.Members(doc, "fsLayers"); isObject == nil && keys["fsLayers"] != nil {
			err = errors.New("manifests of schema version 1 are not taken: their digests name nothing that could be proved")
		}
		return nil, badManifest(err)
	}
	contentType, _, _ = strings.Cut(contentType, ";")
	if contentType = strings.TrimSpace(contentType); contentType != "" && about.MediaType != "" && contentType != about.MediaType {
		return nil, badManifest(errors.New("Content-Type is not the media type that the manifest says it has"))
	}
	p := &pushed{doc: doc, about: about}
	if about.Kind == image.IndexKind {
		p.index, err = image.ParseIndex(doc)
	} else {
		p.manifest, err = image.ParseManifest(doc)
	}
	if err == nil {
		err = refuseElsewhere(doc)
	}
	if err != nil {
		return nil, badManifest(err)
	}
	return p, nil
}

// refuseElsewhere refuses what says that a part of it lies elsewhere: what a tag
// names is complete in the remote (docs/format.md, "Config, manifest, index").
func refuseElsewhere(doc []byte) error {
	if image.Outside(doc) == "" {
		return nil
	}
	return errors.New("a part of it lies elsewhere (urls): what is in this registry is complete here. Push it with its layers, and without urls")
}

// put is the push of a manifest. A zero ref is none.
func (s *Server) put(c call, to remote.Target, id image.Digest, m *pushed, ref image.Reference) error {
	ctx := c.r.Context()
	var err error
	if m.index != nil {
		err = s.putIndex(ctx, to, id, m)
	} else {
		err = s.putImage(ctx, to, m)
	}
	if err != nil {
		return err
	}
	members, ok := to.(remote.Memberships)
	if !ok {
		members = s.to
	}
	if ref.Tag == "" {
		return members.Add(ctx, c.repository, id)
	}
	belonged, err := members.Belongs(ctx, c.repository, id)
	if err != nil {
		return err
	}
	if err := members.Add(ctx, c.repository, id); err != nil {
		return err
	}
	err = to.Tag(ctx, ref, id)
	if fault.Is(err, fault.Refused) && !belonged { // else what was refused would be kept for ever
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTime)
		defer cancel()
		if removed := members.Remove(ctx, c.repository, id); removed != nil {
			s.log.Warn("a manifest that was refused stays in its repository", "repository", c.repository, "digest", id, "error", removed)
		}
	}
	return err
}

// takeBackTime is for taking a manifest out of a repository again, also where the
// client has gone.
const takeBackTime = 10 * time.Second

// putImage stores a manifest, once all that it names is there. Its config came as
// a blob, and becomes a document.
func (s *Server) putImage(ctx context.Context, to remote.Target, m *pushed) error {
	missing, err := remote.Adopt(ctx, s.from, to, m.manifest)
	if err != nil {
		return s.orBadConfig(ctx, m.manifest.Config, err)
	}
	if !missing.Empty() {
		return lacks(missing)
	}
	return to.PutDocument(ctx, m.doc)
}

// orBadConfig says where it is the client's config that cannot be stored, and no
// failure of the remote.
func (s *Server) orBadConfig(ctx context.Context, config image.Descriptor, err error) error {
	if fault.KindOf(err) != fault.Other || fault.Interrupted(err) {
		return err
	}
	layers, failed := remote.Layers(ctx, s.from, []image.Digest{config.Digest})
	if failed != nil {
		return err
	}
	r, failed := s.from.Open(ctx, layers[0])
	if failed != nil {
		return err
	}
	defer r.Close()
	doc, failed := image.ReadDocument(r, config.Digest)
	if failed == nil {
		failed = image.CheckDocument(doc)
	}
	if failed == nil || fault.Is(failed, fault.Damaged) {
		return err
	}
	return badManifest(fmt.Errorf("its config: %w", failed))
}

// putIndex stores an index and marks those of its manifests that are there. The
// others may be absent (docs/format.md, "Held platforms of an index"), but not all.
func (s *Server) putIndex(ctx context.Context, to remote.Target, id image.Digest, m *pushed) error {
	var children []image.Digest
	for _, child := range m.index.Manifests {
		children = append(children, child.Digest)
	}
	children = image.Distinct(children)
	missing, _, err := to.Missing(ctx, remote.Closure{Documents: children})
	if err != nil {
		return err
	}
	absent := make(map[image.Digest]bool, len(missing.Documents))
	for _, d := range missing.Documents {
		absent[d] = true
	}
	var there []image.Digest
	for _, d := range children {
		if !absent[d] {
			there = append(there, d)
		}
	}
	if len(there) == 0 && len(children) > 0 {
		return lacks(missing)
	}
	if err := to.PutDocument(ctx, m.doc); err != nil {
		return err
	}
	holder, ok := to.(remote.Holder)
	if !ok {
		holder = s.to
	}
	return holder.Hold(ctx, id, there)
}

// deleteManifest takes a tag away, or a manifest out of a repository, with the tags
// that it has there. The bytes stay until a garbage collection.
func (s *Server) deleteManifest(c call) error {
	var err error
	if c.isDigest() {
		err = s.deleteDigest(c)
	} else {
		err = s.deleteTag(c)
	}
	if err == nil {
		c.w.WriteHeader(http.StatusAccepted)
	}
	return err
}

func (s *Server) deleteTag(c call) error {
	ref, ok := c.reference()
	if !ok {
		return noManifest()
	}
	id, err := s.from.Resolve(c.r.Context(), ref)
	switch {
	case isDamage(err):
		id = image.Digest{} // it names nothing
	case isMissing(err):
		return noManifest()
	case err != nil:
		return err
	}
	return s.untag(c.r.Context(), ref, id)
}

// untag removes a tag while it names what was seen. Who has moved it meanwhile is
// not undone, and the client is told.
func (s *Server) untag(ctx context.Context, ref image.Reference, id image.ID) error {
	err := s.to.Untag(ctx, ref, id)
	if fault.Is(err, fault.Refused) {
		return &failure{status: http.StatusConflict, code: codeDenied, message: "the tag " + ref.Tag + " has moved meanwhile: it stays", cause: err}
	}
	return err
}

func (s *Server) deleteDigest(c call) error {
	ctx := c.r.Context()
	id, err := c.digest()
	if err != nil {
		return err
	}
	_, unreadable := s.manifestByDigest(ctx, c.repository, id)
	var failed *failure
	if unreadable != nil && !fault.Is(unreadable, fault.Damaged) && (!errors.As(unreadable, &failed) || failed.code != codeManifestUnknown) {
		return unreadable
	}
	tags, index, err := s.tagsOn(ctx, c.repository, id)
	if err != nil {
		return err
	}
	if unreadable != nil { // it is deleted, too, where it belongs to the repository
		there, err := s.isMember(ctx, c.repository, id)
		if err == nil && !there && len(tags) > 0 {
			_, torn := s.from.Document(ctx, id) // else it is a config, and no manifest
			there = isMissing(torn) || isDamage(torn)
		}
		if err != nil {
			return err
		}
		if !there {
			return noManifest()
		}
	}
	if index != "" {
		return &failure{status: http.StatusConflict, code: codeDenied, message: "the tag " + index + " is on an index that names it: delete that first"}
	}
	for ref, named := range tags {
		if err := s.untag(ctx, ref, named); err != nil {
			return err
		}
	}
	return s.to.Remove(ctx, c.repository, id)
}

// isMember reports whether a manifest was put into a repository, also where nobody
// knows any more what it refers to.
func (s *Server) isMember(ctx context.Context, repository string, id image.Digest) (bool, error) {
	member, err := s.to.Belongs(ctx, repository, id)
	if err != nil || member || s.members == nil {
		return member, err
	}
	for m, err := range s.members.Members(ctx, repository) {
		if err != nil {
			return false, err
		}
		if m.Manifest == id {
			return true, nil
		}
	}
	return false, nil
}
