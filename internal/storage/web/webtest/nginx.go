// Package webtest runs Debian's nginx for tests: on loopback, with a certificate of its
// own authority.
package webtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Options of a Server.
type Options struct {
	// Lists lets nginx list directories as JSON.
	Lists bool
	// Basic asks for a user and a password: dogestry and "a-secret-of-tests".
	Basic bool
	// Lines are added to its configuration of the server.
	Lines string
}

// Password is what Options.Basic asks for, of the user dogestry.
const Password = "a-secret-of-tests"

// Server is a web server that publishes a directory.
type Server struct {
	Host   string // with its port
	CAFile string // of the authority for it
}

// URL is that of the directory, as the name of a remote.
func (s *Server) URL() string { return "https://" + s.Host + "?ca-file=" + url.QueryEscape(s.CAFile) }

// Start lets nginx publish a directory until the test ends.
func Start(t testing.TB, dir string, o Options) *Server {
	t.Helper()
	const nginx = "/usr/sbin/nginx"
	if _, err := os.Stat(nginx); err != nil {
		t.Fatalf("%s is missing, run: script/bootstrap test", nginx)
	}
	own := t.TempDir()
	s := &Server{CAFile: filepath.Join(own, "ca.pem")}
	s.certify(t, own)
	for range 10 { // nginx takes no port 0: somebody else may be quicker to take one that is free
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.Host = listener.Addr().String()
		_ = listener.Close()
		write(t, filepath.Join(own, "nginx.conf"), s.config(t, own, dir, o))
		cmd := exec.Command(nginx, "-p", own, "-e", "stderr", "-c", filepath.Join(own, "nginx.conf"))
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		stop := func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		if s.answers(t, ended) {
			t.Cleanup(stop)
			return s
		}
		stop()
		t.Log("nginx: " + said.String())
	}
	t.Fatal("nginx does not start")
	return nil
}

func (s *Server) config(t testing.TB, own, dir string, o Options) string {
	t.Helper()
	lines := o.Lines
	if o.Lists {
		lines += "autoindex on; autoindex_format json;\n"
	}
	if o.Basic {
		hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users := filepath.Join(own, "users")
		write(t, users, "dogestry:"+string(hash)+"\n")
		lines += "auth_basic remote; auth_basic_user_file " + users + ";\n"
	}
	paths := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		paths += kind + "_temp_path " + own + "/" + kind + ";\n"
	}
	return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid;
events { worker_connections 512; }
http {
access_log off; default_type application/octet-stream;
%[2]sserver { listen %[3]s ssl; ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem; large_client_header_buffers 8 16k; root %[4]s;
%[5]s} }
`, own, paths, s.Host, dir, lines)
}

// answers waits until it answers, or has ended.
func (s *Server) answers(t testing.TB, ended <-chan struct{}) bool {
	t.Helper()
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(s.CAFile)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no authority", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if answer, err := client.Head("https://" + s.Host + "/"); err == nil {
			answer.Body.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// certify makes an authority, and a certificate of it for this machine.
func (s *Server) certify(t testing.TB, dir string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests of dogestry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, certErr := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	secret, keyErr := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(certErr, keyErr); err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, s.CAFile, certificate)
	write(t, filepath.Join(dir, "cert.pem"), certificate)
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
