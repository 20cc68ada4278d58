// Package sealed keeps dogestry from contacting anything but what it was told
// to: the remotes and the engine of a command, and what the configuration names
// (docs/sealed.md). Every connection that the program makes is dialled through a
// Seal, and every other program that it runs is asked about.
package sealed

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/dogestry/dogestry/internal/fault"
)

// ErrSealed is wrapped by all that a Seal refuses: asking again is no use.
var ErrSealed = errors.New("dogestry is sealed")

// Options say what is allowed besides what a command itself names.
type Options struct {
	// From is who asked for it, for messages: a flag, a variable, or a file and a line.
	From string
	// Allow is what may be dialled, as host:port: credential endpoints, a proxy.
	Allow []string
	// Programs are the names of programs that may be run, as they are run.
	Programs []string
}

// Seal is a list of what may be dialled and run. Nil lets everything pass. Its
// methods are safe for concurrent use.
type Seal struct {
	from     string
	programs map[string]bool

	mu      sync.RWMutex
	allowed map[string]bool // by key
}

// DialFunc dials as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// New returns a Seal. Its errors are Usage faults that name what is no address.
func New(o Options) (*Seal, error) {
	s := &Seal{from: o.From, programs: map[string]bool{}, allowed: map[string]bool{}}
	for _, address := range o.Allow {
		if err := CheckAddress(address); err != nil {
			return nil, fault.New(fault.Usage, "sealed-allow: %s", err)
		}
		s.Admit("tcp", address)
	}
	for _, name := range o.Programs {
		s.programs[name] = true
	}
	return s, nil
}

// Admit lets an address be dialled from now on: of tcp a host:port, of unix and
// npipe a path. It is for the remotes and the engine of a command.
func (s *Seal) Admit(network, address string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed[key(network, address)] = true
}

// Check returns the Refused fault of an address that may not be dialled, which
// wraps ErrSealed, and nil of one that may.
func (s *Seal) Check(network, address string) error {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.allowed[key(network, address)] {
		return nil
	}
	return fault.Wrap(fault.Refused, &refusal{s.from}, "%s was not contacted", address).
		Advise("Only the remotes and the engine of the command may be. If this one may, too, the configuration has to name it: sealed-allow: [%q]. See docs/sealed.md.", address)
}

// Dial returns a dialer that asks before it dials, and so before it looks up a
// name. With a nil inner it is net.Dialer's.
func (s *Seal) Dial(inner DialFunc) DialFunc {
	if inner == nil {
		inner = new(net.Dialer).DialContext
	}
	if s == nil {
		return inner
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := s.Check(network, address); err != nil {
			return nil, err
		}
		return inner(ctx, network, address)
	}
}

// Transport puts the Seal under a transport that is not in use yet: where it
// dials, and once more where it asks for the proxy of each request, since some
// who take a transport give it a dialer of their own.
func (s *Seal) Transport(t *http.Transport) {
	if s == nil {
		return
	}
	t.DialContext = s.Dial(t.DialContext)
	if t.DialTLSContext != nil {
		t.DialTLSContext = s.Dial(t.DialTLSContext)
	}
	t.Proxy = s.Proxy(t.Proxy)
}

// Program returns the Refused fault of a program that may not be run, which wraps
// ErrSealed. Where such a program goes, dogestry does not see.
func (s *Seal) Program(name string) error {
	if s == nil || s.programs[name] {
		return nil
	}
	return fault.Wrap(fault.Refused, &refusal{s.from}, "%s was not run", name).
		Advise("What other programs contact is not dogestry's to say. If this one may run, the configuration has to name it: sealed-programs: [%q]. See docs/sealed.md.", name)
}

// Command is Program for a line that a shell is to run. One that could run
// several programs is refused, whatever their names.
func (s *Seal) Command(line string) error {
	if s == nil {
		return nil
	}
	words := strings.Fields(line)
	if len(words) == 0 || strings.ContainsAny(line, "|&;<>()$`\\\n\r") {
		return fault.Wrap(fault.Refused, &refusal{s.from}, "a command that is more than one program's was not run").
			Advise("Write it as one program and its arguments, and name the program in the configuration: sealed-programs. See docs/sealed.md.")
	}
	return s.Program(unquoted(words[0]))
}

// unquoted is a word without the quotes around all of it.
func unquoted(word string) string {
	for _, quote := range []string{`"`, "'"} {
		inner := strings.TrimSuffix(strings.TrimPrefix(word, quote), quote)
		if quote+inner+quote == word {
			return inner
		}
	}
	return word
}

// refusal says who has sealed it.
type refusal struct{ from string }

func (r *refusal) Error() string { return ErrSealed.Error() + " (" + r.from + ")" }
func (r *refusal) Unwrap() error { return ErrSealed }

// Refusal returns what a Seal has refused, and nil where err comes from
// elsewhere. Those who make faults of errors pass it on.
func Refusal(err error) *fault.Error {
	var f *fault.Error
	if !errors.Is(err, ErrSealed) || !errors.As(err, &f) {
		return nil
	}
	return f
}
