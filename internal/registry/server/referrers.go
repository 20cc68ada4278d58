package server

import (
	"context"
	"encoding/json"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// A list of referrers is an index, and clients bound those: what does not fit comes
// on the next page.
const (
	maxReferrers     = 1000
	maxReferrerBytes = 3 << 20
)

// referrer is a descriptor of a manifest that refers to another one (OCI
// distribution specification, "Listing referrers").
type referrer struct {
	MediaType    string            `json:"mediaType"`
	Digest       image.Digest      `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// referrers is the answer, an index.
type referrers struct {
	SchemaVersion int        `json:"schemaVersion"`
	MediaType     string     `json:"mediaType"`
	Manifests     []referrer `json:"manifests"`
}

// listReferrers answers with what refers to a manifest, which need not be there.
// Where the remote does not know that, it is as if there were no such path: clients
// then look for a tag that is named by the digest.
func (s *Server) listReferrers(c call) error {
	subject, err := c.digest()
	if err != nil {
		return err
	}
	if s.referred == nil {
		return &failure{status: http.StatusNotFound, code: codeUnsupported, message: "referrers are not known here"}
	}
	var last image.Digest
	if l := c.r.URL.Query().Get("last"); l != "" {
		if last, err = parseDigest(l); err != nil {
			return err
		}
	}
	filter := c.r.URL.Query().Get("artifactType")
	answer := referrers{SchemaVersion: 2, MediaType: ocispec.MediaTypeImageIndex, Manifests: []referrer{}}
	size := 0
	for id, err := range s.referred.Referrers(c.r.Context(), c.repository, subject) {
		if err != nil {
			return err
		}
		if !last.IsZero() && id.Hex() <= last.Hex() {
			continue
		}
		described, bytes, err := s.describe(c.r.Context(), c.repository, id)
		if err != nil {
			return err
		}
		if described == nil || filter != "" && described.ArtifactType != filter {
			continue
		}
		if n := len(answer.Manifests); n == maxReferrers || n > 0 && size+bytes > maxReferrerBytes {
			linkNext(c.w, c.r, "", answer.Manifests[n-1].Digest.String())
			break
		}
		answer.Manifests, size = append(answer.Manifests, *described), size+bytes
	}
	if filter != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return writeJSON(c.w, c.r, ocispec.MediaTypeImageIndex, answer)
}

// describe returns the descriptor of a manifest, and how many bytes it has as JSON.
// It is nil where the manifest has gone meanwhile, or is damaged.
func (s *Server) describe(ctx context.Context, repository string, id image.Digest) (*referrer, int, error) {
	doc, err := remote.SourceOf(s.from, repository).Document(ctx, id)
	if isMissing(err) {
		s.log.Warn("what refers to a manifest is not there", "digest", id, "error", err)
		return nil, 0, nil
	}
	var about *image.About
	if err == nil {
		if about, err = image.ParseAbout(doc); err != nil {
			err = fault.Wrap(fault.Damaged, err, "what refers to a manifest, %s, is none itself", id.Short())
		}
	}
	if isDamage(err) { // the others are no less good for that
		s.damage(err)
		s.log.Error("what refers to a manifest is damaged", "digest", id, "error", err)
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	r := &referrer{
		MediaType: mediaTypeOf(doc), Digest: id, Size: int64(len(doc)),
		ArtifactType: about.ArtifactType, Annotations: about.Annotations,
	}
	encoded, err := json.Marshal(r)
	return r, len(encoded), err
}

// setSubject tells a client that has put a manifest that what it refers to is known
// (OCI distribution specification, "Pushing manifests with subject").
func setSubject(h http.Header, about *image.About) {
	if !about.Subject.Digest.IsZero() {
		h.Set("OCI-Subject", about.Subject.Digest.String())
	}
}
