package front

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
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key, _ = a.sign(t, 1, true)
	return a
}

// sign returns a certificate, its own where a has none yet.
func (a *authority) sign(t *testing.T, serial int64, ca bool) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: fmt.Sprint("test ", serial)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         ca, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, der
}

// write signs a certificate into the files cert and key of a folder.
func (a *authority) write(t *testing.T, dir string, serial int64) {
	t.Helper()
	_, key, der := a.sign(t, serial, false)
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(dir, "key"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
}

func (a *authority) trusted() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool}
}

// TestCertificateIsReadAgain: a new certificate is shown from the next connection on,
// and connections that there are go on.
func TestCertificateIsReadAgain(t *testing.T) {
	ours, dir := newAuthority(t), t.TempDir()
	ours.write(t, dir, 10)
	goOn := make(chan struct{})
	s := start(t, Options{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first ")
		if strings.Contains(r.URL.Path, "held") {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, "last")
	})
	s.client.Transport = &http.Transport{TLSClientConfig: ours.trusted(), ForceAttemptHTTP2: true}
	held, err := s.client.Do(s.request(t, http.MethodGet, "/v2/held/blobs/sha256:0", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Body.Close()
	if held.ProtoMajor != 1 {
		t.Errorf("%s", held.Proto)
	}
	serial := func() int64 {
		t.Helper()
		d := tls.Dialer{Config: ours.trusted()}
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 10 {
		t.Errorf("certificate %d", n)
	}
	ours.write(t, dir, 11)
	if n := serial(); n != 11 {
		t.Errorf("after a change: certificate %d", n)
	}
	write(t, filepath.Join(dir, "key"), "half a ke")
	if n := serial(); n != 11 {
		t.Errorf("after a mistake: certificate %d", n)
	}
	if n := s.counted(t, `dogestry_reload_failures_total{file="certificate"}`); n == "0" {
		t.Error("the mistake is not counted")
	}
	ours.write(t, dir, 12)
	if n := serial(); n != 12 {
		t.Errorf("mended: certificate %d", n)
	}
	close(goOn)
	if body, err := io.ReadAll(held.Body); err != nil || string(body) != "first last" {
		t.Errorf("the transfer meanwhile: %q, %v", body, err)
	}
	if n := s.counted(t, "dogestry_certificate_expires_seconds"); len(n) < 10 {
		t.Errorf("expires %s", n)
	}
}

// TestTLSRefuses what is old, or not encrypted, or of another authority.
func TestTLSRefuses(t *testing.T) {
	ours, dir := newAuthority(t), t.TempDir()
	ours.write(t, dir, 10)
	s := start(t, Options{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}, echo)
	if !strings.HasPrefix(s.url, "https://127.0.0.1:") {
		t.Errorf("url %s", s.url)
	}
	old, good := ours.trusted(), ours.trusted()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for what, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"good":    {good, true},
		"1.1":     {old, false},
		"unknown": {newAuthority(t).trusted(), false},
	} {
		d := tls.Dialer{Config: c.config}
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
		if (err == nil) != c.ok {
			t.Errorf("%s: error %v", what, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	r := s.request(t, http.MethodGet, "/v2/", nil)
	r.URL.Scheme = "http"
	if got := s.do(t, r); got.code != http.StatusBadRequest {
		t.Errorf("not encrypted: %+v", got)
	}
}
