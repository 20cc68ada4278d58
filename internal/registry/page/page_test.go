package page

import (
	"context"
	"fmt"
	"html"
	"iter"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// wants makes sure that all texts are on a page, in this order.
func wants(t *testing.T, p http.Handler, path string, texts ...string) string {
	t.Helper()
	code, body, _ := get(t, p, path)
	if code != http.StatusOK {
		t.Errorf("%s: %d", path, code)
	}
	_, body, _ = strings.Cut(body, "<body>")
	rest := body
	for _, text := range texts {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			t.Errorf("%s: no %q, or not in this order, in\n%s", path, text, body)
			continue
		}
		rest = after
	}
	return body
}

func TestRepositories(t *testing.T) {
	r, _ := sample(t)
	p := open(r)
	body := wants(t, p, "/", "6 repositories, 16 tags in", "s3://images/prod",
		`href="/repositories/debian">debian</a></td><td class="number">2</td>`,
		`href="/repositories/localhost:5000/team/myapp">localhost:5000/team/myapp</a>`,
		`href="/repositories/shop/api">shop/api</a></td><td class="number">9</td>`)
	if strings.Contains(body, "<form") {
		t.Error("six repositories can be filtered")
	}
	body = wants(t, p, "/?filter=shop", "shop/api", "shop/worker")
	if strings.Contains(body, "debian") {
		t.Error("the filter does nothing")
	}
	wants(t, p, "/?filter=%22%3Cb%3E", "No repository has “&#34;&lt;b&gt;”")
}

func TestNothingIsHereYet(t *testing.T) {
	r, err := repo.Open(t.Context(), mem.New(), repo.Options{Name: "empty", Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, open(r), "/", "0 repositories, 0 tags", "Nothing is here yet")
}

func TestRepository(t *testing.T) {
	r, store := sample(t)
	p := open(r)
	wants(t, p, "/repositories/shop/api", "9 tags", `href="/repositories/shop/api?tag=1.8.0">1.8.0</a>`, "linux/amd64", "109kB", "stored", "26 hours ago", ">1.7.0</a>", ">1.0.0</a>")
	wants(t, p, "/repositories/localhost:5000/team/myapp", ">V2</a>", "linux/arm64")
	wants(t, p, "/repositories/evil/image", html.EscapeString(attack))
	var damaged atomic.Int64
	p.o.Damage = func(error) { damaged.Add(1) }
	// Damage of one image is told in its row.
	id, err := r.Resolve(t.Context(), remotetest.Ref(t, "shop/api:1.3.0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "images/"+id.Hex()+"/json"); err != nil {
		t.Fatal(err)
	}
	wants(t, p, "/repositories/shop/api", ">1.4.0</a>", "109kB", ">1.3.0</a>", "damaged or incomplete", ">1.2.0</a>", "109kB")
	if code, body, _ := get(t, p, "/repositories/shop/api?tag=1.3.0"); code != http.StatusInternalServerError || !strings.Contains(body, "damaged or incomplete") || strings.Contains(body, id.Hex()) {
		t.Errorf("%d\n%s", code, body)
	}
	if n := damaged.Load(); n != 1 {
		t.Errorf("damage is told %d times", n)
	}
}

func TestImage(t *testing.T) {
	r, _ := sample(t)
	p := open(r)
	id, err := r.Resolve(t.Context(), remotetest.Ref(t, "shop/api:1.8.0"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := r.ManifestOf(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	digest := image.DigestOf(manifest).String()
	body := wants(t, p, "/repositories/shop/api?tag=1.8.0", `href="/repositories/shop/api">shop/api</a>`, "1.8.0</h1>",
		"docker pull registry.example:5000/shop/api:1.8.0<", "docker pull registry.example:5000/shop/api@"+digest+"<", "dogestry pull s3://images/prod shop/api:1.8.0<",
		"linux/amd64", "109kB", "101kB of it shared with other tags", "26 hours ago", id.String(), digest,
		`href="/repositories/shop/api?tag=1.7.0">shop/api:1.7.0</a>`, "and 8 more", "and 6 more", ">–</span>", "Compared with all 15 other tags",
		"RUN apt-get update &amp;&amp;", "ENV LANG=C.UTF-8", "no layer")
	if strings.Contains(body, "Platforms") {
		t.Error("an image of one platform shows platforms")
	}
	wants(t, p, "/repositories/multi/tool?tag=4", "linux/amd64, linux/arm64", "Platforms", "linux/amd64", "linux/arm64", "linux/s390x", "not in this remote", "multi/tool:3")
	wants(t, p, "/repositories/evil/image?tag=1", html.EscapeString(attack))
}

// TestHost: what a browser says that it asks is shown only where it is a host.
func TestHost(t *testing.T) {
	r, _ := sample(t)
	p := open(r)
	for host, want := range map[string]bool{"a:5000": true, "127.0.0.1": true, "[::1]:5000": true, "a.b-c": true, "": false, "a b": false, "a;rm": false, "a/b": false, "$(x)": false, "a:b": false} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/repositories/multi/tool?tag=3", nil)
		req.Host = host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, req)
		if got := strings.Contains(w.Body.String(), "docker pull"); got != want {
			t.Errorf("host %q is shown: %v", host, got)
		}
	}
	if body := wants(t, p, "/repositories/localhost:5000/team/myapp?tag=V2", "dogestry pull"); strings.Contains(body, "docker pull") {
		t.Error("a name with a port is to be pulled by docker")
	}
}

// TestFormat1 shows images by the original dogestry without reading their layers.
func TestFormat1(t *testing.T) {
	store, err := file.Open("../../../testdata/golden/1.0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), store, repo.Options{Name: "old", Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	p := open(r)
	_, body, _ := get(t, p, "/")
	links := regexp.MustCompile(`href="(/repositories/[^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(links) == 0 {
		t.Fatalf("no repository in\n%s", body)
	}
	for _, l := range links {
		if strings.HasSuffix(l[1], "/baseless") {
			continue // a part of it is missing
		}
		body := wants(t, p, html.UnescapeString(l[1]))
		for _, tag := range regexp.MustCompile(`href="(/repositories/[^"]+\?tag=[^"]+)"`).FindAllStringSubmatch(body, -1) {
			wants(t, p, html.UnescapeString(tag[1]), "by the original dogestry")
		}
	}
}

func TestNoSuchPage(t *testing.T) {
	r, _ := sample(t)
	p := open(r)
	for _, path := range []string{
		"/favicon.ico", "/repositories", "/repositories/", "/repositories/none", "/repositories/shop", "/repositories/Shop/api", "/repositories/shop/api:1.8.0",
		"/repositories/shop/api/", "/repositories/../shop/api", "/repositories/library/debian", "/repositories/shop/api?tag=none", "/repositories/shop/api?tag=../x",
		"/repositories/shop/api?tag=1.8.0@sha256:" + strings.Repeat("0", 64), "/repositories/%00", "/repositories/" + strings.Repeat("a", 5000),
	} {
		if code, _, _ := get(t, p, path); code != http.StatusNotFound {
			t.Errorf("%.100s: %d", path, code)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodOptions} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/", nil))
	if w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD: %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}

// TestPolicy: the style on the page is the one that the policy allows, and there is nothing else to allow.
func TestPolicy(t *testing.T) {
	r, _ := sample(t)
	_, body, header := get(t, open(r), "/")
	_, rest, _ := strings.Cut(body, "<style>")
	styled, _, ok := strings.Cut(rest, "</style>")
	if !ok || !strings.Contains(header.Get("Content-Security-Policy"), "style-src 'sha256-"+sumOf(styled)+"'") {
		t.Errorf("policy %s", header.Get("Content-Security-Policy"))
	}
	for _, not := range []string{"style=", "javascript:", "http://", "https://", "url("} {
		if strings.Contains(body, not) {
			t.Errorf("%s on the page", not)
		}
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8"} {
		if header.Get(name) != want {
			t.Errorf("%s: %s", name, header.Get(name))
		}
	}
}

// many is a remote whose tags are many, all of them one image.
type many struct {
	*repo.Repo
	tags                       []remote.Tag
	id                         image.ID
	listings, resolved, opened atomic.Int64
}

func (m *many) References(context.Context, string) iter.Seq2[remote.Tag, error] {
	m.listings.Add(1)
	return func(yield func(remote.Tag, error) bool) {
		for _, t := range m.tags {
			if !yield(t, nil) {
				return
			}
		}
	}
}

func (m *many) Resolve(context.Context, image.Reference) (image.ID, error) {
	m.resolved.Add(1)
	return m.id, nil
}

func (m *many) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	m.opened.Add(1)
	return m.Repo.Document(ctx, id)
}

// TestManyTags: a page asks for what it shows, however much there is.
func TestManyTags(t *testing.T) {
	r, _ := sample(t)
	m := &many{Repo: r}
	var err error
	if m.id, err = r.Resolve(t.Context(), remotetest.Ref(t, "multi/tool:3")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := range 10_000 {
		m.tags = append(m.tags, remote.Tag{
			Reference: image.Reference{Repository: fmt.Sprintf("team/app-%03d", n%250), Tag: fmt.Sprint(n)}, Version: "1",
			Modified: began.Add(time.Duration(n-10_000) * time.Minute),
		})
	}
	for n := range 450 {
		m.tags = append(m.tags, remote.Tag{
			Reference: image.Reference{Repository: "big/one", Tag: fmt.Sprint("v", n)}, Version: "1", Modified: began.Add(time.Duration(n-10_000) * time.Minute),
		})
	}
	p := open(m)
	check := func(path string, most int64, texts ...string) {
		t.Helper()
		m.resolved.Store(0)
		m.opened.Store(0)
		wants(t, p, path, texts...)
		if n := m.resolved.Load(); n > most {
			t.Errorf("%s: %d tags were asked for", path, n)
		}
		if n := m.opened.Load(); n > 2*most {
			t.Errorf("%s: %d documents were read", path, n)
		}
	}
	check("/", 0, "251 repositories, 10450 tags", "<form", "big/one", "team/app-098", "Page 1 of 3", `href="/?page=2"`)
	check("/?page=3", 0, "team/app-199", "team/app-249", `href="/?page=2"`, "Page 3 of 3")
	check("/?page=2&filter=app-1", 0, "team/app-100", "team/app-199")
	check("/?page=999", 0, "Page 3 of 3")
	check("/?page=-1", 0, "Page 1 of 3")
	check("/?page=x", 0, "Page 1 of 3")
	check("/repositories/big/one", perPage, "450 tags", ">v449</a>", ">v350</a>", "Page 1 of 5", `href="/repositories/big/one?page=2"`)
	check("/repositories/big/one?page=5", perPage, ">v49</a>", ">v0</a>", "Page 5 of 5")
	check("/repositories/big/one?filter=v44", perPage, ">v449</a>", ">v44</a>")
	check("/repositories/big/one?tag=v449", compared+1, "and 197 more", "Compared with 200 of 10449 other tags")
	check("/repositories/big/one?tag=v0", compared+1, "Compared with 200 of 10449 other tags")
	check("/repositories/team/app-007?tag=7", compared+1, "Compared with 200 of 10449 other tags")
	if n := m.listings.Load(); n > 1 && time.Since(began) < fresh {
		t.Errorf("the tags were listed %d times", n)
	}
	// What was read is remembered while the remote tells the same versions.
	check("/repositories/big/one", 0, ">v449</a>")
}

// TestListed: tags are listed again when they may have changed.
func TestListed(t *testing.T) {
	r, _ := sample(t)
	m := &many{Repo: r}
	now := time.Now()
	l := newListed(m, func() time.Time { return now })
	for _, c := range []struct {
		after time.Duration
		want  int64
	}{{0, 1}, {fresh - 1, 1}, {1, 2}, {-time.Hour, 3}} {
		now = now.Add(c.after)
		if _, err := l.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := m.listings.Load(); n != c.want {
			t.Errorf("after %s: %d listings, not %d", c.after, n, c.want)
		}
	}
	l.turn <- struct{}{} // somebody lists
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.get(ctx); err != context.Canceled {
		t.Errorf("error %v", err)
	}
}

// TestFewAtOnce: who finds no turn is told so.
func TestFewAtOnce(t *testing.T) {
	r, _ := sample(t)
	p := open(r)
	for range atOnce {
		p.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	<-p.turns
	wants(t, p, "/", "16 tags")
}

// broken is a remote that cannot be listed.
type broken struct{ *repo.Repo }

func (broken) References(context.Context, string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		yield(remote.Tag{}, fault.New(fault.Other, "no route to secret-place"))
	}
}

// TestUnreadable: what is wrong with a remote is for the log.
func TestUnreadable(t *testing.T) {
	r, _ := sample(t)
	code, body, _ := get(t, open(broken{r}), "/")
	if code != http.StatusInternalServerError || strings.Contains(body, "secret-place") || !strings.Contains(body, "The log of the server says why") {
		t.Errorf("%d\n%s", code, body)
	}
}
