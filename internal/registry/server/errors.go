package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Codes of errors (OCI distribution specification, "Error codes").
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	codeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"

	// Others than the specification's, as other registries have them.
	codeTagInvalid   = "TAG_INVALID"
	codeUnavailable  = "UNAVAILABLE"
	codeRangeInvalid = "RANGE_INVALID"
	codeUnknown      = "UNKNOWN"
)

// failure is an error as a client gets it.
type failure struct {
	status  int
	code    string
	message string
	detail  any            // may be nil
	retry   int            // seconds after which it may go better; 0 where that is not known
	header  http.Header    // more headers; may be nil
	cause   error          // for the log; may be nil
	digests []image.Digest // what is missing; an error of its own for each
}

func (f *failure) Error() string {
	if f.cause != nil {
		return f.message + ": " + f.cause.Error()
	}
	return f.message
}

func (f *failure) Unwrap() error { return f.cause }

// retryLocked is when somebody who would have to wait for a garbage collection is
// to ask again, in seconds.
const retryLocked = 60

// errorOf is the one table from errors of the remote to answers. What the remote
// says of itself is for the log, except what the client can do something about.
func (s *Server) errorOf(r *http.Request, err error) *failure {
	var known *failure
	var mismatch *image.MismatchError
	var incomplete *remote.IncompleteError
	var tooLarge *http.MaxBytesError
	var tree *image.TreeError
	switch {
	case errors.As(err, &known):
		return known
	case fault.Is(err, fault.Damaged): // of the remote; what a client sends is no fault
		return &failure{status: http.StatusInternalServerError, code: codeUnknown, message: "what is stored here is damaged or incomplete; the server's log says what", cause: err}
	case errors.As(err, &mismatch):
		return &failure{status: http.StatusBadRequest, code: codeDigestInvalid, message: "the bytes are not what the digest says", cause: err}
	case errors.As(err, &tooLarge), errors.Is(err, image.ErrTooLarge):
		return &failure{status: http.StatusRequestEntityTooLarge, code: codeSizeInvalid, message: "this is larger than what is taken here", cause: err}
	case errors.As(err, &incomplete):
		return lacks(incomplete.Missing)
	case errors.As(err, &tree):
		return &failure{status: http.StatusBadRequest, code: codeManifestInvalid, message: "the documents make no image", detail: tree.Error(), cause: err}
	case fault.Interrupted(err) && r.Context().Err() != nil:
		return &failure{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "the request has ended", cause: err}
	}
	switch fault.KindOf(err) {
	case fault.NotFound:
		return &failure{status: http.StatusNotFound, code: codeManifestUnknown, message: "there is no such thing in this registry", cause: err}
	case fault.Refused:
		return &failure{status: http.StatusForbidden, code: codeDenied, message: "the storage does not permit this, or what has another name is in its way; the server's log says which", cause: err}
	case fault.Locked:
		return &failure{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "a garbage collection is about to delete what this needs; ask again in a while", retry: retryLocked, cause: err}
	case fault.Usage:
		return &failure{status: http.StatusBadRequest, code: codeUnsupported, message: "this makes no sense here; the server's log says why", cause: err}
	default:
		return &failure{status: http.StatusInternalServerError, code: codeUnknown, message: "the server cannot use its storage; its log says why", cause: err}
	}
}

// lacks is the failure of a manifest of which a part is not there.
func lacks(c remote.Closure) *failure {
	return &failure{
		status: http.StatusBadRequest, code: codeManifestBlobUnknown,
		message: "the manifest names what is not in this registry",
		digests: image.Distinct(append(append([]image.Digest{}, c.Documents...), c.Layers...)),
	}
}

// isMissing reports whether err says that something is not there, and not that it
// is there and wrong.
func isMissing(err error) bool {
	if fault.Is(err, fault.NotFound) {
		return true
	}
	var damage *remote.Damage
	return errors.As(err, &damage) && damage.Missing
}

// isDamage is for what is there and wrong.
func isDamage(err error) bool { return fault.Is(err, fault.Damaged) && !isMissing(err) }

// errorDocument is the body of an answer that is an error.
type errorDocument struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// maxErrors bounds the errors of an answer.
const maxErrors = 100

func writeError(w http.ResponseWriter, r *http.Request, f *failure) {
	document := errorDocument{Errors: []errorEntry{{f.code, f.message, f.detail}}}
	if len(f.digests) > 0 {
		document.Errors = nil
		for _, d := range f.digests[:min(len(f.digests), maxErrors)] {
			document.Errors = append(document.Errors, errorEntry{f.code, f.message, map[string]string{"digest": d.String()}})
		}
	}
	h := w.Header()
	h.Del("Content-Range") // of the part that is not sent
	for name, values := range f.header {
		h[name] = values
	}
	if f.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retry))
	}
	h.Del("Etag")
	body, err := json.Marshal(document)
	if err != nil {
		panic(err) // nothing in it can fail
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that is gone hears nothing
	}
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, r *http.Request, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBytes(w, r, mediaType, body)
	return nil
}

// writeBytes answers with what is in memory.
func writeBytes(w http.ResponseWriter, r *http.Request, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that is gone hears nothing
	}
}

// logFailure says in the log what the client is not told.
func (s *Server) logFailure(r *http.Request, f *failure, err error) {
	level := slog.LevelDebug
	switch {
	case r.Context().Err() != nil, errors.Is(err, errGone):
	case fault.Is(err, fault.Damaged):
		level = slog.LevelError
		s.damage(err)
	case errors.Is(err, errSlow), f.status == http.StatusForbidden, f.code == codeUnsupported && f.cause != nil:
		level = slog.LevelWarn // the client is not told why
	case f.status >= http.StatusInternalServerError && f.status != http.StatusServiceUnavailable:
		level = slog.LevelError
	}
	s.log.Log(context.WithoutCancel(r.Context()), level, "request failed", "method", r.Method, "path", r.URL.Path, "status", f.status, "code", f.code, "error", err)
}
