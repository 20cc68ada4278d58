package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Client asks the agent of one host. It is safe for concurrent use.
type Client struct {
	address string
	base    string
	token   string
	http    *http.Client
	own     *http.Transport
	waits   []time.Duration // before each attempt to come back to a pull
	silence time.Duration   // after which a connection is taken for dead
}

// ClientOptions say where an agent is, and who asks.
type ClientOptions struct {
	Address string // host:port
	Token   string // empty for none

	// Authorities are those that may have signed the agent's certificate; nil are the system's.
	Authorities *x509.CertPool
	// Plain speaks no TLS: with an agent on this machine alone. What is connected to has
	// to be on loopback, whatever Address says.
	Plain bool

	// Seal is what may be dialled; Address is added to it. Nil seals nothing.
	Seal *sealed.Seal

	dial sealed.DialFunc // nil is net.Dialer's
}

const (
	dialTime   = 5 * time.Second
	headerTime = 30 * time.Second
)

// ErrAbsent is wrapped by errors that say that there is no agent, or none that could be
// asked: nothing was begun.
var ErrAbsent = errors.New("no agent was asked")

// NewClient returns a client. It contacts nobody. The caller closes it.
func NewClient(o ClientOptions) *Client {
	o.Seal.Admit("tcp", o.Address)
	dial := o.Seal.Dial(o.dial)
	c := &Client{
		address: o.Address, base: "https://" + o.Address, token: o.Token, silence: 6 * alive,
		waits: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second},
	}
	c.own = &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTime)
			defer cancel()
			conn, err := dial(ctx, network, address)
			if err != nil || !o.Plain {
				return conn, err
			}
			return onLoopback(conn)
		},
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Authorities},
		TLSHandshakeTimeout:   dialTime,
		ResponseHeaderTimeout: headerTime,
		MaxIdleConnsPerHost:   1,
		IdleConnTimeout:       time.Minute,
	}
	if o.Plain {
		c.base = "http://" + o.Address
	}
	c.http = &http.Client{
		Transport:     c.own,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// onLoopback closes a connection that leaves this machine: a token would be read on its way.
func onLoopback(conn net.Conn) (net.Conn, error) {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return conn, nil
	}
	_ = conn.Close()
	return nil, errors.New("without TLS, agents on this machine alone are asked")
}

// Close ends idle connections.
func (c *Client) Close() error {
	c.own.CloseIdleConnections()
	return nil
}

// Address returns where the agent is.
func (c *Client) Address() string { return c.address }

// Status asks the agent how it is. Where there is none, or it does not let us in, the error is ErrAbsent.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	res, err := c.do(ctx, http.MethodGet, statusPath, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var s Status
	if err := json.NewDecoder(io.LimitReader(res.Body, maxLine)).Decode(&s); err != nil || s.Agent != 1 {
		return nil, c.strange()
	}
	return &s, nil
}

// Pull asks the agent to pull, tells p how it goes, and returns what transfer.Pull would.
// When the connection breaks, or the agent is started again, it comes back to the pull, or
// begins it once more. What the agent did not begin is ErrAbsent as well as its own fault.
func (c *Client) Pull(ctx context.Context, q Request, p transfer.Progress) ([]transfer.Result, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	shown := &shown{progress: p}
	defer shown.end()
	begun := false
	for failures := 0; ; failures++ {
		out, heard, err := c.attempt(ctx, body, shown)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			switch {
			case out.Error != nil:
				return out.Images, out.Error.fault(c.address)
			case len(out.Images) != len(q.Images):
				return nil, c.strange()
			}
			return out.Images, nil
		}
		if errors.As(err, new(final)) {
			return nil, err
		}
		if begun = begun || heard; heard {
			failures = 0
		}
		if !begun && !errors.Is(err, errComeAgain) {
			return nil, err
		}
		if failures == len(c.waits) {
			return nil, c.lost(err, begun)
		}
		p.Status("asking the agent at " + c.address + " again")
		select {
		case <-time.After(c.waits[failures]):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lost is the error of a pull of which nothing is heard any more.
func (c *Client) lost(err error, begun bool) error {
	if !begun {
		return err
	}
	// It says no more that nothing was begun.
	return fault.New(fault.KindOf(err), "the connection to the agent at %s broke, and could not be made again: %s", c.address, err).
		Advise("The pull may go on there for a while. Run the command again: it does what is left.")
}

// attempt asks once, and listens to the end. Heard says whether the agent has begun, or
// has done so before.
func (c *Client) attempt(ctx context.Context, body []byte, to *shown) (out *outcome, heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	res, err := c.do(ctx, http.MethodPost, pullPath, body)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	watchdog := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	lines := newLines(res.Body)
	to.again()
	for lines.Scan() {
		watchdog.Reset(c.silence)
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e == (event{}) && !heard { // later ones may be newer than this
			return nil, heard, final{c.strange()}
		}
		heard = true
		if e.Result != nil {
			return e.Result, true, nil
		}
		to.show(e)
	}
	switch err = lines.Err(); {
	case err == nil:
		err = io.ErrUnexpectedEOF
	case errors.Is(context.Cause(ctx), errSilent):
		err = errSilent
	}
	return nil, heard, fault.Wrap(fault.Other, err, "the agent at %s does not say how the pull ended", c.address)
}

// final is an error after which it is of no use to come again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// errSilent is why a connection is given up on which nothing comes.
var errSilent = errors.New("nothing came any more")

// errComeAgain is wrapped by what may pass.
var errComeAgain = errors.New("it is busy")

// comeAgain makes an error errComeAgain, and keeps what it says.
type comeAgain struct{ error }

func (c comeAgain) Unwrap() []error { return []error{c.error, errComeAgain} }

// do sends a request and returns the answer where it is 200. Other errors than the
// context's are ErrAbsent.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Usage, "%.100q is no address of an agent", c.address)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	r.Header.Set("User-Agent", "dogestry")
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	content, err := io.ReadAll(io.LimitReader(res.Body, maxRequest))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return nil, c.refused(res.StatusCode, content)
}

// absent makes an error ErrAbsent, and keeps what it says.
type absent struct{ error }

func (a absent) Unwrap() []error { return []error{a.error, ErrAbsent} }

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	f := fault.Wrap(fault.Other, cause(err), "no agent answers at %s", c.address)
	switch {
	case errors.As(err, &certificate):
		f = fault.Wrap(fault.Refused, cause(err), "the agent at %s is not known", c.address).
			Advise("Name the authority that signed its certificate: agent-ca in the configuration. Nothing was sent to it.")
	case errors.As(err, &record):
		f = f.Advise("It speaks no TLS. Nothing was sent to it.")
	}
	return absent{f}
}

// cause is an error of net/http without method and URL.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if _, ok := err.(interface{ Timeout() bool }); !ok || inner == nil {
			return err
		}
		if _, ok := err.(*net.OpError); ok {
			return err
		}
		err = inner
	}
}

// refused is the error of a request that was answered with another code than 200.
func (c *Client) refused(code int, content []byte) error {
	var said refusal
	if json.Unmarshal(content, &said) == nil && said.Error != nil {
		err := said.Error.fault(c.address)
		if code == http.StatusServiceUnavailable {
			return absent{comeAgain{err}}
		}
		return absent{err}
	}
	switch code {
	case http.StatusUnauthorized:
		return absent{fault.New(fault.Refused, "the agent at %s does not know this token", c.address).
			Advise("Name the file of the one that it knows: agent-token-file in the configuration.")}
	case http.StatusForbidden:
		return absent{fault.New(fault.Refused, "the agent at %s: %s", c.address, oneLine(content)).
			Advise("Its tokens that may pull are those with the right to write.")}
	case http.StatusServiceUnavailable:
		return absent{comeAgain{fault.New(fault.Locked, "the agent at %s: %s", c.address, oneLine(content))}}
	}
	return absent{c.strange()}
}

// strange is the error of an answer that no agent gives.
func (c *Client) strange() error {
	return fault.New(fault.Other, "what answers at %s is no agent that this version of dogestry knows", c.address)
}

func oneLine(content []byte) string {
	s := strings.Join(strings.Fields(string(content)), " ")
	return s[:min(len(s), 200)]
}
