package rsync

import (
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
)

// Options say which directory of which module is meant. Parse makes them of a URL.
type Options struct {
	User   string // as whom to log in; empty: as rsync has it, from USER or LOGNAME
	Host   string // host or host:port, as in a URL
	Module string
	Prefix string // of all keys, without slashes at its ends; may be empty

	PasswordFile string // what rsync reads the password from; empty: RSYNC_PASSWORD, if that is set

	// Not from the URL:

	Spool string // the directory in which objects lie while they move; it is made

	UploadLimit   int64 // bytes a second, of each run of rsync; 0: none
	DownloadLimit int64

	Seal   *sealed.Seal // is asked whether rsync may be run. Nil seals nothing
	Log    *slog.Logger
	Notify func(line string) // is told of retries, from any goroutine; may be nil

	Attempts int           // of one operation; 0: 5
	Backoff  time.Duration // before the second; it doubles. 0: 500 ms
	Timeout  time.Duration // without a byte; 0: 2 minutes. Whole seconds
}

const example = "rsync://host/module/path"

var (
	hostName   = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
	userName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	moduleName = regexp.MustCompile(`^[!-.0-~][ -.0-~]*$`) // printable, no slash, no space in front
)

// Parse reads a URL of the form
//
//	rsync://[user@]host[:port]/module[/path][?password-file=/path]
//
// Its errors are usage faults and never show a password.
func Parse(name string) (Options, error) {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "rsync" || u.Opaque != "" || u.Fragment != "" {
		return Options{}, fault.New(fault.Usage, "this is not the URL of an rsync server").Advise("Write it as %s.", example)
	}
	if _, has := u.User.Password(); has {
		return Options{}, fault.New(fault.Usage, "the URL of an rsync server takes no password").
			Advise("Set RSYNC_PASSWORD, or add ?password-file=PATH.")
	}
	module, prefix, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	o := Options{User: u.User.Username(), Host: u.Host, Module: module, Prefix: strings.Trim(prefix, "/")}
	switch {
	case !hostName.MatchString(o.Host):
		return Options{}, fault.New(fault.Usage, "the URL names no host that there can be").Advise("Write it as %s.", example)
	case o.User != "" && !userName.MatchString(o.User):
		return Options{}, fault.New(fault.Usage, "%s: no user of rsync has a name like the one in the URL", o.Host)
	case o.Module == "":
		return Options{}, fault.New(fault.Usage, "the URL names no module of the rsync server %s", o.Host).
			Advise("Write it as %s. `rsync rsync://%s/` lists the modules that the server shows.", example, o.Host)
	case !moduleName.MatchString(o.Module):
		return Options{}, fault.New(fault.Usage, "%s: no module has a name like %q", o.Host, o.Module)
	}
	if o.Prefix != "" {
		if err := storage.ValidKey(o.Prefix); err != nil {
			return Options{}, fault.New(fault.Usage, "%s: the path is no key: %s", o.Host, err)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, fault.New(fault.Usage, "%s: what follows the ? in its URL makes no sense", o.url())
	}
	for key, values := range query {
		if key != "password-file" {
			return Options{}, fault.New(fault.Usage, "%s: there is no option %q", o.url(), key).Advise("See docs/rsync.md for what can be set.")
		}
		if len(values) != 1 || values[0] == "" || values[0] == "-" {
			return Options{}, fault.New(fault.Usage, "%s: password-file needs the path of one file", o.url())
		}
		o.PasswordFile = values[0]
	}
	return o, nil
}

// Identity is one text for one directory, however its URL was written, without what
// says only how to get in.
func (o Options) Identity() string {
	host := strings.ToLower(o.Host)
	if !strings.Contains(host[strings.LastIndexByte(host, ']')+1:], ":") {
		host += ":873"
	}
	return strings.Join([]string{"rsync", host, o.Module, o.Prefix}, "\n")
}

// module is the URL of the module, as rsync takes it: it reads no escapes.
func (o Options) module() string {
	user := ""
	if o.User != "" {
		user = o.User + "@"
	}
	return "rsync://" + user + o.Host + "/" + o.Module + "/"
}

// url is the directory as a user would name it, for messages.
func (o Options) url() string { return strings.TrimSuffix(o.module()+o.Prefix, "/") }

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}
