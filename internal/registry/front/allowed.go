package front

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// challenge is what docker, podman, skopeo and browsers ask their users for a password
// at. It is basic also where there are tokens alone: a challenge for bearer tokens
// names a service that gives them out, and there is none (RFC 7235, RFC 7617).
const challenge = `Basic realm="dogestry", charset="UTF-8"`

// sameOrigin refuses what a web page of somebody else lets a browser write. Programs that push
// send no Origin; browsers send it with all that writes, and may have a password at hand, or
// be on the machine that is listened on.
func (f *front) sameOrigin(x *exchange, r *http.Request) bool {
	if reads(r.Method) || r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return true
	}
	f.o.Metrics.refused("origin")
	x.fail(http.StatusForbidden, "DENIED", "a browser may read, and not write")
	return false
}

// allowed makes sure that somebody may do what a request asks for.
func (f *front) allowed(x *exchange, r *http.Request) bool {
	if x.route != pageRoute && x.route != metricsRoute && x.route != apiRoute {
		// Some clients ask no registry that does not say so, not even for a password.
		x.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	}
	if f.logins == nil || x.route == metricsRoute && fromLoopback(r) {
		return true
	}
	var err error
	x.who, err = f.logins.who(r)
	switch {
	case errors.Is(err, errBusy):
		f.o.Metrics.refused("logins")
		x.comeAgain(err.Error())
		return false
	case err != nil:
		if r.Header.Get("Authorization") != "" {
			f.o.Metrics.loggedIn("failed")
		}
		x.Header().Set("WWW-Authenticate", challenge)
		x.fail(http.StatusUnauthorized, "UNAUTHORIZED", "log in first")
		return false
	case !reads(r.Method) && !x.who.writes:
		x.fail(http.StatusForbidden, "DENIED", "you may read, and not write")
		return false
	}
	return true
}

// fromLoopback reports whether a request comes from this machine, and not by way of
// a proxy that says so.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback() && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
}

// log writes the line of a request. There are no secrets in it: no headers but the name of
// the program, and of the query what is known to be harmless.
func (x *exchange) log(aborted bool) {
	r := x.request
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	attrs := []slog.Attr{
		slog.String("client", client),
		slog.String("method", clip(r.Method)),
		slog.String("path", clip(r.URL.Path)),
	}
	if q := logged(r); q != "" {
		attrs = append(attrs, slog.String("query", q))
	}
	attrs = append(attrs,
		slog.Int("code", x.code),
		slog.Int64("received", x.got),
		slog.Int64("sent", x.sent),
		slog.Float64("seconds", float64(time.Since(x.began).Microseconds())/1e6),
	)
	if x.who.name != "" {
		attrs = append(attrs, slog.String("user", x.who.name))
	}
	if agent := r.UserAgent(); agent != "" {
		attrs = append(attrs, slog.String("agent", clip(agent)))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if x.stalled {
		attrs = append(attrs, slog.Bool("stalled", true))
	}
	x.front.o.Access.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}
