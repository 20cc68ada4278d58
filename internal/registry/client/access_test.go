package client_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

func known(context.Context, string) (client.Credentials, error) {
	return client.Credentials{User: registrytest.User, Password: registrytest.Password}, nil
}

// image2 is an image of two layers.
func image2(t testing.TB, name string) remotetest.Image {
	return remotetest.NewImage(t, name, remotetest.FileLayer(t, "base", "base of "+name), remotetest.Noise(name, 3<<20))
}

func push(t testing.TB, r *client.Registry, ref string, img remotetest.Image) {
	t.Helper()
	parsed := remotetest.Ref(t, ref)
	if _, err := remotetest.Push(t.Context(), r.In(parsed.Repository), parsed, img); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
}

func holds(t testing.TB, r *client.Registry, ref string, img remotetest.Image) {
	t.Helper()
	parsed := remotetest.Ref(t, ref)
	got, err := remotetest.Pull(t.Context(), r.In(parsed.Repository), parsed)
	if err != nil {
		t.Errorf("pull %s: %v", ref, err)
	} else if diff := img.Diff(got); diff != "" {
		t.Errorf("pull %s: %s", ref, diff)
	}
}

// TestClientCertificate: a registry that asks for a certificate is shown the one that
// docker has for this host, and believed for the authority beside it.
func TestClientCertificate(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{TLS: true, Shown: true})
	certs := t.TempDir()
	dir := filepath.Join(certs, s.Host)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	reach := func() *client.Registry {
		return open(t, s.Host+"/team", func(o *client.Options) { o.CertsDir, o.Chunk = certs, 1<<20 })
	}
	place := func(from, name string) {
		t.Helper()
		pem, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), pem, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	place(s.CAFile, "ca.crt")
	if _, err := reach().Resolve(t.Context(), remotetest.Ref(t, "app:1")); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "certs.d/"+s.Host) {
		t.Errorf("without a certificate: %v, %s", err, fault.AdviceOf(err))
	}
	place(s.CAFile, "client.cert")
	place(s.KeyFile, "client.key")
	img := image2(t, "app")
	push(t, reach(), "app:1", img)
	holds(t, reach(), "app:1", img)
}

// TestIdentityToken: where a login gave a token instead of keeping the password, that
// buys those for requests.
func TestIdentityToken(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Token: true})
	reach := func(token string) *client.Registry {
		return open(t, s.Host+"/team", func(o *client.Options) {
			o.Chunk = 1 << 20
			o.Credentials = func(context.Context, string) (client.Credentials, error) {
				return client.Credentials{IdentityToken: token}, nil
			}
		})
	}
	img := image2(t, "app")
	push(t, reach(registrytest.IdentityToken), "app:1", img)
	holds(t, reach(registrytest.IdentityToken), "app:1", img)
	_, err := reach("another secret").Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.Refused) || strings.Contains(fmt.Sprintf("%v %s", err, fault.AdviceOf(err)), "secret") {
		t.Errorf("a wrong token: %v, %s", err, fault.AdviceOf(err))
	}
}

// TestAccess: with the right credentials all works, without them it is refused, with
// what to do, and nothing tells the password.
func TestAccess(t *testing.T) {
	img := image2(t, "app")
	for name, o := range map[string]registrytest.Options{
		"basic": {Basic: true}, "token": {Token: true}, "TLS": {TLS: true}, "TLS and basic": {TLS: true, Basic: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.Start(t, o)
			at := s.Host + "/team"
			if o.TLS {
				at += "?ca-file=" + s.CAFile
			}
			var log bytes.Buffer
			r := open(t, at, func(o *client.Options) {
				o.Credentials, o.Chunk = known, 1<<20
				o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			push(t, r, "app:1", img)
			holds(t, r, "app:1", img)
			if o.TLS {
				_, err := open(t, s.Host+"/team", nil).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
				if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "ca-file") {
					t.Errorf("an authority that nobody knows: %v, %s", err, fault.AdviceOf(err))
				}
				holds(t, open(t, s.Host+"/team?insecure=true", func(o *client.Options) { o.Credentials = known }), "app:1", img)
			}
			if !o.Basic && !o.Token {
				return
			}
			for what, credentials := range map[string]func(context.Context, string) (client.Credentials, error){
				"none": nil,
				"wrong": func(context.Context, string) (client.Credentials, error) {
					return client.Credentials{User: registrytest.User, Password: "another secret"}, nil
				},
			} {
				r := open(t, at, func(o *client.Options) { o.Credentials = credentials })
				_, resolved := r.Resolve(t.Context(), remotetest.Ref(t, "app:1"))
				_, err := remotetest.Push(t.Context(), r.In("app"), remotetest.Ref(t, "app:2"), img)
				for _, err := range []error{resolved, err} {
					if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "docker login "+s.Host) {
						t.Errorf("%s: %v, advice %q", what, err, fault.AdviceOf(err))
					}
					if text := fmt.Sprintf("%v %+v %s", err, err, fault.AdviceOf(err)); strings.Contains(text, "secret") {
						t.Errorf("%s: the password is told: %s", what, text)
					}
				}
			}
			if text := log.String(); strings.Contains(text, "secret") || strings.Contains(text, "Bearer") {
				t.Errorf("the log tells secrets:\n%s", text)
			}
			if o.Token && !slices.ContainsFunc(s.Tokens.Given(), func(scope string) bool { return strings.HasPrefix(scope, "repository:team/app:pull,push") }) {
				t.Errorf("the tokens were for %q", s.Tokens.Given())
			}
		})
	}
}

// TestCredentials reads what docker has stored, in its file and by a helper.
func TestCredentials(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Basic: true})
	img := image2(t, "app")
	stored := t.TempDir()
	write(t, filepath.Join(stored, "config.json"), fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, s.Host, registrytest.User, registrytest.Password))
	push(t, open(t, s.Host, func(o *client.Options) { o.Credentials = client.DockerCredentials(stored, nil) }), "app:1", img)

	helped, bin := t.TempDir(), t.TempDir()
	write(t, filepath.Join(helped, "config.json"), fmt.Sprintf(`{"credHelpers":{%q:"tests"}}`, s.Host))
	helper := filepath.Join(bin, "docker-credential-tests")
	write(t, helper, fmt.Sprintf("#!/bin/sh\nprintf '{\"ServerURL\":\"\",\"Username\":\"%s\",\"Secret\":\"%s\"}'\n", registrytest.User, registrytest.Password))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	holds(t, open(t, s.Host, func(o *client.Options) { o.Credentials = client.DockerCredentials(helped, nil) }), "app:1", img)

	write(t, helper, "#!/bin/sh\necho no secret here\nexit 1\n")
	_, err := open(t, s.Host, func(o *client.Options) { o.Credentials = client.DockerCredentials(helped, nil) }).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if err == nil || !strings.Contains(err.Error(), "credential helper") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a helper that fails: %v", err)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestRedirects: blobs may lie elsewhere; credentials stay with the registry, and
// what the other URL says in errors and logs is nothing but its host.
func TestRedirects(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Basic: true})
	img := image2(t, "app")
	push(t, open(t, s.Host, func(o *client.Options) { o.Credentials = known }), "app:1", img)
	var mu sync.Mutex
	var came []string
	status := http.StatusOK
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		came = append(came, req.Header.Get("Authorization"))
		status := status
		mu.Unlock()
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		id, _ := image.ParseDigest(strings.TrimPrefix(req.URL.Path, "/"))
		http.ServeFile(w, req, s.Blob(id))
	}))
	defer elsewhere.Close()
	proxy := registrytest.NewProxy(t, s)
	proxy.Rule(func(req *http.Request) registrytest.Fault {
		if _, id, ok := strings.Cut(req.URL.Path, "/blobs/"); ok && req.Method == http.MethodGet && req.Header.Get("Authorization") != "" {
			return registrytest.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {elsewhere.URL + "/" + id + "?signature=verysecret"}}}
		}
		return registrytest.Fault{}
	})
	var log bytes.Buffer
	reopen := func() *client.Registry {
		return open(t, proxy.Host, func(o *client.Options) {
			o.Credentials = known
			o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
	}
	holds(t, reopen(), "app:1", img)
	mu.Lock()
	if len(came) == 0 || strings.Join(came, "") != "" {
		t.Errorf("the other server got %d requests, and credentials: %q", len(came), came)
	}
	status = http.StatusInternalServerError
	mu.Unlock()
	_, err := remotetest.Pull(t.Context(), reopen(), remotetest.Ref(t, "app:1"))
	if err == nil || strings.Contains(err.Error()+log.String(), "verysecret") {
		t.Errorf("%v\n%s", err, log.String())
	}
	elsewhere.Close()
	_, err = remotetest.Pull(t.Context(), reopen(), remotetest.Ref(t, "app:1"))
	if err == nil || strings.Contains(err.Error()+log.String(), "verysecret") {
		t.Errorf("%v\n%s", err, log.String())
	}
}

// TestMounts: what another repository of the registry has is not sent again, also in
// a tag across repositories, for which tokens for both are asked.
func TestMounts(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Token: true})
	img, dir := image2(t, "app"), t.TempDir()
	change := func(o *client.Options) { o.Credentials, o.CacheDir = known, dir }
	push(t, open(t, s.Host, change), "one/app:1", img)

	other := remotetest.NewImage(t, "other", img.Layers...)
	r := open(t, s.Host, change)
	missing, _, err := r.In("two/app").Missing(t.Context(), other.Closure())
	if err != nil || len(missing.Layers) != 0 {
		t.Errorf("missing %v, %v", missing, err)
	}
	push(t, r, "two/app:1", other)
	holds(t, r, "two/app:1", other)

	fresh := open(t, s.Host, func(o *client.Options) { o.Credentials = known })
	id, err := fresh.Resolve(t.Context(), remotetest.Ref(t, "one/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Tag(t.Context(), remotetest.Ref(t, "three/app:1"), id); err != nil {
		t.Fatal(err)
	}
	holds(t, fresh, "three/app:1", img)
	if now, err := fresh.Resolve(t.Context(), remotetest.Ref(t, "three/app:1")); err != nil || now != id {
		t.Errorf("it names %s, %v, want %s", now, err, id)
	}

	// What only looks mounts nothing.
	plan := open(t, s.Host, func(o *client.Options) { change(o); o.Plan = true })
	missing, _, err = plan.In("four/app").Missing(t.Context(), img.Closure())
	if err != nil || len(missing.Layers) != 0 || len(missing.Documents) != 1 {
		t.Errorf("missing %v, %v", missing, err)
	}
	if found, err := open(t, s.Host, change).In("four/app").Look(t.Context(), img.Closure(), nil); err != nil || len(found.Layers) != 0 {
		t.Errorf("a plan has mounted %v, %v", found, err)
	}
}

// TestPoisonedHints: what is remembered wrongly makes no image that is another one.
func TestPoisonedHints(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	dir := t.TempDir()
	change := func(o *client.Options) { o.CacheDir = dir }
	img, evil := image2(t, "app"), image2(t, "evil")
	push(t, open(t, s.Host, change), "app:evil", evil)
	files, err := filepath.Glob(filepath.Join(dir, "registry", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	kept, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(kept, []byte("\n"))
	for i := range img.Layers {
		body = bytes.ReplaceAll(body, []byte(evil.DiffIDs()[i].Hex()), []byte(img.DiffIDs()[i].Hex()))
	}
	write(t, files[0], "dogestry registry 1 "+image.DigestOf(body).Hex()+"\n"+string(body))
	push(t, open(t, s.Host, change), "app:1", img)
	_, err = remotetest.Pull(t.Context(), open(t, s.Host, nil), remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.Damaged) {
		t.Errorf("%v, want a damaged fault: the bytes are not the diffID's", err)
	}
	write(t, files[0], "nonsense")
	push(t, open(t, s.Host, change), "again:1", img)
	holds(t, open(t, s.Host, nil), "again:1", img)
}

// TestPoisonedManifest: what a manifest of others says of a layer is not believed where
// the blob has not even the size that it says.
func TestPoisonedManifest(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	r, evil := open(t, s.Host, nil), image2(t, "evil")
	push(t, r, "app:evil", evil)
	id, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:evil"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.In("app").Document(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	img := image2(t, "app")
	if err := r.In("app").PutDocument(t.Context(), img.Config); err != nil {
		t.Fatal(err)
	}
	for i := range m.Layers {
		m.Layers[i].Size++
	}
	putManifest(t, s.Host, "app", "latest", image.StackManifest(img.Config, m.Layers))
	push(t, open(t, s.Host, nil), "app:1", img)
	holds(t, open(t, s.Host, nil), "app:1", img)
}

// TestDial: whoever gives a dialer sees every connection, that to the token server too.
func TestDial(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Token: true})
	img := image2(t, "app")
	var mu sync.Mutex
	dialled := map[string]bool{}
	allowed := func(string) bool { return true }
	change := func(o *client.Options) {
		o.Credentials = known
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dialled[address] = true
			if !allowed(address) {
				return nil, fault.New(fault.Refused, "sealed: %s may not be contacted", address)
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	push(t, open(t, s.Host, change), "app:1", img)
	tokens, err := url.Parse(s.Tokens.URL)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if !dialled[s.Host] || !dialled[tokens.Host] || len(dialled) != 2 {
		t.Errorf("it dialled %v", dialled)
	}
	mu.Unlock()
	for _, refused := range []string{s.Host, tokens.Host} {
		mu.Lock()
		allowed = func(address string) bool { return address != refused }
		mu.Unlock()
		if _, err := open(t, s.Host, change).Resolve(t.Context(), remotetest.Ref(t, "app:1")); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "sealed: "+refused) {
			t.Errorf("%s is refused: %v", refused, err)
		}
	}
}
