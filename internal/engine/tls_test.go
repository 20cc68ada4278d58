package engine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dockerconfig "github.com/docker/cli/cli/config"

	"github.com/dogestry/dogestry/internal/fault"
)

// authority signs certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key, a.pem = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign makes a key and a certificate; the authority's own is signed by itself.
func (a *authority) sign(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// pair signs a certificate for both ends and returns it with its key, in PEM.
func (a *authority) pair(t *testing.T) (cert, key []byte) {
	t.Helper()
	_, k, cert := a.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "doge"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// certPath writes what DOCKER_CERT_PATH is to name, but for the files without.
func certPath(t *testing.T, ca, client *authority, without ...string) string {
	t.Helper()
	dir := t.TempDir()
	writeCertificates(t, dir, ca, client, without...)
	return dir
}

func writeCertificates(t *testing.T, dir string, ca, client *authority, without ...string) {
	t.Helper()
	cert, key := client.pair(t)
	for name, content := range map[string][]byte{"ca.pem": ca.pem, "cert.pem": cert, "key.pem": key} {
		if slices.Contains(without, name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// startTLS runs a fake engine that speaks TLS only, by a certificate of a, and
// returns its address. It asks clients for theirs as auth says.
func startTLS(t *testing.T, a *authority, auth tls.ClientAuthType) string {
	t.Helper()
	cert, key := a.pair(t)
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	server := httptest.NewUnstartedServer(&fake{})
	server.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool, ClientAuth: auth, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestTLS connects to engines that speak TLS only, as docker would: what decides
// is DOCKER_TLS_VERIFY and DOCKER_TLS, and not DOCKER_CERT_PATH.
func TestTLS(t *testing.T) {
	ours, others := newAuthority(t, "ours"), newAuthority(t, "others")
	strict := startTLS(t, ours, tls.RequireAndVerifyClientCert)
	open := startTLS(t, ours, tls.NoClientCert)
	port := strict[strings.LastIndexByte(strict, ':')+1:]
	good := certPath(t, ours, ours)
	wrong := certPath(t, others, ours) // takes the engine for a stranger
	const verify, unverified = "DOCKER_TLS_VERIFY", "DOCKER_TLS"
	for what, c := range map[string]struct {
		url, certs, variable string
		ok                   bool
	}{
		"verified":                           {"tcp://" + strict, good, verify, true},
		"verified, no scheme":                {strict, good, verify, true},
		"verified, https":                    {"https://" + strict, good, verify, true},
		"verified, no certificate":           {"tcp://" + open, certPath(t, ours, ours, "cert.pem", "key.pem"), verify, true},
		"verified, no certificate, wanted":   {"tcp://" + strict, certPath(t, ours, ours, "cert.pem", "key.pem"), verify, false},
		"verified, no authority":             {"tcp://" + open, certPath(t, ours, ours, "ca.pem"), verify, false},
		"verified, engine of another":        {"tcp://" + strict, wrong, verify, false},
		"verified, we are of another":        {"tcp://" + strict, certPath(t, ours, others), verify, false},
		"verified, by the name of another":   {"tcp://localhost:" + port, good, verify, false},
		"verified, no such folder":           {"tcp://" + strict, filepath.Join(good, "none"), verify, false},
		"verified, no certificates":          {"tcp://" + open, "", verify, false},
		"verified, no certificates, https":   {"https://" + open, "", verify, false},
		"unverified":                         {"tcp://" + strict, good, unverified, true},
		"unverified, no scheme":              {strict, good, unverified, true},
		"unverified, engine of another":      {"tcp://" + strict, wrong, unverified, true},
		"unverified, https":                  {"https://" + strict, wrong, unverified, true},
		"unverified, we are of another":      {"tcp://" + strict, certPath(t, ours, others), unverified, false},
		"folder alone":                       {"tcp://" + strict, good, "", false},
		"folder alone, https":                {"https://" + strict, good, "", true},
		"folder alone, https, of another":    {"https://" + strict, wrong, "", false},
		"nothing":                            {"tcp://" + open, "", "", false},
		"nothing, https, by a stranger":      {"https://" + open, "", "", false},
		"password, wrong authority":          {"tcp://doge:s3cret@" + strict, wrong, verify, false},
		"password, we are of another":        {"tcp://doge:s3cret@" + strict, certPath(t, ours, others), verify, false},
		"password, without TLS":              {"tcp://doge:s3cret@" + strict, "", "", false},
		"password, without TLS and a scheme": {"doge:s3cret@" + strict, "", "", false},
		"password, a folder that is missing": {"tcp://doge:s3cret@" + strict, filepath.Join(good, "none"), verify, false},
	} {
		t.Run(what, func(t *testing.T) {
			noEnvironment(t)
			if c.certs != "" {
				t.Setenv("DOCKER_CERT_PATH", c.certs)
			}
			if c.variable != "" {
				t.Setenv(c.variable, "1")
			}
			_, err := tryConnect(t, c.url)
			if c.ok != (err == nil) {
				t.Errorf("error %v", err)
			}
			if err == nil {
				return
			}
			if fault.KindOf(err) == 0 || !strings.Contains(err.Error(), "engine") && !strings.Contains(err.Error(), "Engine") {
				t.Errorf("error %v", err)
			}
			if strings.Contains(err.Error()+fault.AdviceOf(err), "s3cret") {
				t.Errorf("shows the password: %v", err)
			}
		})
	}
}

// TestTLSOfDockersConfiguration: without DOCKER_CERT_PATH the certificates are in docker's directory.
func TestTLSOfDockersConfiguration(t *testing.T) {
	ours := newAuthority(t, "ours")
	url := "tcp://" + startTLS(t, ours, tls.RequireAndVerifyClientCert)
	writeCertificates(t, noEnvironment(t), ours, ours)
	if _, err := tryConnect(t, url); err == nil {
		t.Error("connected without TLS")
	}
	for _, variable := range []string{"DOCKER_TLS_VERIFY", "DOCKER_TLS"} {
		t.Setenv(variable, "1")
		if _, err := tryConnect(t, url); err != nil {
			t.Errorf("%s: error %v", variable, err)
		}
		_ = os.Unsetenv(variable)
	}
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("DOCKER_TLS", "1")
	writeCertificates(t, dockerconfig.Dir(), newAuthority(t, "others"), ours)
	if _, err := tryConnect(t, url); err == nil {
		t.Error("DOCKER_TLS makes DOCKER_TLS_VERIFY trust anybody")
	}
}

// TestTLSOfContext: an endpoint of a context has its own TLS, or none, and the
// environment's is not for it.
func TestTLSOfContext(t *testing.T) {
	ours, others := newAuthority(t, "ours"), newAuthority(t, "others")
	secure := startTLS(t, ours, tls.RequireAndVerifyClientCert)
	plain := httptest.NewServer(&fake{})
	t.Cleanup(plain.Close)
	config := noEnvironment(t)
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	for name, c := range map[string]struct {
		url   string
		own   *authority // whom the context trusts
		certs string
		ok    bool
	}{
		"tcp":               {"tcp://" + secure, ours, certPath(t, others, others), true},
		"https":             {"https://" + secure, ours, certPath(t, others, others), true},
		"distrusts":         {"tcp://" + secure, others, certPath(t, ours, ours), false},
		"none":              {"tcp://" + secure, nil, certPath(t, ours, ours), false},
		"none-wanted":       {"tcp://" + plain.Listener.Addr().String(), nil, certPath(t, ours, ours), true},
		"none-but-https":    {"https://" + secure, nil, certPath(t, ours, ours), false},
		"plain-but-https":   {"https://" + plain.Listener.Addr().String(), nil, "", false},
		"plain-but-trusted": {"tcp://" + plain.Listener.Addr().String(), ours, "", false},
	} {
		writeContext(t, config, name, c.url)
		if c.own != nil {
			dir := filepath.Join(config, "contexts", "tls", sum(name), "docker")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			writeCertificates(t, dir, c.own, ours)
		}
		t.Setenv("DOCKER_CONTEXT", name)
		t.Setenv("DOCKER_CERT_PATH", c.certs)
		if _, err := tryConnect(t, ""); c.ok != (err == nil) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
