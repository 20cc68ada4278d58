// Package page shows what a remote holds to people with a browser: repositories,
// their tags, and what an image is made of. It is rendered here, needs no script,
// and changes nothing.
package page

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

const (
	atOnce    = 4                // pages that are made at once; each may ask the remote for many things
	pageTime  = 30 * time.Second // for one, waiting included
	perPage   = 100              // repositories or tags
	maxFilter = 128              // bytes of what names are searched for
)

// Options of a Page.
type Options struct {
	Remote string        // its name, as commands take it
	Source remote.Source // it may be a view of the remote
	// ManifestOf returns the manifest under which registry clients find an image of
	// which only the config is known; nil where there is none.
	ManifestOf func(ctx context.Context, config image.ID) ([]byte, error)
	Damage     func(error)  // told of an image that is damaged; it may be nil
	Log        *slog.Logger // nil logs nothing
}

// Page is an http.Handler. It is safe for concurrent use, and has nothing to close.
type Page struct {
	o       Options
	catalog *catalog.Catalog
	tags    *listed
	turns   chan struct{}
}

// New returns a page. It does no I/O.
func New(o Options) *Page {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Damage == nil {
		o.Damage = func(error) {}
	}
	return &Page{
		o:       o,
		catalog: catalog.Recent(o.Source),
		tags:    newListed(o.Source, time.Now),
		turns:   make(chan struct{}, atOnce),
	}
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		p.fail(w, r, http.StatusMethodNotAllowed, "This page is only to look at.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTime)
	defer cancel()
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		w.Header().Set("Retry-After", "10")
		p.fail(w, r, http.StatusServiceUnavailable, "Too many people look at once. Try again in a moment.")
		return
	}
	view, err := p.view(ctx, r)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	p.render(w, r, http.StatusOK, view)
}

// header sets what keeps a browser from doing anything but show this.
func header(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "private, no-cache")
}

// repositoryPath begins the path of a repository. A tag of it is a parameter: some
// repositories have slashes in their names.
const repositoryPath = "/repositories/"

// errNoPage says that a path is none that is shown.
var errNoPage = errors.New("no such page")

// view finds out what a request is to be shown.
func (p *Page) view(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	ask := asked{filter: clip(q.Get("filter")), page: q.Get("page")}
	if r.URL.Path == "/" {
		return p.repositories(ctx, ask)
	}
	name, ok := strings.CutPrefix(r.URL.Path, repositoryPath)
	if !ok {
		return nil, errNoPage
	}
	repository, err := image.ParseRepository(name)
	if err != nil || repository != name {
		return nil, errNoPage
	}
	if tag := q.Get("tag"); tag != "" {
		ref, err := image.ParseReference(repository + ":" + tag)
		if err != nil || ref.Tag != tag || ref.Repository != repository {
			return nil, errNoPage
		}
		return p.image(ctx, ref, r.Host)
	}
	return p.repository(ctx, repository, ask)
}

// asked is which part of a list somebody wants to see.
type asked struct {
	filter string // a part of a name; empty for all
	page   string // a number from 1 on
}

// clip bounds what somebody searches for.
func clip(s string) string {
	if len(s) > maxFilter {
		s = strings.ToValidUTF8(s[:maxFilter], "")
	}
	return strings.TrimSpace(s)
}

// failed tells of an error: what the remote says of itself is for the log.
func (p *Page) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errNoPage):
		p.fail(w, r, http.StatusNotFound, "There is no such page.")
	case fault.Is(err, fault.NotFound):
		p.fail(w, r, http.StatusNotFound, "There is no such image here. It may have been removed.")
	case fault.Is(err, fault.Damaged):
		p.o.Log.Error("a page shows damage", "path", r.URL.Path, "error", err)
		p.o.Damage(err)
		p.fail(w, r, http.StatusInternalServerError, "This image is damaged or incomplete. The command dogestry verify says what is wrong with it.")
	case errors.Is(err, context.DeadlineExceeded):
		p.fail(w, r, http.StatusServiceUnavailable, "The remote takes too long to answer. Try again in a moment.")
	default:
		if r.Context().Err() == nil {
			p.o.Log.Error("a page cannot be shown", "path", r.URL.Path, "error", err)
		}
		p.fail(w, r, http.StatusInternalServerError, "The remote cannot be read. The log of the server says why.")
	}
}

func (p *Page) fail(w http.ResponseWriter, r *http.Request, status int, message string) {
	p.render(w, r, status, &failureView{Message: message, Status: http.StatusText(status)})
}

// linkTo returns the path of a repository's page.
func linkTo(repository string) string {
	return (&url.URL{Path: repositoryPath + repository}).EscapedPath()
}

// linkToTag returns the path of an image's page.
func linkToTag(ref image.Reference) string {
	return linkTo(ref.Repository) + "?" + url.Values{"tag": {ref.Tag}}.Encode()
}
