package front

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/dogestry/dogestry/internal/fault"
)

// maxGuessing bounds the requests that wait for a password to be compared. Who comes
// beyond it is told to come again: somebody may be guessing.
const maxGuessing = 256

// Why somebody is not let in.
var (
	errUnknown = errors.New("user or password, or token, unknown")
	errBusy    = errors.New("too many logins at once")
)

// login is somebody who was let in.
type login struct {
	name   string
	writes bool
}

// logins knows who may do what. It is safe for concurrent use.
type logins struct {
	users  *watched[*users]  // nil where there is no file
	tokens *watched[[]token] // nil where there is no file

	writers  []string // "*" stands for all
	verified *verified
	guessing turns         // compared or waiting to be
	compare  chan struct{} // compared: bcrypt takes a processor for some 50 ms
	metrics  *Metrics
}

// newLogins reads the files of the options, nil where they name none.
func newLogins(o Options) (*logins, error) {
	if o.Htpasswd == "" && len(o.WriteUsers) > 0 {
		return nil, fault.New(fault.Usage, "there are users that may write, and no file that knows users").Advise("Name it with --htpasswd.")
	}
	if o.Htpasswd == "" && o.Tokens == "" {
		return nil, nil
	}
	l := &logins{
		writers:  o.WriteUsers,
		verified: newVerified(),
		guessing: newTurns(maxGuessing),
		compare:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		metrics:  o.Metrics,
	}
	failed := func(file string) func(error) {
		return func(err error) {
			o.Metrics.reloadFailed(file)
			o.Log.Error("a file of logins has changed and is of no use; those before it stay", "error", err)
		}
	}
	var err error
	if o.Htpasswd != "" {
		if l.users, err = watch(func() (*users, error) { return readUsers(o.Htpasswd) }, failed("htpasswd"), o.Htpasswd); err != nil {
			return nil, err
		}
	}
	if o.Tokens != "" {
		if l.tokens, err = watch(func() ([]token, error) { return readTokens(o.Tokens) }, failed("tokens"), o.Tokens); err != nil {
			return nil, err
		}
	}
	return l, l.check(o)
}

// check refuses names of users that may write and are none, and a registry that takes
// writes from nobody: both would be noticed at the first push.
func (l *logins) check(o Options) error {
	for _, name := range o.WriteUsers {
		if name == "*" {
			continue
		}
		if _, ok := l.users.get().hashes[name]; !ok {
			return fault.New(fault.NotFound, "no user %q in %s, who is to write", name, o.Htpasswd)
		}
	}
	if o.Writable && len(o.WriteUsers) == 0 && (l.tokens == nil || !slices.ContainsFunc(l.tokens.get(), func(t token) bool { return t.writes })) {
		return fault.New(fault.Usage, "the registry is writable, and nobody may write").
			Advise("Name users with --write-users (\"*\" for all), or give a token the right to write.")
	}
	return nil
}

// who returns who sends a request. Its errors are errUnknown, errBusy and that of the
// context; nobody at all is unknown.
func (l *logins) who(r *http.Request) (login, error) {
	if user, password, ok := r.BasicAuth(); ok {
		if who, ok := l.byToken(user, password); ok {
			return who, nil
		}
		return l.byPassword(r.Context(), user, password)
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		if who, ok := l.byToken("", strings.TrimSpace(secret)); ok {
			return who, nil
		}
	}
	return login{}, errUnknown
}

// byToken looks a token up, for clients that have names of its name; an empty name is
// any. All are compared: how long it takes tells nothing.
func (l *logins) byToken(name, secret string) (who login, ok bool) {
	if l.tokens == nil {
		return login{}, false
	}
	sum := sha256.Sum256([]byte(secret))
	for _, t := range l.tokens.get() {
		if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 && (name == "" || name == t.name) {
			who, ok = login{t.name, t.writes}, true
		}
	}
	if ok {
		l.metrics.loggedIn("token")
	}
	return who, ok
}

// byPassword compares a password. That of a user who is none takes as long.
func (l *logins) byPassword(ctx context.Context, name, password string) (login, error) {
	if l.users == nil {
		return login{}, errUnknown
	}
	all := l.users.get()
	hash, known := all.hashes[name]
	if !known {
		hash = all.nobody
	}
	proof := l.verified.proof(name, hash, password)
	if l.verified.has(proof) {
		l.metrics.loggedIn("remembered")
		return l.user(name), nil
	}
	release, ok := l.guessing.take()
	if !ok {
		return login{}, errBusy
	}
	defer release()
	select {
	case l.compare <- struct{}{}:
	case <-ctx.Done():
		return login{}, ctx.Err()
	}
	defer func() { <-l.compare }()
	if l.verified.has(proof) { // fifty pulls that begin at once wait for one comparison
		l.metrics.loggedIn("remembered")
		return l.user(name), nil
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err != nil || !known {
		return login{}, errUnknown
	}
	l.verified.add(proof)
	l.metrics.loggedIn("password")
	return l.user(name), nil
}

func (l *logins) user(name string) login {
	return login{name, slices.Contains(l.writers, "*") || slices.Contains(l.writers, name)}
}
