package front

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/dogestry/dogestry/internal/fault"
)

func TestWhoMayDoWhat(t *testing.T) {
	s := start(t, Options{
		Htpasswd:   htpasswd(t, "", "reader:r3ad", "writer:wr1te"),
		WriteUsers: []string{"writer"},
		Tokens:     write(t, "", "# tokens\nci write "+sumOf("t0ken")+"\ndeploy read "+sumOf("other")+"\nci write "+sumOf("newer")+"\n"),
		Page:       http.HandlerFunc(echo),
	}, echo)
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	header := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	for what, c := range map[string]struct {
		login       func(*http.Request)
		read, write int
	}{
		"nobody":                         {func(*http.Request) {}, 401, 401},
		"reader":                         {basic("reader", "r3ad"), 200, 403},
		"writer":                         {basic("writer", "wr1te"), 200, 200},
		"wrong password":                 {basic("writer", "r3ad"), 401, 401},
		"no password":                    {basic("writer", ""), 401, 401},
		"unknown user":                   {basic("nobody", "r3ad"), 401, 401},
		"no user":                        {basic("", ""), 401, 401},
		"token":                          {header("Bearer t0ken"), 200, 200},
		"token that reads":               {header("bearer other"), 200, 403},
		"second token of a name":         {basic("ci", "newer"), 200, 200},
		"token as a password":            {basic("ci", "t0ken"), 200, 200},
		"token as another's password":    {basic("deploy", "t0ken"), 401, 401},
		"token as a user's password":     {basic("writer", "t0ken"), 401, 401},
		"wrong token":                    {header("Bearer wr1te"), 401, 401},
		"empty token":                    {header("Bearer "), 401, 401},
		"hash as a token":                {header("Bearer " + sumOf("t0ken")), 401, 401},
		"another scheme":                 {header("Digest t0ken"), 401, 401},
		"no base64":                      {header("Basic !!!"), 401, 401},
		"a token without saying what":    {header("t0ken"), 401, 401},
		"token under the name of a user": {basic("reader", "other"), 401, 401},
	} {
		for path, doc := range map[string]string{"/v2/": `{"errors":[{"code":"UNAUTHORIZED"`, "/v2/app/manifests/1": `{"errors":[{"code":"UNAUTHORIZED"`, "/": "log in first"} {
			r := s.request(t, http.MethodGet, path, nil)
			c.login(r)
			got := s.do(t, r)
			if got.code != c.read {
				t.Errorf("%s, GET %s: %d, not %d", what, path, got.code, c.read)
			}
			if got.code == http.StatusUnauthorized && (got.header.Get("WWW-Authenticate") != challenge || !strings.HasPrefix(got.body, doc)) {
				t.Errorf("%s, GET %s: headers %v, body %s", what, path, got.header, got.body)
			}
			if strings.HasPrefix(path, "/v2/") && got.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Errorf("%s, GET %s does not say that this is a registry: %v", what, path, got.header)
			}
		}
		for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, "MOVE"} {
			r := s.request(t, method, "/v2/app/manifests/1", nil)
			c.login(r)
			if got := s.do(t, r); got.code != c.write {
				t.Errorf("%s, %s: %d, not %d", what, method, got.code, c.write)
			}
		}
	}
	if got := s.get(t, "/healthz"); got.code != http.StatusOK || got.body != "ok\n" {
		t.Errorf("health without login: %+v", got)
	}
	if log := s.logged.String(); strings.Contains(log, "r3ad") || strings.Contains(log, "t0ken") || strings.Contains(log, "Basic") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	if log := s.logged.String(); !strings.Contains(log, "user=writer") || !strings.Contains(log, "user=ci") {
		t.Errorf("who it was is not in the log:\n%s", log)
	}
}

// TestMetricsNeedLoginFromElsewhere: also where a proxy on this machine stands between.
func TestMetricsNeedLoginFromElsewhere(t *testing.T) {
	s := start(t, Options{Htpasswd: htpasswd(t, "", "reader:r3ad")}, echo)
	if got := s.get(t, "/metrics"); got.code != http.StatusOK {
		t.Errorf("from loopback: %d", got.code)
	}
	r := s.request(t, http.MethodGet, "/metrics", nil)
	r.Header.Set("X-Forwarded-For", "192.0.2.1")
	if got := s.do(t, r); got.code != http.StatusUnauthorized {
		t.Errorf("by way of a proxy: %d", got.code)
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "192.0.2.1:1": false, "": false} {
		if got := fromLoopback(&http.Request{RemoteAddr: address}); got != want {
			t.Errorf("%q is from loopback: %v", address, got)
		}
	}
}

// TestLoginsAreReadAgain: what a file says holds from the next request on, whether the
// password was remembered or not; a file that makes no sense changes nothing.
func TestLoginsAreReadAgain(t *testing.T) {
	users := htpasswd(t, "", "a:one", "b:one")
	tokens := write(t, "", "ci read "+sumOf("one"))
	s := start(t, Options{Htpasswd: users, Tokens: tokens}, echo)
	code := func(user, password string) int {
		r := s.request(t, http.MethodGet, "/v2/", nil)
		r.SetBasicAuth(user, password)
		return s.do(t, r).code
	}
	check := func(when, user, password string, want int) {
		t.Helper()
		for range 2 { // the second one is remembered
			if got := code(user, password); got != want {
				t.Errorf("%s: %s with %s: %d, not %d", when, user, password, got, want)
			}
		}
	}
	check("at first", "a", "one", 200)
	check("at first", "b", "one", 200)
	check("at first", "ci", "one", 200)
	htpasswd(t, users, "a:two")
	check("after a change", "a", "one", 401)
	check("after a change", "a", "two", 200)
	check("taken out", "b", "one", 401)
	write(t, tokens, "ci read "+sumOf("two"))
	check("after a change", "ci", "one", 401)
	check("after a change", "ci", "two", 200)

	write(t, users, "a:plain\n")
	write(t, tokens, "ci")
	check("after a mistake", "a", "two", 200)
	check("after a mistake", "ci", "two", 200)
	if err := os.Remove(users); err != nil {
		t.Fatal(err)
	}
	check("without the file", "a", "two", 200)
	for file, want := range map[string]string{"htpasswd": "2", "tokens": "1"} {
		if n := s.counted(t, `dogestry_reload_failures_total{file="`+file+`"}`); n != want {
			t.Errorf("%s failures of %s are counted, not %s", n, file, want)
		}
	}
	if !strings.Contains(s.logged.String(), "level=ERROR") {
		t.Error("the mistakes are not in the log")
	}
	htpasswd(t, users, "a:three")
	check("mended", "a", "three", 200)
	check("mended", "a", "two", 401)
}

// TestFewComparisons: what takes a processor for long is done once for all that log
// in at the same time.
func TestFewComparisons(t *testing.T) {
	l, err := newLogins(Options{Htpasswd: htpasswd(t, "", "a:one"), Metrics: NewMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.SetBasicAuth("a", "one")
			if who, err := l.who(r); err != nil || who.name != "a" {
				t.Errorf("%+v, %v", who, err)
			}
		})
	}
	wg.Wait()
	if n := l.metrics.logins["password"]; n < 1 || n > uint64(cap(l.compare)) {
		t.Errorf("%d comparisons", n)
	}
	if n := l.metrics.logins["password"] + l.metrics.logins["remembered"]; n != 50 {
		t.Errorf("%d logins", n)
	}
}

// TestGuessingIsBounded: who waits for a comparison is one of few.
func TestGuessingIsBounded(t *testing.T) {
	l, err := newLogins(Options{Htpasswd: htpasswd(t, "", "a:one"), Metrics: NewMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	for range maxGuessing {
		if _, ok := l.guessing.take(); !ok {
			t.Fatal("no turn")
		}
	}
	for _, user := range []string{"a", "nobody"} { // who is none is compared, too
		if _, err := l.byPassword(t.Context(), user, "one"); err != errBusy {
			t.Errorf("%s: error %v", user, err)
		}
	}
}

func TestVerifiedIsBounded(t *testing.T) {
	v := newVerified()
	first := v.proof("a", []byte("hash"), "password")
	for n := range maxVerified + 10 {
		v.add(v.proof("a", []byte{byte(n), byte(n >> 8)}, "password"))
	}
	if len(v.was) != maxVerified {
		t.Errorf("%d are remembered", len(v.was))
	}
	v.add(first)
	if !v.has(first) {
		t.Error("the last one is not remembered")
	}
	for what, other := range map[string]proof{
		"password": v.proof("a", []byte("hash"), "Password"),
		"user":     v.proof("b", []byte("hash"), "password"),
		"hash":     v.proof("a", []byte("hasi"), "password"),
		"borders":  v.proof("ah", []byte("ash"), "password"),
		"process":  newVerified().proof("a", []byte("hash"), "password"),
	} {
		if other == first {
			t.Errorf("another %s has the same proof", what)
		}
	}
}

// TestNobodyTakesAsLong: an unknown user is compared with as dear a hash.
func TestNobodyTakesAsLong(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("one"), bcrypt.MinCost+2)
	if err != nil {
		t.Fatal(err)
	}
	u, err := readUsers(write(t, "", "a:"+string(hash)+"\nb:"+strings.Replace(string(hash), "$2a$", "$2y$", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost(u.nobody); err != nil || cost != bcrypt.MinCost+2 {
		t.Errorf("cost %d, error %v", cost, err)
	}
	if err := bcrypt.CompareHashAndPassword(u.hashes["b"], []byte("one")); err != nil {
		t.Errorf("the hash as htpasswd writes it: %v", err)
	}
}

func TestFilesOfLoginsThatMakeNoSense(t *testing.T) {
	hash := "$2y$05$" + strings.Repeat("a", 53)
	for what, c := range map[string]struct {
		o    Options
		want string
		kind fault.Kind
	}{
		"plain":              {Options{Htpasswd: write(t, "", "a:b")}, `line 1: the password of "a" is not hashed by bcrypt`, fault.Usage},
		"md5":                {Options{Htpasswd: write(t, "", "#\na:$apr1$x$y")}, "line 2", fault.Usage},
		"sha1":               {Options{Htpasswd: write(t, "", "a:{SHA}s3cret")}, "not hashed by bcrypt", fault.Usage},
		"torn":               {Options{Htpasswd: write(t, "", "a:"+hash[:40])}, "not hashed by bcrypt", fault.Usage},
		"dear":               {Options{Htpasswd: write(t, "", "a:"+strings.Replace(hash, "$05$", "$15$", 1))}, "cost 15", fault.Usage},
		"no colon":           {Options{Htpasswd: write(t, "", "a")}, "it is not user:hash", fault.Usage},
		"no user":            {Options{Htpasswd: write(t, "", ":"+hash)}, "it is not user:hash", fault.Usage},
		"twice":              {Options{Htpasswd: write(t, "", "a:"+hash+"\na:"+hash)}, "is there already", fault.Usage},
		"missing":            {Options{Htpasswd: "/nowhere/file"}, "cannot read /nowhere/file", fault.NotFound},
		"large":              {Options{Htpasswd: write(t, "", strings.Repeat("#\n", maxLoginFile))}, "it is no file of logins", fault.Usage},
		"two words":          {Options{Tokens: write(t, "", "ci "+sumOf("x"))}, "not of three words", fault.Usage},
		"right":              {Options{Tokens: write(t, "", "ci admin "+sumOf("x"))}, "neither read nor write", fault.Usage},
		"a plain token":      {Options{Tokens: write(t, "", "ci read s3cret")}, "not 64 hex digits", fault.Usage},
		"a longer sum":       {Options{Tokens: write(t, "", "ci read "+sumOf("x")+"00")}, "not 64 hex digits", fault.Usage},
		"empty token":        {Options{Tokens: write(t, "", "ci read "+sumOf(""))}, "empty token", fault.Usage},
		"colon":              {Options{Tokens: write(t, "", "c:i read "+sumOf("x"))}, "no colon", fault.Usage},
		"writer unknown":     {Options{Htpasswd: write(t, "", "a:"+hash), WriteUsers: []string{"b"}}, `no user "b"`, fault.NotFound},
		"writer without any": {Options{WriteUsers: []string{"b"}}, "no file that knows users", fault.Usage},
		"writer, tokens":     {Options{WriteUsers: []string{"b"}, Tokens: write(t, "", "ci read "+sumOf("x"))}, "no file that knows users", fault.Usage},
		"nobody writes":      {Options{Writable: true, Htpasswd: write(t, "", "a:"+hash), Tokens: write(t, "", "ci read "+sumOf("x"))}, "nobody may write", fault.Usage},
	} {
		c.o.Metrics = NewMetrics()
		_, err := newLogins(c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: error %v (%s)", what, err, fault.KindOf(err))
		} else if strings.Contains(err.Error()+fault.AdviceOf(err), "s3cret") {
			t.Errorf("%s: shows a secret: %v", what, err)
		}
	}
	for what, o := range map[string]Options{
		"all":     {Writable: true, Htpasswd: write(t, "", "a:"+hash), WriteUsers: []string{"*"}},
		"a token": {Writable: true, Tokens: write(t, "", "ci write "+sumOf("x"))},
		"nothing": {Writable: true},
	} {
		o.Metrics = NewMetrics()
		if _, err := newLogins(o); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
