package server

import (
	"context"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// getManifest answers with a manifest or an index, by a tag or a digest, byte for
// byte. What the client accepts is not asked: nothing is converted.
func (s *Server) getManifest(c call) error {
	id, doc, err := s.manifest(c)
	if err != nil {
		if c.r.Method == http.MethodHead && s.to != nil && isDamage(err) {
			s.damage(err)
			return noManifest() // so that a push writes it again
		}
		return err
	}
	setDigest(c.w.Header(), id)
	if matches(c.r.Header.Get("If-None-Match"), id) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	writeBytes(c.w, c.r, mediaTypeOf(doc), doc)
	return nil
}

// mediaTypeOf returns what a manifest or index says that it is, else what it looks like.
func mediaTypeOf(doc []byte) string {
	fallback := ocispec.MediaTypeImageManifest
	if kind, err := image.KindOf(doc); err == nil && kind == image.IndexKind {
		fallback = ocispec.MediaTypeImageIndex
	}
	return image.MediaTypeOf(doc, fallback)
}

func noManifest() error {
	return &failure{status: http.StatusNotFound, code: codeManifestUnknown, message: "there is no such manifest in this repository"}
}

// manifest returns what a request names.
func (s *Server) manifest(c call) (id image.Digest, doc []byte, err error) {
	if c.isDigest() {
		if id, err = c.digest(); err == nil {
			doc, err = s.manifestByDigest(c.r.Context(), c.repository, id)
		}
		return id, doc, err
	}
	ref, ok := c.reference()
	if !ok {
		return id, nil, noManifest() // nothing can have such a tag
	}
	named, err := remote.SourceOf(s.from, c.repository).Resolve(c.r.Context(), ref)
	if fault.Is(err, fault.NotFound) {
		return id, nil, noManifest()
	}
	if err == nil {
		doc, err = s.manifestOf(c.r.Context(), c.repository, named)
	}
	if err != nil {
		return id, nil, err
	}
	id = image.DigestOf(doc)
	s.by.put(memberKey{c.repository, id}, ref.Tag, 1)
	return id, doc, nil
}

// manifestOf returns the manifest or index of an image: of one that has only a
// config the manifest that follows from it.
func (s *Server) manifestOf(ctx context.Context, repository string, id image.ID) ([]byte, error) {
	doc, err := remote.SourceOf(s.from, repository).Document(ctx, id)
	if err != nil {
		return nil, err
	}
	kind, err := image.KindOf(doc)
	if err != nil || kind != image.ConfigKind {
		return doc, err
	}
	var manifest []byte
	if s.manifests != nil {
		manifest, err = s.manifests.ManifestOf(ctx, id)
	}
	if s.manifests == nil || isMissing(err) { // the config may follow from something else, too (format 1.0)
		manifest, err = remote.MakeManifest(ctx, remote.SourceOf(s.from, repository), doc)
	}
	if err == nil {
		s.configs.put(image.DigestOf(manifest), id, 1)
	}
	return manifest, err
}

// manifestByDigest returns a manifest or index that a repository has.
func (s *Server) manifestByDigest(ctx context.Context, repository string, id image.Digest) ([]byte, error) {
	from := remote.SourceOf(s.from, repository)
	doc, err := from.Document(ctx, id)
	if isMissing(err) {
		config, ok := s.configs.get(id) // it is not stored, and was made here
		if !ok {
			return nil, noManifest()
		}
		doc, err = s.manifestOf(ctx, repository, config)
	}
	if isDamage(err) { // or what is there is a blob and no document, such as a config whose manifest has not come yet
		found, lookErr := from.Look(ctx, remote.Closure{Layers: []image.Digest{id}}, nil)
		if lookErr != nil {
			return nil, lookErr
		}
		if _, is := found.Layers[id]; is {
			return nil, noManifest()
		}
	}
	if err != nil {
		return nil, err
	}
	if kind, err := image.KindOf(doc); err != nil || kind == image.ConfigKind || image.DigestOf(doc) != id {
		return nil, noManifest() //nolint:nilerr // a document, and none of these
	}
	has, err := s.has(ctx, repository, id)
	if err == nil && !has {
		err = noManifest()
	}
	return doc, err
}
