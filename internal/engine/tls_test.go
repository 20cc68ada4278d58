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
	"strings"
	"testing"
	"time"

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

// certPath writes what DOCKER_CERT_PATH is to name.
func certPath(t *testing.T, ca, client *authority) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := client.pair(t)
	for name, content := range map[string][]byte{"ca.pem": ca.pem, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startTLS runs a fake engine that wants a certificate of a, and returns its address.
func startTLS(t *testing.T, a *authority) string {
	t.Helper()
	cert, key := a.pair(t)
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	server := httptest.NewUnstartedServer(&fake{})
	server.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestTLS(t *testing.T) {
	ours, others := newAuthority(t, "ours"), newAuthority(t, "others")
	address := startTLS(t, ours)
	good := certPath(t, ours, ours)
	for what, c := range map[string]struct {
		url, certs, verify string
		ok                 bool
	}{
		"good":                          {"tcp://" + address, good, "1", true},
		"good, by https":                {"https://" + address, good, "1", true},
		"engine of another authority":   {"tcp://" + address, certPath(t, others, ours), "1", false},
		"we are of another authority":   {"tcp://" + address, certPath(t, ours, others), "1", false},
		"verification is off":           {"tcp://" + address, certPath(t, others, ours), "", true},
		"without TLS":                   {"tcp://" + address, "", "", false},
		"no such folder":                {"tcp://" + address, filepath.Join(good, "none"), "1", false},
		"password, wrong authority":     {"tcp://doge:s3cret@" + address, certPath(t, others, ours), "1", false},
		"password, we are of another":   {"tcp://doge:s3cret@" + address, certPath(t, ours, others), "1", false},
		"password, without TLS":         {"tcp://doge:s3cret@" + address, "", "", false},
		"verify without certificates":   {"https://" + address, "", "1", false},
		"verify by the name of another": {"tcp://localhost:" + address[strings.LastIndexByte(address, ':')+1:], good, "1", false},
	} {
		t.Run(what, func(t *testing.T) {
			noEnvironment(t)
			if c.certs != "" {
				t.Setenv("DOCKER_CERT_PATH", c.certs)
			}
			if c.verify != "" {
				t.Setenv("DOCKER_TLS_VERIFY", c.verify)
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
