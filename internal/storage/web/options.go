package web

import (
	"log/slog"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// Options say which directory of which web server is meant, and how to read it.
type Options struct {
	Base   *url.URL // scheme, host and path, without a slash at its end
	CAFile string   // PEM file of authorities besides those of the system; may be empty

	// CertFile and KeyFile are the certificate that is shown to servers which ask for one,
	// and its key, PEM; both or none.
	CertFile, KeyFile string

	// Not from the URL:

	NetRC string // file with users and passwords, as curl's; empty: NETRC, else ~/.netrc

	DownloadLimit int64 // bytes a second, of all requests together; 0: none

	Seal   *sealed.Seal // the server is added to it. Nil seals nothing
	Log    *slog.Logger
	Notify func(line string) // is told of retries, from any goroutine; may be nil

	Attempts int           // of one request; 0: 6
	Backoff  time.Duration // before the first retry, then twice as long; 0: half a second
	Stall    time.Duration // without a byte; 0: 30 s
}

const example = "https://host/images"

// Parse reads a URL of the form
//
//	https://host[:port]/directory?ca-file=…&cert-file=…&key-file=…
//	http://host[:port]/directory?plain-http=true      of this machine also without the option
//
// Its errors are usage faults and never show a password.
func Parse(name string) (Options, error) {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.Fragment != "" || u.Hostname() == "" {
		return Options{}, fault.New(fault.Usage, "this is no directory on a web server").Advise("Write it as %s.", example)
	}
	if u.User != nil {
		return Options{}, fault.New(fault.Usage, "the URL of a web server takes no user or password").
			Advise("Put them into ~/.netrc: machine %s login USER password PASSWORD", u.Hostname())
	}
	o := Options{Base: &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimSuffix(path.Clean("/"+u.Path), "/")}}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return Options{}, fault.New(fault.Usage, "%s: its port is none", o.url())
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, fault.New(fault.Usage, "%s: what follows the ? in its URL makes no sense", o.url())
	}
	plain := false
	for key, values := range query {
		if len(values) != 1 || values[0] == "" {
			return Options{}, fault.New(fault.Usage, "%s: %.40q needs one value", o.url(), key)
		}
		switch key {
		case "ca-file":
			o.CAFile = values[0]
		case "cert-file":
			o.CertFile = values[0]
		case "key-file":
			o.KeyFile = values[0]
		case "plain-http":
			if plain, err = strconv.ParseBool(values[0]); err != nil {
				return Options{}, fault.New(fault.Usage, "%s: plain-http is to be true or false", o.url())
			}
		default:
			return Options{}, fault.New(fault.Usage, "%s: there is no option %.40q", o.url(), key).
				Advise("There are ca-file, cert-file, key-file and plain-http.")
		}
	}
	switch {
	case (o.CertFile == "") != (o.KeyFile == ""):
		return Options{}, fault.New(fault.Usage, "%s: cert-file and key-file go together", o.url())
	case u.Scheme == "http" && !plain && !loopback(u.Hostname()):
		return Options{}, fault.New(fault.Usage, "%s is not encrypted: others could read and change what comes from there", o.url()).
			Advise("Write https://. Where the network may be trusted: %s?plain-http=true", o.url())
	}
	return o, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// url is the directory as a user would name it, for messages.
func (o Options) url() string { return o.Base.String() }

// Canonical returns one name for one directory, however it was written.
func (o Options) Canonical() string {
	return o.Base.Scheme + "\n" + sealed.HostPort(o.Base) + "\n" + o.Base.Path
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

func (o Options) notify(line string) {
	if o.Notify != nil {
		o.Notify(line)
	}
}

func (o Options) withDefaults() Options {
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Backoff == 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	return o
}
