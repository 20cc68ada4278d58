package agent

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// Remote is one that callers may have pulled from.
type Remote struct {
	Name string // that callers may use; "" where they have to know the URL
	URL  string // by which the agent opens it
}

// called is how a remote is told to callers.
func (r Remote) called() string {
	if r.Name != "" {
		return r.Name
	}
	return r.URL
}

// tell is a text for callers: where the remote has a name, that stands for its URL.
func (r Remote) tell(text string) string {
	if r.Name == "" {
		return text
	}
	return strings.ReplaceAll(text, r.URL, r.Name)
}

// remoteName is what the name of a remote looks like: no URL, and no path.
var remoteName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}$`)

// IsName reports whether s can be the name of a remote, and so is neither URL nor path.
func IsName(s string) bool { return remoteName.MatchString(s) }

// ParseRemote reads [NAME=]URL.
func ParseRemote(s string) Remote {
	if name, url, ok := strings.Cut(s, "="); ok && IsName(name) {
		return Remote{name, url}
	}
	return Remote{URL: s}
}

// Allowed is what callers may ask for. The zero value allows nothing.
type Allowed struct {
	Remotes []Remote
	Images  []Pattern
	// Canonical returns one name for one remote, however it is written. It contacts nothing.
	Canonical func(url string) string
}

// remote finds the remote that a caller means. What it returns is the administrator's; the
// caller's own words open nothing.
func (a Allowed) remote(asked string) (Remote, error) {
	for _, r := range a.Remotes {
		if r.Name != "" && r.Name == asked {
			return r, nil
		}
	}
	if len(asked) <= maxName && !IsName(asked) {
		key := a.Canonical(asked)
		for _, r := range a.Remotes {
			if a.Canonical(r.URL) == key {
				return r, nil
			}
		}
	}
	return Remote{}, fault.New(fault.Refused, "it may not pull from the remote %.100q", asked).
		Advise("Its administrator says from which: dogestry agent --remote NAME=URL.")
}

// image refuses a name of an image that no pattern allows.
func (a Allowed) image(ref image.Reference) error {
	if slices.ContainsFunc(a.Images, func(p Pattern) bool { return p.matches(ref) }) {
		return nil
	}
	return fault.New(fault.Refused, "it may not pull the image %s", ref).
		Advise("Its administrator says which: dogestry agent --allow-image PATTERN.")
}

// Pattern stands for names of images.
type Pattern struct{ repository, tag string }

// ParsePattern reads REPOSITORY[:TAG]. A * stands for any text without a slash, ** at the
// end of a repository for any. Without a tag it is for all of them, and for images by their digests.
func ParsePattern(s string) (Pattern, error) {
	p := Pattern{repository: s}
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, '/') {
		p.repository, p.tag = s[:colon], s[colon+1:]
		if p.tag == "" {
			return p, fault.New(fault.Usage, "%q: the tag is empty", s)
		}
	}
	for _, part := range []string{p.repository, p.tag} {
		if _, err := path.Match(part, ""); err != nil || strings.ContainsAny(part, " @") {
			return p, fault.New(fault.Usage, "%q is no pattern of images", s).Advise("Write it like myapp, myapp:live-*, team/*, or ** for all.")
		}
	}
	if p.repository == "" || strings.Contains(strings.TrimSuffix(p.repository, "**"), "**") {
		return p, fault.New(fault.Usage, "%q is no pattern of images: ** is the end of a repository", s)
	}
	return p, nil
}

func (p Pattern) matches(ref image.Reference) bool {
	if p.tag != "" {
		ok, _ := path.Match(p.tag, ref.Tag)
		if !ok || !ref.Digest.IsZero() { // the digest says which image it is, whatever the tag
			return false
		}
	}
	if begin, ok := strings.CutSuffix(p.repository, "**"); ok {
		have := strings.SplitAfter(ref.Repository, "/")
		want := strings.SplitAfter(begin, "/")
		last := want[len(want)-1]
		if len(have) < len(want) {
			return false
		}
		for i, w := range want[:len(want)-1] {
			if ok, _ := path.Match(w, have[i]); !ok {
				return false
			}
		}
		ok, _ := path.Match(last+"*", strings.TrimSuffix(have[len(want)-1], "/"))
		return ok
	}
	ok, _ := path.Match(p.repository, ref.Repository)
	return ok
}
