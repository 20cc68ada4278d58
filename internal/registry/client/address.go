package client

import (
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// Address is what the URL of a remote says of a registry.
type Address struct {
	Host   string // with its port, where it has one; "docker.io" for all names of that
	Prefix string // of all repositories, without slashes at its ends; may be empty

	PlainHTTP bool   // HTTP, and nothing else
	Insecure  bool   // believe any certificate, and take HTTP where there is no TLS
	CAFile    string // PEM file of authorities besides those of the system; may be empty
	Whole     bool   // send each blob in one request, which cannot go on where it broke
}

// The names of Docker Hub, and where it answers.
const (
	hub         = "docker.io"
	hubEndpoint = "registry-1.docker.io"
	hubPrefix   = "library/"
)

const example = "registry://host:5000/prefix"

var (
	// hostPattern is a host name, an IPv4 or an IPv6 address, and a port.
	hostPattern = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)

	// pathPattern is the name of a repository (OCI distribution-spec, "Pulling manifests").
	pathPattern = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Parse reads a URL of the form
//
//	registry://host[:port][/prefix]?plain-http=true&insecure=true&ca-file=…&chunks=false
//
// Its errors are usage faults and never show a password.
func Parse(name string) (Address, error) {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "registry" || u.Opaque != "" || u.Fragment != "" {
		return Address{}, fault.New(fault.Usage, "this is not the URL of a registry").Advise("Write it as %s.", example)
	}
	if u.User != nil {
		return Address{}, fault.New(fault.Usage, "the URL of a registry takes no user or password").
			Advise("Log in with `docker login %s`: dogestry takes what docker has stored.", u.Host)
	}
	a := Address{Host: strings.ToLower(u.Host), Prefix: strings.Trim(u.Path, "/")}
	if !hostPattern.MatchString(a.Host) {
		return Address{}, fault.New(fault.Usage, "%q is no host of a registry", u.Host).Advise("Write it as %s.", example)
	}
	if a.Prefix != "" && !pathPattern.MatchString(a.Prefix) {
		return Address{}, fault.New(fault.Usage, "%q is no beginning of a repository's name", a.Prefix).
			Advise("Such names have lower-case letters, digits, and . _ - between them. Tags belong to the images, not to the remote.")
	}
	switch a.Host {
	case "index.docker.io", hubEndpoint:
		a.Host = hub
	}
	return a, a.options(u.Query())
}

func (a *Address) options(query url.Values) error {
	for key, values := range query {
		var err error
		switch key {
		case "plain-http":
			a.PlainHTTP, err = strconv.ParseBool(values[0])
		case "insecure":
			a.Insecure, err = strconv.ParseBool(values[0])
		case "chunks":
			var chunks bool
			chunks, err = strconv.ParseBool(values[0])
			a.Whole = !chunks
		case "ca-file":
			a.CAFile = values[0]
		default:
			return fault.New(fault.Usage, "the URL of a registry has no option %.40q", key).
				Advise("There are plain-http, insecure, ca-file and chunks.")
		}
		if err != nil || len(values) > 1 {
			return fault.New(fault.Usage, "%s is to be true or false, once", key)
		}
	}
	return nil
}

// Canonical returns one name for one remote, however it was written.
func (a Address) Canonical() string { return "registry\n" + a.Host + "\n" + a.Prefix }

// endpoint is the host that answers.
func (a Address) endpoint() string {
	if a.Host == hub {
		return hubEndpoint
	}
	return a.Host
}

// loopback reports whether the registry is on this machine, by its name alone.
func (a Address) loopback() bool {
	host := a.Host
	if h, _, err := net.SplitHostPort(a.Host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// login is the command that logs a user in.
func (a Address) login() string {
	if a.Host == hub {
		return "docker login"
	}
	return "docker login " + a.Host
}

// pathOf returns what the registry calls a repository. Names stay as they are but
// for the prefix, so that a copy and its list have the same ones; those which no
// registry can have are refused.
func (a Address) pathOf(repository string) (string, error) {
	path := repository
	if a.Host == hub && a.Prefix == "" && !strings.Contains(path, "/") {
		path = hubPrefix + path
	}
	if a.Prefix != "" {
		path = a.Prefix + "/" + path
	}
	if first, rest, ok := strings.Cut(repository, "/"); ok && first == a.Host {
		return "", fault.New(fault.Refused, "%s names the registry twice: in it images are called without its host", repository).
			Advise("Call it %s; a push or copy does that with --as %s:TAG.", rest, rest)
	}
	if !pathPattern.MatchString(path) || len(path) > 255 {
		f := fault.New(fault.Refused, "%.300s cannot be the name of a repository in a registry", repository)
		if _, rest, ok := strings.Cut(repository, "/"); ok && pathPattern.MatchString(rest) {
			return "", f.Advise("A host and port can be no part of it. Call it otherwise: --as %s:TAG.", rest)
		}
		return "", f.Advise("Such names have lower-case letters, digits, and . _ - between them. Call it otherwise: --as NAME:TAG.")
	}
	return path, nil
}

// repositoryOf is the other way; false for what lies outside of the prefix, or is
// called by no name here.
func (a Address) repositoryOf(path string) (string, bool) {
	if a.Prefix != "" {
		rest, ok := strings.CutPrefix(path, a.Prefix+"/")
		if !ok {
			return "", false
		}
		path = rest
	} else if a.Host == hub {
		path = strings.TrimPrefix(path, hubPrefix)
	}
	back, err := a.pathOf(path)
	return path, err == nil && back != ""
}
