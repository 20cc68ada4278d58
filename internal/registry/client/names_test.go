package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]client.Address{
		"registry://registry.example.com":                          {Host: "registry.example.com"},
		"registry://127.0.0.1:5000/team/sub/":                      {Host: "127.0.0.1:5000", Prefix: "team/sub"},
		"registry://[::1]:5000":                                    {Host: "[::1]:5000"},
		"registry://index.docker.io":                               {Host: "docker.io"},
		"registry://Docker.IO":                                     {Host: "docker.io"},
		"registry://host/p?plain-http=true&insecure=1&ca-file=x.p": {Host: "host", Prefix: "p", PlainHTTP: true, Insecure: true, CAFile: "x.p"},
	} {
		got, err := client.Parse(name)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for _, name := range []string{
		"", "registry:", "registry://", "registry:///path", "https://host", "registry://user:secret@host", "registry://host/UPPER",
		"registry://host/a//b", "registry://host/a:tag", "registry://host:port", "registry://host?nothing=1", "registry://host?insecure=perhaps",
		"registry://host?insecure=true&insecure=false", "registry://ho st", "registry://host/p#x", "registry://-host",
	} {
		if a, err := client.Parse(name); !fault.Is(err, fault.Usage) || strings.Contains(fmt.Sprint(err, fault.AdviceOf(err)), "secret") {
			t.Errorf("%q: %+v, %v, %s", name, a, err, fault.AdviceOf(err))
		}
	}
}

// TestNames: which names no registry can have, and what to call them.
func TestNames(t *testing.T) {
	r := open(t, "registry.example.com/prefix", nil)
	for name, advice := range map[string]string{
		"localhost:5000/app":            "--as app:TAG",
		"registry.example.com/team/app": "--as team/app:TAG",
		"Example/app":                   "--as app:TAG",
		strings.Repeat("n", 250):        "--as NAME:TAG",
	} {
		_, err := r.Resolve(t.Context(), image.Reference{Repository: name, Tag: "1"})
		if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), advice) {
			t.Errorf("%s: %v, advice %q, want %q", name, err, fault.AdviceOf(err), advice)
		}
		if err := r.In(name).PutDocument(t.Context(), []byte("{}")); !fault.Is(err, fault.Refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := r.Missing(t.Context(), remote.Closure{}); err == nil {
		t.Error("the registry itself takes what has no repository")
	}
}

// TestLists: pages of any size, names outside of the prefix and lists of referrers
// left out, and registries that refuse.
func TestLists(t *testing.T) {
	var tags, repositories []string
	for i := range 2500 {
		tags = append(tags, fmt.Sprintf("v%04d", i))
	}
	tags = append(tags, "sha256-"+strings.Repeat("0", 64), "bad\x1btag")
	for i := range 250 {
		repositories = append(repositories, fmt.Sprintf("team/app-%03d", i), fmt.Sprintf("other/app-%03d", i))
	}
	refuse := 0
	pages := 0
	page := func(w http.ResponseWriter, req *http.Request, key string, all []string) {
		pages++
		last := req.URL.Query().Get("last")
		from := 0
		if last != "" {
			from = slices.Index(all, last) + 1
		}
		to := min(from+100, len(all))
		if to < len(all) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%s>; rel="next"`, req.URL.Path, all[to-1]))
		}
		quoted := strings.Join(all[from:to], `","`)
		fmt.Fprintf(w, `{"name":"x",%q:["%s"]}`, key, strings.ReplaceAll(quoted, "\x1b", `\u001b`))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case refuse != 0:
			w.WriteHeader(refuse)
		case req.URL.Path == "/v2/_catalog":
			page(w, req, "repositories", repositories)
		case req.URL.Path == "/v2/team/app-007/tags/list":
			page(w, req, "tags", tags)
		case strings.HasSuffix(req.URL.Path, "/tags/list"):
			http.NotFound(w, req)
		}
	}))
	defer server.Close()
	r := open(t, strings.TrimPrefix(server.URL, "http://")+"/team?plain-http=true", nil)
	list := func(repository string) (got []string, err error) {
		for tag, err := range r.References(t.Context(), repository) {
			if err != nil {
				return got, err
			}
			got = append(got, tag.Reference.String())
		}
		return got, nil
	}
	got, err := list("app-007")
	if err != nil || len(got) != 2500 || got[2499] != "app-007:v2499" {
		t.Errorf("%d tags, %v", len(got), err)
	}
	if got, err := list(""); err != nil || len(got) != 2500 {
		t.Errorf("%d tags of all, %v", len(got), err)
	}
	pages = 0
	for range r.References(t.Context(), "app-007") {
		break
	}
	if pages != 1 {
		t.Errorf("for one tag %d pages are read", pages)
	}
	if got, err := list("nothing"); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed} {
		refuse = status
		if _, err := list(""); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "REPOSITORY") {
			t.Errorf("%d: %v, %s", status, err, fault.AdviceOf(err))
		}
	}
	if _, err := open(t, "docker.io", nil).Look(t.Context(), remote.Closure{}, nil); err != nil {
		t.Error(err)
	}
	for _, err := range open(t, "docker.io", nil).References(t.Context(), "") { // asks nobody
		if !fault.Is(err, fault.Refused) {
			t.Errorf("Docker Hub: %v", err)
		}
	}
}

// TestUntagByDigest: a registry that removes images only removes a tag where no other
// needs what it names, and nothing else.
func TestUntagByDigest(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, s)
	onlyByDigest := func(req *http.Request) registrytest.Fault {
		if req.Method == http.MethodDelete && !strings.Contains(req.URL.Path, "sha256:") {
			return registrytest.Fault{Status: http.StatusBadRequest, Body: `{"errors":[{"code":"UNSUPPORTED"}]}`}
		}
		return registrytest.Fault{}
	}
	proxy.Rule(onlyByDigest)
	r := open(t, proxy.Host, nil)
	one, two := image2(t, "one"), image2(t, "two")
	push(t, r, "app:1", one)
	push(t, r, "app:2", two)
	push(t, r, "app:3", two)
	id := func(ref string) image.ID {
		id, err := r.Resolve(t.Context(), remotetest.Ref(t, ref))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if err := r.Untag(t.Context(), remotetest.Ref(t, "app:2"), id("app:2")); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "3") {
		t.Errorf("with another tag: %v, %s", err, fault.AdviceOf(err))
	}
	if err := r.Untag(t.Context(), remotetest.Ref(t, "app:1"), id("app:1")); err != nil {
		t.Error(err)
	}
	if _, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:1")); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is still there: %v", err)
	}
	holds(t, r, "app:2", two)
	holds(t, r, "app:3", two)

	// A part of an index that has a tag, or of one within such an index.
	in := r.In("multi")
	for _, nested := range []bool{false, true} {
		push(t, r, "multi:amd64", one)
		part := id("multi:amd64")
		for range map[bool]int{false: 1, true: 2}[nested] {
			doc, err := in.Document(t.Context(), part)
			if err != nil {
				t.Fatal(err)
			}
			media := image.MediaTypeOf(doc, "application/vnd.oci.image.manifest.v1+json")
			index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"digest":"%s","size":%d}]}`, media, part, len(doc))
			putManifest(t, s.Host, "multi", "all", index)
			part = image.DigestOf(index)
		}
		if err := r.Untag(t.Context(), remotetest.Ref(t, "multi:amd64"), id("multi:amd64")); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), ": all.") {
			t.Errorf("a part, nested %t: %v, %s", nested, err, fault.AdviceOf(err))
		}
		if err := in.(*client.Repository).Remove(t.Context(), "multi", id("multi:amd64")); !fault.Is(err, fault.Refused) {
			t.Errorf("a part as a member, nested %t: %v", nested, err)
		}
		holds(t, r, "multi:amd64", one)
		// What cannot be read may need it.
		fresh := open(t, proxy.Host, nil)
		proxy.Rule(func(req *http.Request) registrytest.Fault {
			if req.Method == http.MethodDelete && strings.HasSuffix(req.URL.Path, "/amd64") {
				return registrytest.Fault{Status: http.StatusMethodNotAllowed}
			}
			if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/manifests/all") {
				return registrytest.Fault{Status: http.StatusForbidden}
			}
			return registrytest.Fault{}
		})
		if err := fresh.Untag(t.Context(), remotetest.Ref(t, "multi:amd64"), id("multi:amd64")); err == nil {
			t.Error("removed, though another tag cannot be read")
		}
		proxy.Rule(onlyByDigest)
		holds(t, r, "multi:amd64", one)
		if err := r.Untag(t.Context(), remotetest.Ref(t, "multi:all"), part); err != nil { // which no other needs
			t.Error(err)
		}
	}

	never := registrytest.Start(t, registrytest.Options{NoDelete: true})
	r = open(t, never.Host, nil)
	push(t, r, "app:1", one)
	if err := r.Untag(t.Context(), remotetest.Ref(t, "app:1"), id("app:1")); !fault.Is(err, fault.Refused) || fault.AdviceOf(err) == "" {
		t.Errorf("a registry that removes nothing: %v", err)
	}
	holds(t, r, "app:1", one)
}

// putManifest stores a manifest or index as any client may.
func putManifest(t *testing.T, host, repository, tag string, doc []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/"+repository+"/manifests/"+tag, bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", image.MediaTypeOf(doc, ""))
	connection := &http.Transport{DisableKeepAlives: true}
	resp, err := connection.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("it answers %s", resp.Status)
	}
}

// TestOutside: what lets engines fetch a layer from elsewhere gets no name, also where
// another client has put it, and goes to no other repository.
func TestOutside(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	r, img := open(t, s.Host, func(o *client.Options) { o.Compression = client.None }), image2(t, "app")
	push(t, r, "app:1", img)
	media := "application/vnd.oci.image.manifest.v1+json"
	doc := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[`,
		media, img.ID, len(img.Config))
	for i, id := range img.DiffIDs() {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = fmt.Appendf(doc, `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d,"urls":["https://elsewhere.example/layer"]}`, id, len(img.Layers[i]))
	}
	doc = append(doc, ']', '}')
	if err := r.In("app").PutDocument(t.Context(), doc); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "elsewhere.example") {
		t.Errorf("put: %v", err)
	}
	proxy := registrytest.NewProxy(t, s)
	proxy.Rule(func(req *http.Request) registrytest.Fault { // the stock one takes none
		where := "/v2/app/manifests/"
		if req.Method != http.MethodPut && (req.URL.Path == where+"theirs" || req.URL.Path == where+image.DigestOf(doc).String()) {
			return registrytest.Fault{
				Status: http.StatusOK, Body: string(doc),
				Header: http.Header{"Content-Type": {media}, "Docker-Content-Digest": {image.DigestOf(doc).String()}},
			}
		}
		return registrytest.Fault{}
	})
	fresh := open(t, proxy.Host, nil)
	id, err := fresh.Resolve(t.Context(), remotetest.Ref(t, "app:theirs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app:mine", "other:mine"} {
		if err := fresh.Tag(t.Context(), remotetest.Ref(t, name), id); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "elsewhere.example") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := fresh.Resolve(t.Context(), remotetest.Ref(t, name)); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	if found, err := fresh.In("other").Look(t.Context(), remote.Closure{Layers: img.DiffIDs()}, nil); err != nil || len(found.Layers) > 0 {
		t.Errorf("it has brought %v, %v", found, err)
	}
}

// TestMembers: artifacts that refer to an image are told, by the list that stands in
// for the API where the registry has none.
func TestMembers(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	r := open(t, s.Host, nil)
	img := image2(t, "app")
	push(t, r, "app:1", img)
	in := r.In("app").(*client.Repository)
	id, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := in.Document(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var want []image.Digest
	config := []byte("{}")
	if err := in.PutDocument(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"signature", "sbom"} {
		doc := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x.%s",`+
			`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"%s","size":2},"layers":[],`+
			`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d}}`,
			kind, image.DigestOf(config), id, len(subject))
		if err := in.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		if err := in.Add(t.Context(), "app", image.DigestOf(doc)); err != nil {
			t.Error(err)
		}
		want = append(want, image.DigestOf(doc))
	}
	slices.SortFunc(want, func(a, b image.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
	other := open(t, s.Host, nil).In("app").(*client.Repository)
	referrers := func() (got []image.Digest) {
		for id, err := range other.Referrers(t.Context(), "app", id) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, id)
		}
		return got
	}
	if diff := cmp.Diff(want, referrers()); diff != "" {
		t.Error(diff)
	}
	for tag := range r.References(t.Context(), "app") {
		if tag.Reference.Tag != "1" {
			t.Errorf("the list of referrers is told as the tag %s", tag.Reference)
		}
	}
	if there, err := other.Belongs(t.Context(), "app", want[0]); err != nil || !there {
		t.Errorf("it belongs: %t, %v", there, err)
	}
	if err := other.Remove(t.Context(), "app", id); !fault.Is(err, fault.Refused) {
		t.Errorf("a manifest with a tag: %v", err)
	}
	for range 2 {
		if err := other.Remove(t.Context(), "app", want[0]); err != nil {
			t.Error(err)
		}
	}
	if there, err := other.Belongs(t.Context(), "app", want[0]); err != nil || there {
		t.Errorf("it belongs still: %t, %v", there, err)
	}
	if diff := cmp.Diff(want[1:], referrers()); diff != "" {
		t.Error(diff)
	}
	lost := image.DigestOf([]byte("nothing"))
	var incomplete *remote.IncompleteError
	if err := other.Add(t.Context(), "app", lost); !errors.As(err, &incomplete) {
		t.Errorf("what is not there: %v", err)
	}
	holds(t, r, "app:1", img)
}
