package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/throttle"
)

// connections are kept open for later requests. Twice as many there may be at all.
const connections = 32

// transport returns what all requests go through.
func (o Options) transport() (*http.Transport, error) {
	trust, err := o.trust()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	dial := (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	t.DialContext = throttle.New(0, o.DownloadLimit).Dial(dial)
	t.TLSClientConfig = trust
	t.MaxIdleConnsPerHost, t.MaxConnsPerHost = connections, 2*connections
	t.ReadBufferSize = 64 << 10
	t.MaxResponseHeaderBytes = 64 << 10
	t.ResponseHeaderTimeout = o.Stall
	t.DisableCompression = true // ranges are of what is stored
	// HTTP/1.1 alone: HTTP/2 would put layers that travel at once on one connection, which has the speed of one.
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	o.Seal.Admit("tcp", sealed.HostPort(o.Base))
	o.Seal.Transport(t)
	return t, nil
}

// trust says whom to believe, and what to show.
func (o Options) trust() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "cannot read the authorities for %s", o.url())
		}
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Usage, "no certificate is in %s", o.CAFile)
		}
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "cannot use the certificate %s", o.CertFile)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

const redirects = 5

// errDirectory is a redirect to the same name with a slash behind it: no object.
var errDirectory = errors.New("it is a directory")

// redirect follows what servers say about where objects lie. What is encrypted stays so, and
// credentials stay with the server they are for.
func (s *Store) redirect(r *http.Request, via []*http.Request) error {
	switch before := via[len(via)-1].URL; {
	case r.URL.Path == before.Path+"/" && before.Path != "":
		return errDirectory
	case len(via) > redirects:
		return &unusable{"it goes on redirecting"}
	case r.URL.User != nil:
		return &unusable{"it redirects with a password"}
	case r.URL.Scheme != "https" && (s.o.Base.Scheme == "https" || r.URL.Scheme != "http"):
		return &unusable{"it redirects to what is not encrypted"}
	}
	r.Header.Del("Referer")
	if r.URL.Scheme != s.o.Base.Scheme || sealed.HostPort(r.URL) != sealed.HostPort(s.o.Base) {
		r.Header.Del("Authorization")
	}
	return nil
}

// ask makes a request, and again where that may help. Whoever gets an answer, of whatever
// status, closes its body.
func (s *Store) ask(ctx context.Context, method, where string, header http.Header) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		answer, err := s.once(ctx, method, where, header)
		if ctx.Err() != nil {
			if err == nil {
				answer.Body.Close()
			}
			return nil, ctx.Err()
		}
		if attempt+1 >= s.o.Attempts || !passing(answer, err) {
			return answer, err
		}
		why := fmt.Sprint(hideURLs(err))
		after := ""
		if err == nil {
			why, after = (&status{answer.StatusCode}).Error(), answer.Header.Get("Retry-After")
			answer.Body.Close()
		}
		if err := s.pause(ctx, attempt, why, after); err != nil {
			return nil, err
		}
	}
}

// mostAsked is how long a server may ask to wait.
const mostAsked = time.Minute

// pause waits before a retry, and says why.
func (s *Store) pause(ctx context.Context, attempt int, why, after string) error {
	d := s.o.Backoff << min(attempt, 6)
	d = d/2 + rand.N(d/2+1)
	if seconds, err := strconv.Atoi(after); err == nil && seconds >= 0 {
		d = min(time.Duration(seconds)*time.Second, mostAsked)
	}
	s.o.log().Debug("trying again", "server", s.o.Base.Host, "why", why, "pause", d)
	if d >= 2*time.Second {
		s.o.notify(fmt.Sprintf("%s does not answer as it should (%s), trying again in %s", s.o.Base.Host, why, d.Round(100*time.Millisecond)))
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) once(ctx context.Context, method, where string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, where, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "dogestry")
	r.Header.Set("Accept-Encoding", "identity")
	for name, values := range header {
		r.Header[name] = values
	}
	if s.credentials != nil {
		r.SetBasicAuth(s.credentials.user, s.credentials.password)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if how := answer.Header.Get("Content-Encoding"); how != "" && how != "identity" && answer.StatusCode < 300 {
		answer.Body.Close()
		return nil, &unusable{fmt.Sprintf("the server sends it encoded (%.20q), and not as it is stored", how)}
	}
	return answer, nil
}

// unusable is an answer that asking again does not mend.
type unusable struct{ why string }

func (e *unusable) Error() string { return e.why }

// passing reports whether a failure may pass.
func passing(answer *http.Response, err error) bool {
	if err == nil {
		switch answer.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var name *net.DNSError
	var dial *net.OpError
	var not *unusable
	switch {
	case errors.As(err, &name):
		return !name.IsNotFound
	case errors.As(err, &dial) && dial.Op == "dial":
		return dial.Timeout()
	case alerted(err):
		return false
	case untrusted(err), errors.As(err, &not), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, sealed.ErrSealed), errors.Is(err, errDirectory):
		return false
	}
	return true
}

func untrusted(err error) bool {
	var unverified *tls.CertificateVerificationError
	return errors.As(err, &unverified)
}

// alerted reports whether the server has ended the connection by TLS: most often since it
// wants another certificate.
func alerted(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error"
}

// hideURLs takes the URL from an error of package http: a redirect may carry a secret in it.
func hideURLs(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// failure says in the user's words why an object, or a directory, could not be read.
func (s *Store) failure(ctx context.Context, key string, err error) error {
	name := s.name(key)
	var known *fault.Error
	var answer *status
	what := "cannot read " + name
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case sealed.Refusal(err) != nil:
		return fault.Wrap(fault.Refused, sealed.Refusal(err), "%s", what)
	case errors.As(err, &known):
		return err
	case errors.Is(err, errDirectory):
		return fmt.Errorf("%s: %w", name, storage.ErrNotFound)
	case errors.As(err, &answer):
		return s.answered(name, what, answer)
	case errors.Is(err, storage.ErrChanged):
		return fmt.Errorf("%s: %w", name, err)
	}
	why := hideURLs(err)
	var host *net.DNSError
	f := fault.Wrap(fault.Other, why, "%s", what)
	switch {
	case errors.As(err, &host) && host.IsNotFound:
		return fault.New(fault.Other, "%s: there is no host %s", what, host.Name).Advise("Check the name.")
	case untrusted(err):
		f.Kind = fault.Refused
		return f.Advise("Name the authority that signed its certificate: %s?ca-file=FILE, or SSL_CERT_FILE.", s.o.url())
	case alerted(err):
		f.Kind = fault.Refused
		return f.Advise("Where the server asks for a certificate, name yours and its key: %s?cert-file=FILE&key-file=FILE", s.o.url())
	case errors.Is(err, http.ErrSchemeMismatch):
		return fault.New(fault.Other, "%s: the server does not speak TLS", what).Advise("Is it the right port? http:// would have to be asked for by ?plain-http=true.")
	}
	return f.Advise("Run the same command again; is the server up?")
}

func (s *Store) answered(name, what string, answer *status) error {
	switch answer.code {
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%s: %w", name, storage.ErrNotFound)
	case http.StatusUnauthorized:
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: %s", what, answer).
			Advise("Put a user and password for it into ~/.netrc: machine %s login USER password PASSWORD", s.o.Base.Hostname())
	case http.StatusForbidden:
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: %s", what, answer).
			Advise("The server has to publish the directory. One in front of a bucket answers so for objects that are not there, too.")
	}
	f := fault.New(fault.Other, "%s: %s", what, answer)
	if answer.code == http.StatusBadRequest && s.o.Base.Scheme == "https" { // so does nginx
		return f.Advise("Where the server asks for a certificate, name yours and its key: %s?cert-file=FILE&key-file=FILE", s.o.url())
	}
	return f
}

// stalls reads a body, and ends its request where no byte comes for a while.
type stalls struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	ctx    context.Context
	limit  time.Duration
}

// errStalled may be tried again.
var errStalled = errors.New("no byte came for a while")

func (r *stalls) Read(p []byte) (int, error) {
	timer := time.AfterFunc(r.limit, func() { r.cancel(errStalled) })
	n, err := r.ReadCloser.Read(p)
	timer.Stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(r.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (r *stalls) Close() error {
	err := r.ReadCloser.Close()
	r.cancel(nil)
	return err
}
