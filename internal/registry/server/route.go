package server

import (
	"net/http"
	"slices"
	"strings"
)

// call is a request for something of a repository.
type call struct {
	w          http.ResponseWriter
	r          *http.Request
	name       string // of the repository, as the client wrote it
	repository string // the same, as the remote has it
	arg        string // the last element of the path: a tag, a digest, an upload; may be empty
}

type handler func(call) error

// route is a row of the table of what is answered.
type route struct {
	tail    []string // of the path, behind the name of the repository; "*" stands for any element
	reads   handler  // GET and HEAD
	writes  map[string]handler
	refused map[string]string // methods that are refused, and why
}

// anyArg is the element of a path that a route takes as its argument.
const anyArg = "*"

// table is what is answered below /v2/NAME/. Of two rows that fit the first one counts.
func (s *Server) table() []route {
	return []route{
		{
			tail:   []string{"manifests", anyArg},
			reads:  s.getManifest,
			writes: map[string]handler{http.MethodPut: s.putManifest, http.MethodDelete: s.deleteManifest},
		},
		{
			tail:   []string{"blobs", "uploads"},
			writes: map[string]handler{http.MethodPost: s.postUpload},
		},
		{
			tail:   []string{"blobs", "uploads", ""},
			writes: map[string]handler{http.MethodPost: s.postUpload},
		},
		{
			tail: []string{"blobs", "uploads", anyArg},
			writes: map[string]handler{
				http.MethodGet:    s.getUpload,
				http.MethodPatch:  s.patchUpload,
				http.MethodPut:    s.putUpload,
				http.MethodDelete: s.deleteUpload,
			},
		},
		{
			tail:    []string{"blobs", anyArg},
			reads:   s.getBlob,
			refused: map[string]string{http.MethodDelete: "blobs are deleted by `dogestry gc`, once nothing needs them"},
		},
		{tail: []string{"tags", "list"}, reads: s.listTags},
		{tail: []string{"referrers", anyArg}, reads: s.listReferrers},
	}
}

// find returns the row for a path, the name of the repository in it, and the argument.
func (s *Server) find(path string) (row route, name, arg string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, "", "", false
	}
	elements := strings.Split(rest, "/")
	for _, row := range s.routes {
		n := len(elements) - len(row.tail)
		if n < 1 || !slices.EqualFunc(row.tail, elements[n:], fits) {
			continue
		}
		return row, strings.Join(elements[:n], "/"), elements[len(elements)-1], true
	}
	return route{}, "", "", false
}

func fits(pattern, element string) bool {
	return pattern == element || pattern == anyArg && element != ""
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch r.URL.Path {
	case "/v2", "/v2/":
		if !reading {
			return notAllowed("")
		}
		return writeJSON(w, r, "application/json", struct{}{})
	case "/v2/_catalog":
		if !reading {
			return notAllowed("")
		}
		return s.listRepositories(w, r)
	}
	row, name, arg, ok := s.find(r.URL.Path)
	if !ok {
		return &failure{status: http.StatusNotFound, code: codeUnsupported, message: "there is nothing at this path"}
	}
	c := call{w: w, r: r, name: name, arg: arg}
	var err error
	if c.repository, err = s.repository(r, name); err != nil {
		return err
	}
	switch {
	case row.reads != nil && reading:
		return row.reads(c)
	case row.writes[r.Method] == nil:
		return notAllowed(row.refused[r.Method])
	case s.to == nil:
		return notAllowed("this registry is read only")
	}
	return row.writes[r.Method](c)
}

func notAllowed(why string) error {
	if why == "" {
		why = "this is not answered here"
	}
	return &failure{status: http.StatusMethodNotAllowed, code: codeUnsupported, message: why}
}
