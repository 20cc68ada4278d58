package client

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
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/throttle"
)

// newTransport returns what all requests go through, those for tokens too.
func newTransport(o Options) (*http.Transport, error) {
	trust, err := trusted(o)
	if err != nil {
		return nil, err
	}
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	limits := throttle.New(o.UploadLimit, o.DownloadLimit)
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = limits.Dial(watchWrites(dial, o.Stall))
	t.TLSClientConfig = trust
	t.MaxIdleConnsPerHost, t.MaxConnsPerHost = connections, 2*connections
	t.ReadBufferSize, t.WriteBufferSize = 64<<10, limits.Piece(64<<10)
	t.ResponseHeaderTimeout = 5 * time.Minute // some registries copy a large blob when its upload ends
	t.DisableCompression = true               // digests are of what is stored
	// HTTP/1.1 alone: HTTP/2 would put blobs that travel at once on one connection, which has the speed of one.
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	for _, scheme := range []string{"https", "http"} {
		o.Seal.Admit("tcp", sealed.HostPort(&url.URL{Scheme: scheme, Host: o.endpoint()}))
	}
	o.Seal.Transport(t)
	return t, nil
}

// connections are kept open for later requests. Twice as many there may be at all.
const connections = 32

// trusted says whom to believe: the system's authorities (SSL_CERT_FILE), those of
// ?ca-file= and those that docker has for this host, and which certificates to show.
func trusted(o Options) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: o.Insecure, MinVersion: tls.VersionTLS12}
	var files []string
	if o.CAFile != "" {
		files = append(files, o.CAFile)
	}
	if o.CertsDir != "" {
		dir := filepath.Join(o.CertsDir, o.Host)
		own, err := filepath.Glob(filepath.Join(dir, "*.crt"))
		if err != nil {
			return nil, err
		}
		files = append(files, own...)
		if c.Certificates, err = shown(dir); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "cannot read the authorities for %s", o.Host)
		}
		if c.RootCAs == nil {
			if c.RootCAs, err = x509.SystemCertPool(); err != nil {
				c.RootCAs = x509.NewCertPool()
			}
		}
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Usage, "no certificate is in %s", file)
		}
	}
	return c, nil
}

// shown returns the pairs NAME.cert and NAME.key of a directory.
func shown(dir string) ([]tls.Certificate, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.cert"))
	if err != nil {
		return nil, err
	}
	var pairs []tls.Certificate
	for _, name := range names {
		pair, err := tls.LoadX509KeyPair(name, strings.TrimSuffix(name, ".cert")+".key")
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "cannot use the certificate %s", name)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// What may pass is tried again, for half a minute in all.
const (
	attempts  = 6
	firstWait = 500 * time.Millisecond
	mostWait  = 20 * time.Second
	mostAsked = 2 * time.Minute // that a registry may ask to wait with Retry-After
)

// retrying tries requests again that can be sent again. Of one that cannot, the
// caller finds out how far it got.
type retrying struct {
	next http.RoundTripper
	o    Options

	contacted atomic.Bool // somebody has answered: until then nobody may be there
}

type onceKey struct{}

// once marks the context of a request that is not to be sent again here.
func once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

func (r *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	again := ctx.Value(onceKey{}) == nil && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
	for attempt := 0; ; attempt++ {
		if attempt > 0 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(ctx)
			req.Body = body
		}
		resp, err := r.next.RoundTrip(req)
		if err == nil {
			r.contacted.Store(true)
		}
		if !again || attempt == attempts-1 || ctx.Err() != nil || !passing(resp, err) || nobody(err) && !r.contacted.Load() {
			return resp, err
		}
		pause, ok := pauseFor(resp, attempt)
		if !ok {
			return resp, err
		}
		r.o.tell(resp, err, pause)
		if resp != nil {
			drain(resp)
		}
		if err := r.o.Wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// tell says that something is tried again.
func (o Options) tell(resp *http.Response, err error, pause time.Duration) {
	why := ""
	if resp != nil {
		why = http.StatusText(resp.StatusCode)
	} else {
		why = plainText(err)
	}
	o.Log.Debug("trying again", "registry", o.Host, "why", why, "pause", pause)
	if pause >= 2*time.Second {
		o.Notify(fmt.Sprintf("%s does not answer as it should (%s), trying again in %s", o.Host, why, pause.Round(100*time.Millisecond)))
	}
}

// passing reports whether a failure may pass.
func passing(resp *http.Response, err error) bool {
	if err == nil {
		switch resp.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return !name.IsNotFound
	case untrusted(err), alerted(err), errors.Is(err, http.ErrSchemeMismatch), fault.Interrupted(err), fault.KindOf(err) != fault.Other:
		return false
	}
	return true
}

// nobody reports whether an address could not be reached, for no reason that says
// that it may be soon.
func nobody(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial" && !dial.Temporary()
}

// untrusted reports whether the server has a certificate that nobody here vouches for.
func untrusted(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host)
}

// alerted reports whether the server has ended the connection by a message of TLS,
// as where it asks for a certificate that it was not shown.
func alerted(err error) bool {
	var said *net.OpError
	return errors.As(err, &said) && said.Op == "remote error"
}

// pauseFor returns how long to wait: as the server says, else longer each time. It
// is false where the server asks for more than anybody waits.
func pauseFor(resp *http.Response, attempt int) (time.Duration, bool) {
	if resp != nil {
		if said := resp.Header.Get("Retry-After"); said != "" {
			pause := time.Duration(-1)
			if seconds, err := strconv.Atoi(said); err == nil {
				pause = time.Duration(seconds) * time.Second
			} else if at, err := http.ParseTime(said); err == nil {
				pause = time.Until(at)
			}
			if pause > mostAsked {
				return 0, false
			}
			if pause >= 0 {
				return pause, true
			}
		}
	}
	pause := min(firstWait<<attempt, mostWait)
	return pause/2 + rand.N(pause/2), true
}

// drain lets the connection be used again, where little is left of the answer.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}
