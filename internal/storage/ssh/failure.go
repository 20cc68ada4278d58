package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// Status codes of answers (draft-ietf-secsh-filexfer-02, "Responses from the Server to
// the Client"). OpenSSH's server says failure for most of what can go wrong.
const (
	codeFailure    = 4
	codeBadMessage = 5
)

func isCode(err error, code uint32) bool {
	var status *sftp.StatusError
	return errors.As(err, &status) && status.Code == code
}

// absent reports whether nothing can be there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || isCode(err, codeBadMessage) // OpenSSH says that of names that are too long
}

// failure is an error about an object: its text is its name and the server's own words.
type failure struct {
	name  string
	kind  error // one of package storage's, or nil
	cause error
}

func (e *failure) Error() string {
	var status *sftp.StatusError
	words := e.cause.Error()
	switch {
	case e.kind != nil && (errors.As(e.cause, &status) || errors.Is(e.cause, fs.ErrNotExist) || errors.Is(e.cause, fs.ErrPermission)):
		words = e.kind.Error()
	case errors.As(e.cause, &status):
		words = "the server says no more than " + status.Error()
	}
	return e.name + ": " + words
}

func (e *failure) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// Reasons that are found out, where the server does not tell them.
var (
	errInTheWay  = errors.New("something else is in the way")
	errTaken     = errors.New("it exists")
	errFull      = errors.New("the disk there is full")
	errReadOnly  = errors.New("the file system there is read-only")
	errNoReplace = errors.New("the server may only be read, or cannot replace files (posix-rename@openssh.com), which every write needs")
	errNoLink    = errors.New("the server cannot link files (hardlink@openssh.com), which a create-if-absent needs")
	errFolds     = errors.New("the file system there takes upper and lower case for the same, which is not supported over ssh")
)

// failed gives the error of an operation on key its kind.
func (s *Store) failed(ctx context.Context, key string, err error) error {
	if err == nil {
		return nil
	}
	name := s.name(key)
	var known *fault.Error
	var broke *lost
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case errors.As(err, &broke):
		return s.broken(ctx, broke)
	case errors.As(err, &known):
		return err
	}
	e := &failure{name: name, cause: err}
	switch {
	case errors.Is(err, errInTheWay):
		e.kind = storage.ErrConflict
	case errors.Is(err, errTaken):
		e.kind = storage.ErrExists
	case errors.Is(err, errFull):
		e.kind = storage.ErrNoSpace
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errReadOnly), errors.Is(err, errNoReplace):
		e.kind = storage.ErrPermission
	case errors.Is(err, errNoLink), errors.Is(err, errFolds):
		e.kind = errors.ErrUnsupported
	case absent(err):
		e.kind = storage.ErrNotFound
	}
	return e
}

// unwritten is what Put returns where its body or context failed: the kinds above are
// about the store, not about them.
func (s *Store) unwritten(key string, err error) error {
	return fmt.Errorf("%s not written: %w", s.name(key), err)
}

// unreachable is a failure to connect, or of a connection.
type unreachable struct {
	reason string
	busy   bool // the server may take it if it is tried again
}

func (e *unreachable) Error() string { return e.reason }

// broken explains why a connection broke.
func (s *Store) broken(ctx context.Context, e *lost) error {
	e.session.process.kill()
	e.session.process.await(ctx, time.Second)
	reason := "the connection to " + s.o.server() + " broke off"
	if said := lastWords(e.session.process.said.lines()); said != "" {
		reason += " (" + said + ")"
	}
	return fault.Wrap(fault.Other, &unreachable{reason, true}, "cannot go on with %s", s.o.url()).
		Advise("Run the same command again: what is stored stays.")
}

// lastWords is what ssh said that tells the most: its last line that is no
// pleasantry.
func lastWords(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if line := lines[i]; !strings.HasPrefix(line, "Warning: Permanently added") && !strings.HasPrefix(line, "Killed by signal") {
			return fmt.Sprintf("%.300s", strings.TrimRight(line, "."))
		}
	}
	return ""
}

func (s *Store) cannotRun(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, exec.ErrDot) {
		return fault.Wrap(fault.Other, err, "cannot reach %s", s.o.url()).
			Advise("The connection is made by the program ssh: install it (openssh-client), or put it into PATH.")
	}
	return fault.Wrap(fault.Other, err, "cannot run ssh for %s", s.o.url())
}

// explanations are what ssh(1) says on stderr, in lower case, and what that means to a
// user. The first that is found counts.
var explanations = []struct {
	words  string
	kind   fault.Kind
	busy   bool
	advice string
}{
	{
		"remote host identification has changed", fault.Refused, false,
		"The host shows another key than before. Find out why: somebody may be in between. If it is right, forget the old one: ssh-keygen -R %[2]s",
	},
	{
		"host key verification failed", fault.Refused, false,
		"This machine does not know the host's key. Connect once by hand, compare the key, and accept it: %[1]s. Or add it to ~/.ssh/known_hosts.",
	},
	{
		"permission denied (", fault.Refused, false,
		"Log in by hand once: %[1]s. The key has to be in the agent (ssh-add) or named in ~/.ssh/config, and in ~/.ssh/authorized_keys there.",
	},
	{"too many authentication failures", fault.Refused, false, "Name the one key that counts in ~/.ssh/config: IdentityFile and IdentitiesOnly yes."},
	{"subsystem request failed", fault.Other, false, "The server has no sftp: its sshd_config needs a line such as `Subsystem sftp internal-sftp`."},
	{"could not resolve hostname", fault.Other, false, "Check the name, and what ~/.ssh/config says about it."},
	{"connection refused", fault.Other, false, "Is sshd running there, at this port? Try: %[1]s"},
	{"no route to host", fault.Other, false, "Check the network. Try: %[1]s"},
	{"network is unreachable", fault.Other, false, "Check the network. Try: %[1]s"},
	{"timed out", fault.Other, false, "Check the network, and jump hosts in ~/.ssh/config. Try: %[1]s"},
	{"bad configuration option", fault.Usage, false, "See ~/.ssh/config."},
	{"bad owner or permissions", fault.Refused, false, "See ssh_config(5), FILES."},
	{"kex_exchange_identification", fault.Other, true, "The server, or a jump host, closes connections. It may have too many: wait, and try again."},
	{"connection closed", fault.Other, true, "The server closes the connection. Try: %[1]s"},
	{"connection reset", fault.Other, true, "The server closes the connection. Try: %[1]s"},
}

// explain says why ssh could not connect.
func (s *Store) explain(p *process, err error) error {
	lines := p.said.lines()
	all := strings.ToLower(strings.Join(lines, "\n"))
	hand := "ssh"
	if s.o.Port != "" {
		hand += " -p " + s.o.Port
	}
	target := s.o.Host
	if s.o.User != "" {
		target = s.o.User + "@" + target
	}
	hand += " " + target
	what := "cannot reach " + s.o.url()
	for _, e := range explanations {
		if strings.Contains(all, e.words) {
			advice := e.advice
			if strings.Contains(advice, "%[1]s") || strings.Contains(advice, "%[2]s") {
				advice = fmt.Sprintf(advice+"%[3]s", hand, s.o.knownAs(), "")
			}
			return fault.Wrap(e.kind, &unreachable{telling(lines, e.words), e.busy}, "%s", what).Advise("%s", advice)
		}
	}
	if said := lastWords(lines); said != "" {
		return fault.Wrap(fault.Other, &unreachable{said, false}, "%s", what).Advise("Try: %s", hand)
	}
	s.o.log().Debug("not understood", "error", err)
	return fault.Wrap(fault.Other, &unreachable{"what answers does not speak sftp", false}, "%s", what).
		Advise("Where the login there prints something (in .bashrc, say), it must not, or sshd needs `Subsystem sftp internal-sftp`. Try: %s", strings.Replace(hand, "ssh", "sftp", 1))
}

// knownAs is how known_hosts calls the host.
func (o Options) knownAs() string {
	if o.Port != "" && o.Port != "22" {
		return fmt.Sprintf("'[%s]:%s'", o.Host, o.Port)
	}
	return o.Host
}

// telling is the first line that has the words.
func telling(lines []string, words string) string {
	if strings.HasPrefix(words, "remote host") {
		return "its key has changed"
	}
	for _, line := range lines {
		if strings.Contains(strings.ToLower(line), words) {
			return fmt.Sprintf("%.300s", strings.Trim(line, ". @"))
		}
	}
	return words
}
