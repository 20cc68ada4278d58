package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage/web/webtest"
)

// certificate writes a certificate that is its own authority, and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a reader"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestClientCertificate: servers that ask for a certificate get the one that the URL
// names, and who has none, or another, is told, at once.
func TestClientCertificate(t *testing.T) {
	certFile, keyFile := certificate(t)
	otherCert, otherKey := certificate(t)
	dir := t.TempDir()
	fill(t, dir, "key", []byte("x"))

	trusted := x509.NewCertPool()
	pemBytes, err := os.ReadFile(certFile)
	if err != nil || !trusted.AppendCertsFromPEM(pemBytes) {
		t.Fatal(err)
	}
	var asked atomic.Int64
	strict := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		asked.Add(1)
		return nil, nil
	}}
	strict.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of handshakes that fail
	strict.StartTLS()
	defer strict.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: strict.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx := webtest.Start(t, dir, webtest.Options{Lines: fmt.Sprintf("ssl_client_certificate %s; ssl_verify_client on;", certFile)})

	for _, remote := range []string{strict.URL + "?ca-file=" + url.QueryEscape(ca), nginx.URL()} {
		with := func(cert, key string) string {
			return remote + "&cert-file=" + url.QueryEscape(cert) + "&key-file=" + url.QueryEscape(key)
		}
		if got, err := read(t, open(t, with(certFile, keyFile)), "key", 0, -1); string(got) != "x" || err != nil {
			t.Errorf("%s: %q, %v", remote, got, err)
		}
		for _, wrong := range []string{remote, with(otherCert, otherKey)} {
			asked.Store(0)
			_, err := read(t, open(t, wrong), "key", 0, -1)
			if err == nil || !strings.Contains(fault.AdviceOf(err), "cert-file") {
				t.Errorf("%s: %v, %s", wrong, err, fault.AdviceOf(err))
			}
			if n := asked.Load(); n > 2 {
				t.Errorf("%s: %d attempts", wrong, n)
			}
		}
	}
	o, err := Parse("https://host/x?cert-file=" + url.QueryEscape(certFile) + "&key-file=" + url.QueryEscape(otherKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), certFile) {
		t.Errorf("a key that is another's: %v", err)
	}
}
