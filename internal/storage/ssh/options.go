package ssh

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// Options say which directory of which host is meant. Parse makes them of a URL; all
// else (keys, jump hosts, names of hosts) is what ssh_config(5) says.
type Options struct {
	User string // empty: as configured
	Host string // a name, one of ssh_config, or an address without brackets
	Port string // empty: as configured
	Dir  string // absolute, or relative to where sftp begins: the home directory

	// Not from the URL:

	UploadLimit   int64 // bytes a second, of all connections together; 0: none
	DownloadLimit int64

	// Ask lets ssh ask for passwords and about keys of hosts, on the terminal that
	// this process has. Without it such questions are failures.
	Ask bool

	Seal   *sealed.Seal // has to allow the program ssh. Nil seals nothing
	Log    *slog.Logger
	Notify func(line string) // is told of retries, from any goroutine; may be nil

	Backoff time.Duration // before the first retry, then twice as long; 0: a second
	Alive   time.Duration // between signs of life that the server is asked for, three of which may be missing; 0: 15 s. Whole seconds
}

const example = "ssh://user@host/srv/images"

var (
	// hostName is what a host can be called, also in ssh_config. It begins with no "-",
	// which ssh would take for an option.
	hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`)

	userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+-]{0,254}$`)
)

// Parse reads a URL of the form
//
//	ssh://[user@]host[:port]/directory     ssh://host/~/directory is below the home directory
//
// Its errors are usage faults and never show a password.
func Parse(name string) (Options, error) {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "ssh" || u.Opaque != "" {
		return Options{}, fault.New(fault.Usage, "this is no directory behind ssh").Advise("Write it as %s.", example)
	}
	if _, set := u.User.Password(); set {
		return Options{}, fault.New(fault.Usage, "the URL of a directory behind ssh takes no password").
			Advise("Use a key (ssh-copy-id, ssh-add), or let ssh ask for the password on a terminal.")
	}
	o := Options{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}
	address, err := netip.ParseAddr(o.Host)
	switch {
	case !hostName.MatchString(o.Host) && (err != nil || address.Zone() != ""):
		return Options{}, fault.New(fault.Usage, "%.100q is no host", o.Host).Advise("Write it as %s.", example)
	case u.User != nil && !userName.MatchString(o.User):
		return Options{}, fault.New(fault.Usage, "%.100q is no user", o.User).Advise("Write it as %s.", example)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Options{}, fault.New(fault.Usage, "%s: a directory behind ssh takes no options", o.server()).
			Advise("What ssh needs to know belongs into ~/.ssh/config. In a directory's name write %%3F for ?, and %%23 for #.")
	}
	if o.Port != "" {
		if n, err := strconv.ParseUint(o.Port, 10, 16); err != nil || n == 0 {
			return Options{}, fault.New(fault.Usage, "%s: its port is none", o.server())
		}
	}
	return o.at(u.Path)
}

// at sets the directory that a path of a URL means.
func (o Options) at(name string) (Options, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Options{}, fault.New(fault.Usage, "%s: its directory has control characters", o.server())
	}
	first, rest, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	switch {
	case first == "~":
		o.Dir = path.Clean("./" + rest)
		if o.Dir == ".." || strings.HasPrefix(o.Dir, "../") {
			return Options{}, fault.New(fault.Usage, "%s: its directory is outside of the home directory", o.server())
		}
	case strings.HasPrefix(first, "~"):
		return Options{}, fault.New(fault.Usage, "%s: the home directories of others cannot be named by ~", o.server()).
			Advise("Write the whole path, or %s/~/images for your own there.", o.server())
	default:
		o.Dir = path.Clean("/" + name)
	}
	if o.Dir == "/" {
		return Options{}, fault.New(fault.Usage, "%s names no directory", o.server()).
			Advise("Write it as %s, or ssh://host/~/images for one in your home directory there. "+
				"An engine behind ssh is named by --engine.", example)
	}
	return o, nil
}

// server is the host as a user would name it.
func (o Options) server() string {
	host := o.Host
	switch {
	case o.Port != "":
		host = net.JoinHostPort(host, o.Port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	if o.User != "" {
		host = o.User + "@" + host
	}
	return "ssh://" + host
}

// url is the directory as a user would name it, for messages.
func (o Options) url() string {
	if !strings.HasPrefix(o.Dir, "/") {
		return o.server() + path.Clean("/~/"+o.Dir)
	}
	return o.server() + o.Dir
}

// Canonical returns one name for one directory, however it was written. What ssh_config
// makes of it, it does not know.
func (o Options) Canonical() string {
	return strings.Join([]string{"ssh", o.User, strings.ToLower(o.Host), o.Port, o.Dir}, "\n")
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

// alive is how many seconds lie between signs of life.
func (o Options) alive() int {
	if o.Alive == 0 {
		return 15
	}
	return int((o.Alive + time.Second - 1) / time.Second)
}

// backoff is how long to wait before a retry.
func (o Options) backoff(attempt int) time.Duration {
	first := o.Backoff
	if first == 0 {
		first = time.Second
	}
	return first << attempt
}
