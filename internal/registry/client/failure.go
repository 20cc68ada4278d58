package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// answer is an answer of the registry that is no success.
type answer struct {
	status int
	errors errcode.Errors
}

// answered reads what a failed request was answered, and closes it.
func answered(resp *http.Response) error {
	defer drain(resp)
	a := &answer{status: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&body) == nil {
		a.errors = body.Errors
	}
	return a
}

func (a *answer) Error() string {
	text := fmt.Sprintf("it answers %d %s", a.status, http.StatusText(a.status))
	if len(a.errors) > 0 {
		text += fmt.Sprintf(": %.200s", strings.ToLower(strings.ReplaceAll(a.errors[0].Code, "_", " ")))
		if m := a.errors[0].Message; m != "" {
			text += fmt.Sprintf(": %.200s", m)
		}
	}
	return text
}

// has reports whether the answer has an error of that code (distribution-spec,
// "Error Codes").
func (a *answer) has(code string) bool {
	for _, e := range a.errors {
		if e.Code == code {
			return true
		}
	}
	return false
}

// digests returns those that the errors of a code are about, where they say so.
func (a *answer) digests(codes ...string) []image.Digest {
	var ids []image.Digest
	for _, e := range a.errors {
		for _, code := range codes {
			if e.Code != code {
				continue
			}
			text, _ := json.Marshal(e.Detail)
			for _, found := range digestPattern.FindAllString(string(text)+e.Message, -1) {
				if id, err := image.ParseDigest(found); err == nil {
					ids = append(ids, id)
				}
			}
		}
	}
	return image.Distinct(ids)
}

var digestPattern = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// answerOf finds the answer that an error tells of, nil where there was none.
func answerOf(err error) *answer {
	var own *answer
	if errors.As(err, &own) {
		return own
	}
	var other *errcode.ErrorResponse
	if errors.As(err, &other) {
		return &answer{status: other.StatusCode, errors: other.Errors}
	}
	return nil
}

func isStatus(err error, status int) bool {
	a := answerOf(err)
	return a != nil && a.status == status
}

// cleaned is an error whose text has nothing of URLs but their hosts: redirects and
// uploads carry secrets in them.
type cleaned struct{ err error }

func (c cleaned) Error() string { return plainText(c.err) }
func (c cleaned) Unwrap() error { return c.err }

var urlPattern = regexp.MustCompile(`\b([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s"'<>]+`)

// plainText returns the text of an error without what URLs say.
func plainText(err error) string {
	if a := answerOf(err); a != nil {
		return a.clean()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return hideURLs(err.Error())
}

func (a *answer) clean() string { return hideURLs(a.Error()) }

func hideURLs(text string) string {
	return urlPattern.ReplaceAllStringFunc(text, func(s string) string {
		u, err := url.Parse(s)
		if err != nil {
			return "…"
		}
		return u.Scheme + "://" + u.Host + "/…"
	})
}

// failure turns an error into a fault that says what could not be done. Faults and
// the end of ctx pass as they are.
func (r *Registry) failure(ctx context.Context, err error, format string, args ...any) error {
	var known *fault.Error
	var wrong *image.MismatchError
	var lost *remote.IncompleteError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &known):
		return known
	case errors.As(err, &wrong), errors.As(err, &lost):
		return err
	}
	why := cleaned{err}
	wrap := func(kind fault.Kind) *fault.Error { return fault.Wrap(kind, why, format, args...) }
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return fault.New(fault.Refused, "%s: %s asks who you are", fmt.Sprintf(format, args...), r.o.Host).
			Advise("Log in: %s", r.o.login())
	}
	a := answerOf(err)
	switch {
	case a == nil:
		return r.unreachable(err, wrap)
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.has(errcode.ErrorCodeDenied):
		return wrap(fault.Refused).Advise("Log in as somebody who may: %s. Registries refuse names that they do not have, too.", r.o.login())
	case a.status == http.StatusNotFound:
		return wrap(fault.NotFound).Advise("Check the name. Some registries want a repository to be made before the first push.")
	case a.status == http.StatusTooManyRequests:
		return wrap(fault.Other).Advise("It has had too many requests: wait, or log in (%s) where that allows more.", r.o.login())
	case a.status == http.StatusMethodNotAllowed || a.has(errcode.ErrorCodeUnsupported):
		return wrap(fault.Refused).Advise("The registry does not allow this, or is not set up for it.")
	}
	return wrap(fault.Other)
}

// unreachable is the fault of a request without an answer.
func (r *Registry) unreachable(err error, wrap func(fault.Kind) *fault.Error) error {
	switch {
	case untrusted(err):
		return wrap(fault.Refused).Advise("Name the authority that signed its certificate: %s?ca-file=FILE, or SSL_CERT_FILE.", "registry://"+r.o.Host)
	case alerted(err):
		return wrap(fault.Refused).Advise("It may want a certificate of yours: docker has those for this registry in /etc/docker/certs.d/%s (NAME.cert and NAME.key).", r.o.Host)
	case errors.Is(err, http.ErrSchemeMismatch):
		return wrap(fault.Other).Advise("It speaks HTTP without TLS: %s?plain-http=true, where the network may be trusted.", "registry://"+r.o.Host)
	}
	return wrap(fault.Other).Advise("Is the registry up, and the name right?")
}
