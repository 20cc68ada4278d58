package server

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// pageSize is how many names are listed where the client does not say.
	pageSize = 1000
	// maxPage bounds what it may say.
	maxPage = 10_000
)

// page collects the first names behind one, in the order of their bytes, whatever
// the order in which they come. It holds no more than it lists, and one.
type page struct {
	n     int
	last  string
	names []string // at most n+1
}

// pageOf reads n and last of a request.
func pageOf(r *http.Request) (*page, error) {
	p := &page{n: pageSize, last: r.URL.Query().Get("last")}
	if n := r.URL.Query().Get("n"); n != "" {
		count, ok := number(n)
		if !ok {
			return nil, &failure{status: http.StatusBadRequest, code: "PAGINATION_NUMBER_INVALID", message: "n is how many names there are to be in the answer"}
		}
		p.n = int(min(count, maxPage))
	}
	return p, nil
}

func (p *page) add(name string) {
	if name <= p.last {
		return
	}
	at, there := slices.BinarySearch(p.names, name)
	if there || at > p.n {
		return
	}
	p.names = slices.Insert(p.names, at, name)
	p.names = p.names[:min(len(p.names), p.n+1)]
}

// listed returns the names, and where there are more says in the header Link how to
// ask for them (RFC 8288).
func (p *page) listed(w http.ResponseWriter, r *http.Request) []string {
	if len(p.names) <= p.n {
		return append([]string{}, p.names...) // never null
	}
	names := p.names[:p.n]
	if p.n > 0 { // else there is no name to go on from
		linkNext(w, r, strconv.Itoa(p.n), names[p.n-1])
	}
	return append([]string{}, names...)
}

// linkNext says where the next page is: the same request, from last on.
func linkNext(w http.ResponseWriter, r *http.Request, n, last string) {
	query := r.URL.Query()
	query.Set("last", last)
	if n != "" {
		query.Set("n", n)
	}
	next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

// listTags answers with the tags of a repository.
func (s *Server) listTags(c call) error {
	p, err := pageOf(c.r)
	if err != nil {
		return err
	}
	found, err := s.tags(c, p)
	if err == nil && !found && s.paged != nil && p.last != "" { // is there none, or none behind it?
		found, err = s.tags(c, &page{})
	}
	if err != nil {
		return err
	}
	if !found {
		if found, err = s.hasMembers(c.r.Context(), c.repository); err != nil {
			return err
		}
	}
	if !found {
		return &failure{status: http.StatusNotFound, code: codeNameUnknown, message: "there is no such repository in this registry"}
	}
	return writeJSON(c.w, c.r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.name, p.listed(c.w, c.r)})
}

// tags adds the tags of a repository to a page, and reports whether there were any.
// Where they come in order none is read that is not listed.
func (s *Server) tags(c call, p *page) (found bool, err error) {
	ctx := c.r.Context()
	tags := remote.SourceOf(s.from, c.repository).References(ctx, c.repository)
	if s.paged != nil {
		tags = s.paged.ReferencesAfter(ctx, c.repository, p.last)
	}
	for tag, err := range tags {
		if err != nil {
			return false, err
		}
		found = true
		if p.add(tag.Reference.Tag); s.paged != nil && len(p.names) > p.n {
			break
		}
	}
	return found, nil
}

// hasMembers reports whether a repository has a manifest without a tag.
func (s *Server) hasMembers(ctx context.Context, repository string) (bool, error) {
	if s.members == nil {
		return false, nil
	}
	for _, err := range s.members.Members(ctx, repository) {
		if errors.Is(err, errors.ErrUnsupported) {
			break
		}
		return err == nil, err
	}
	return false, nil
}

// listRepositories answers with the repositories that have tags or manifests, by the
// names by which they can be asked for. One that no client can ask for is left out: of a
// registry with a port, say.
func (s *Server) listRepositories(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	before := ""
	add := func(name string) {
		if name != before && isName(name) {
			p.add(name)
		}
		before = name
	}
	for name, err := range s.repositories(r.Context()) {
		if err != nil {
			return err
		}
		add(name)
	}
	if s.members != nil {
		for m, err := range s.members.Members(r.Context(), "") {
			if errors.Is(err, errors.ErrUnsupported) {
				break
			}
			if err != nil {
				return err
			}
			add(m.Repository)
		}
	}
	return writeJSON(w, r, "application/json", struct {
		Repositories []string `json:"repositories"`
	}{p.listed(w, r)})
}

// repositories yields the repositories that have tags, some of them again and again.
func (s *Server) repositories(ctx context.Context) iter.Seq2[string, error] {
	if s.catalogued != nil {
		return s.catalogued.Catalog(ctx)
	}
	return func(yield func(string, error) bool) {
		for tag, err := range s.from.References(ctx, "") {
			if !yield(tag.Reference.Repository, err) || err != nil {
				return
			}
		}
	}
}
