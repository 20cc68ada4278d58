package registrytest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Tokens is a server that gives tokens for a registry (distribution, "Token
// Authentication"): all that is asked for to User, and nothing to others.
type Tokens struct {
	URL string

	bundle string
	der    []byte
	key    *ecdsa.PrivateKey

	mu    sync.Mutex
	given []string
	life  time.Duration
}

const (
	service = "registry of tests"
	issuer  = "tokens of tests"
)

func startTokens(t testing.TB, dir string) *Tokens {
	t.Helper()
	k := &Tokens{life: time.Hour}
	_, k.der, k.key = selfSigned(t)
	k.bundle = writePEM(t, filepath.Join(dir, "tokens.pem"), "CERTIFICATE", k.der)
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	k.URL = server.URL + "/token"
	return k
}

func (k *Tokens) config() string {
	return fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}}\n", k.URL, service, issuer, k.bundle)
}

// Given returns the scopes of all tokens that were given, in order.
func (k *Tokens) Given() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.given...)
}

// Live says how long tokens that are given from now on are good for. The registry
// adds a minute of its own.
func (k *Tokens) Live(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.life = d
}

// ServeHTTP gives a token: for a name and a password, or, by POST, for an identity
// token (distribution, "OAuth2 Token Authentication").
func (k *Tokens) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	user, password, ok := req.BasicAuth()
	asked := req.URL.Query()
	if req.Method == http.MethodPost {
		_ = req.ParseForm() // what is not understood is missing
		asked, user, password, ok = req.PostForm, User, "", req.PostForm.Get("grant_type") == "refresh_token"
		if req.PostForm.Get("refresh_token") == IdentityToken {
			password = Password
		}
	}
	if ok && (user != User || password != Password) {
		http.Error(w, "wrong password", http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	scopes := strings.Fields(strings.Join(asked["scope"], " "))
	granted := []access{}
	for _, scope := range scopes {
		parts := strings.Split(scope, ":")
		if ok && len(parts) == 3 {
			granted = append(granted, access{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	k.mu.Lock()
	k.given = append(k.given, strings.Join(scopes, " "))
	life := k.life
	k.mu.Unlock()
	now := time.Now()
	token := k.sign(map[string]any{
		"iss": issuer, "sub": user, "aud": service, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix(), "access": granted,
	})
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token})
}

// sign makes a JSON web token (RFC 7519) with the certificate in it.
func (k *Tokens) sign(claims any) string {
	encode := func(v any) string {
		b, _ := json.Marshal(v) // strings and numbers
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := encode(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(k.der)}}) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, sum[:])
	if err != nil {
		return ""
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature[:])
}
