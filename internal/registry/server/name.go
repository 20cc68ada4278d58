package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// dockerIO is the registry whose name docker leaves out: its repositories are
// stored without it.
const dockerIO = "docker.io"

// maxName bounds the name of a repository in bytes, as other registries do.
const maxName = 255

// repository returns the repository of the remote that a client means. The
// parameter ns is how containerd tells a mirror which registry it stands for.
func (s *Server) repository(r *http.Request, name string) (string, error) {
	if !isName(name) {
		return "", noName()
	}
	full := name
	if ns := Registry(r.URL.Query().Get("ns")); ns != "" && !strings.EqualFold(ns, r.Host) {
		if !slices.Contains(s.mirrors, ns) {
			return "", &failure{status: http.StatusNotFound, code: codeNameUnknown, message: "this registry does not answer for another one of that name"}
		}
		if ns != s.own {
			full = ns + "/" + name
		}
	}
	repository, err := image.ParseRepository(full)
	if err != nil {
		return "", noName()
	}
	return repository, nil
}

func noName() error {
	return &failure{status: http.StatusBadRequest, code: codeNameInvalid, message: "this is not the name of a repository"}
}

// isName reports whether a repository can have this name in a request (OCI
// distribution specification, "Pulling manifests"): elements of letters and digits,
// with ".", "_", "__" or any number of "-" between them.
func isName(name string) bool {
	if len(name) > maxName {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if !isElement(element) {
			return false
		}
	}
	return true
}

func isElement(element string) bool {
	separator := "" // what has come since the last letter or digit
	for i, c := range []byte(element) {
		if isAlphanumeric(c) {
			separator = ""
			continue
		}
		separator += string(c)
		if i == 0 || separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
			return false
		}
	}
	return element != "" && separator == ""
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// Registry returns the name of a registry as Options.Mirrors has it: docker.io
// also for the other names that it goes by.
func Registry(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "/"))
	switch name {
	case "index.docker.io", "registry-1.docker.io":
		return dockerIO
	}
	return name
}

// reference reads the tag of a request.
func (c call) reference() (image.Reference, bool) {
	ref, err := image.ParseReference(c.repository + ":" + c.arg)
	return ref, err == nil && ref.Repository == c.repository && ref.Tag == c.arg && ref.Digest.IsZero()
}

// isDigest reports whether the argument names something by its digest: no tag has a colon.
func (c call) isDigest() bool { return strings.Contains(c.arg, ":") }

// digest reads the argument.
func (c call) digest() (image.Digest, error) { return parseDigest(c.arg) }

func parseDigest(s string) (image.Digest, error) {
	d, err := image.ParseDigest(s)
	if err != nil || d.IsZero() {
		return image.Digest{}, &failure{status: http.StatusBadRequest, code: codeDigestInvalid, message: "want sha256: and 64 hex digits: this registry names everything by sha256"}
	}
	return d, nil
}
