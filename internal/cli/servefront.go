package cli

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/front"
)

// fronting is what the flags of serve say about who is let in, and how far.
type fronting struct {
	front.Options
	maxBlob   byteSize
	accessLog string // text, json or off
	noPage    bool
}

// flags adds them to the command.
func (f *fronting) flags(c *cobra.Command) {
	f.maxBlob = front.DefaultMaxBlob
	s := c.Flags()
	s.StringSliceVar(&f.Listen, "listen", []string{"127.0.0.1:5000"}, "`ADDRESS:PORT` to listen at; port 0 is any that is free. May be given again")
	s.BoolVar(&f.InsecureListen, "insecure-listen", false, "listen beyond this machine without TLS or without login: for networks that are trusted")
	s.StringVar(&f.CertFile, "tls-cert", "", "`FILE` of the certificate and those that it was signed with, PEM; read again when it changes")
	s.StringVar(&f.KeyFile, "tls-key", "", "`FILE` of its key, PEM")
	s.StringVar(&f.Htpasswd, "htpasswd", "", "`FILE` of the users that may pull, with passwords hashed by bcrypt (htpasswd -B); read again when it changes")
	s.StringSliceVar(&f.WriteUsers, "write-users", nil, "which `USERS` of them may push and delete, too; '*' for all")
	s.StringVar(&f.Tokens, "tokens", "", "`FILE` of tokens for programs, lines \"NAME read|write SHA256\"; read again when it changes")
	s.IntVar(&f.MaxRequests, "max-requests", front.DefaultRequests, "how many requests are answered at once")
	s.IntVar(&f.MaxUploads, "max-uploads", front.DefaultUploads, "how many of them may be blobs on their way in")
	s.Var(&f.maxBlob, "max-blob-size", "how large a blob may be that a client pushes")
	s.DurationVar(&f.Stall, "stall-timeout", front.DefaultStall, "when a connection is cut off on which nothing moves")
	s.DurationVar(&f.Grace, "shutdown-grace", front.DefaultGrace, "how long requests may go on once the program is to end")
	s.BoolVar(&f.noPage, "no-page", false, "show no web page at /")
	s.StringVar(&f.accessLog, "access-log", "text", "how each request is told on stderr: text, json or off; --quiet is off")
}

// options returns what they say.
func (f *fronting) options(writable bool) (front.Options, error) {
	o := f.Options
	o.MaxBlob, o.Writable, o.Metrics = int64(f.maxBlob), writable, front.NewMetrics()
	switch {
	case o.MaxRequests < 1 || o.MaxUploads < 1:
		return o, fault.New(fault.Usage, "--max-requests and --max-uploads are 1 or more")
	case o.Stall <= 0 || o.Grace <= 0:
		return o, fault.New(fault.Usage, "--stall-timeout and --shutdown-grace are longer than 0")
	case f.accessLog != "text" && f.accessLog != "json" && f.accessLog != "off":
		return o, fault.New(fault.Usage, "--access-log %s: it is none of text, json and off", f.accessLog)
	}
	return o, nil
}

// frontLogs says where it is told what was asked for, and what went wrong besides.
func (a *app) frontLogs(o *front.Options, f fronting) {
	o.Log = a.serveLog()
	to := io.Writer(logWriter{a})
	switch {
	case a.quiet || f.accessLog == "off":
	case f.accessLog == "json":
		o.Access = slog.New(slog.NewJSONHandler(to, nil))
	default:
		o.Access = slog.New(slog.NewTextHandler(to, nil))
	}
}
