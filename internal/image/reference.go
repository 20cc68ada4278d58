package image

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Reference names an image as docker shows it: "myapp:1", not
// "docker.io/library/myapp:1".
type Reference struct {
	Repository string // "myapp", "localhost:5000/team/myapp"
	Tag        string // empty only where Digest is set
	Digest     Digest // zero unless the image was named by digest
}

// ParseReference reads "repository", "repository:tag", "repository@sha256:…" and
// "repository:tag@sha256:…" by docker's rules (github.com/distribution/reference).
// Without a tag and a digest the tag is "latest". An image ID is no reference.
func ParseReference(s string) (Reference, error) {
	if _, err := ParseHex(strings.TrimPrefix(s, algorithm)); err == nil { // also a tag of a repository "sha256"
		return Reference{}, fmt.Errorf("%q is an image ID: it names no repository", clip(s))
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%q is not an image name: %s", clip(s), plain(err))
	}
	ref := Reference{Repository: familiar(named)}
	if tagged, ok := named.(reference.Tagged); ok {
		ref.Tag = tagged.Tag()
	}
	if digested, ok := named.(reference.Digested); ok {
		ref.Digest, err = ParseDigest(digested.Digest().String())
		if err == nil && ref.Digest.IsZero() {
			err = errors.New("nothing has this digest")
		}
		if err != nil {
			return Reference{}, fmt.Errorf("%q: %w", clip(s), err)
		}
	} else if ref.Tag == "" {
		ref.Tag = "latest"
	}
	return ref, nil
}

// ParseRepository reads a repository without a tag or digest.
func ParseRepository(s string) (string, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", fmt.Errorf("%q is not a repository: %s", clip(s), plain(err))
	}
	if !reference.IsNameOnly(named) {
		return "", fmt.Errorf("%q is not a repository: it has a tag or digest", clip(s))
	}
	return familiar(named), nil
}

// plain returns the text of a parser's error about the name as the user wrote it.
func plain(err error) string {
	return strings.ReplaceAll(strings.TrimPrefix(err.Error(), "invalid reference format: "), "(library/", "(")
}

// familiar returns the short name that docker shows, where it has one that means
// the same: without its host, docker.io/localhost/x would be another repository.
func familiar(named reference.Named) string {
	short := reference.FamiliarName(named)
	if again, err := reference.ParseNormalizedNamed(short); err != nil || again.Name() != named.Name() {
		return named.Name()
	}
	return short
}

// String returns the reference in the form it was parsed from.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if !r.Digest.IsZero() {
		s += "@" + r.Digest.String()
	}
	return s
}

// MarshalText returns String, for JSON.
func (r Reference) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts what ParseReference accepts.
func (r *Reference) UnmarshalText(text []byte) (err error) {
	*r, err = ParseReference(string(text))
	return err
}

// Compare orders by repository, then tag, byte by byte.
func (r Reference) Compare(o Reference) int {
	return cmp.Or(
		cmp.Compare(r.Repository, o.Repository),
		cmp.Compare(r.Tag, o.Tag),
		cmp.Compare(r.Digest.Hex(), o.Digest.Hex()),
	)
}
