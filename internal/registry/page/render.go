package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
)

//go:embed style.css
var style string

//go:embed page.html
var pageHTML string

// policy allows a browser this style sheet, and to search; nothing else, from nowhere
// (Content Security Policy level 3). Whatever a name looks like, it is a name.
var policy = "default-src 'none'; style-src 'sha256-" + sumOf(style) + "'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(style) },
	"count": count,
}).Parse(pageHTML))

// count says how many of what there are.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + map[string]string{"repository": "repositories", "tag": "tags", "layer": "layers"}[what]
}

// query returns parameters, those that are empty left out.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v.Encode()
}

// render writes a page: all of it, or none.
func (p *Page) render(w http.ResponseWriter, r *http.Request, status int, view any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, templateOf(view), view); err != nil {
		p.o.Log.Error("a page cannot be written", "path", r.URL.Path, "error", err)
		http.Error(w, "this page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes()) // who is gone sees nothing
	}
}

func templateOf(view any) string {
	switch view.(type) {
	case *repositoriesView:
		return "repositories"
	case *repositoryView:
		return "repository"
	case *imageView:
		return "image"
	default:
		return "failure"
	}
}
