// Package fault gives a failure its kind, so that a script can tell "not found"
// from "damaged" by the exit code, and its advice, so that a person knows what
// to do next.
//
// A fault is made where the failure is understood, names what the user named,
// and travels upward unchanged: callers add nothing but context they alone have.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure it was. Its number is the exit code of the
// command that met it (docs/architecture.md, "Exit codes").
type Kind int

// The kinds of failure. Codes 130 and 143 (interrupted, terminated) come from
// the signal and are no kind.
const (
	Other    Kind = 1 // none of the others
	Usage    Kind = 2 // the command line asks for something that makes no sense
	NotFound Kind = 3 // no such remote, repository, tag or image
	Refused  Kind = 4 // permission denied, tag exists, policy
	Damaged  Kind = 5 // bytes that do not match the digest that names them, or are missing
	Partial  Kind = 6 // some of many failed
	Locked   Kind = 7 // locked, and told not to wait
)

// String returns the kind as it stands in --json output.
func (k Kind) String() string {
	switch k {
	case Usage:
		return "usage"
	case NotFound:
		return "not-found"
	case Refused:
		return "refused"
	case Damaged:
		return "damaged"
	case Partial:
		return "partial"
	case Locked:
		return "locked"
	default:
		return "other"
	}
}

// Error is a failure with its kind.
type Error struct {
	Kind    Kind
	Message string // one line; names what the user named
	Advice  string // what to do next; may be empty, may have several lines
	Cause   error  // may be nil; its text follows the message
}

// Error returns the message and the cause, without the advice.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns a fault without a cause.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault whose text ends with that of cause.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// Advise sets what the user should do next, and returns e.
func (e *Error) Advise(format string, args ...any) *Error {
	e.Advice = fmt.Sprintf(format, args...)
	return e
}

// KindOf returns the kind of the outermost fault in err's chain, and Other
// where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Other
}

// AdviceOf returns the first advice that is not empty in err's chain.
func AdviceOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Advice != "" {
			return e.Advice
		}
		err = e.Cause
	}
	return ""
}

// Is reports whether err's chain has a fault of that kind.
func Is(err error, kind Kind) bool {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return false
		}
		if e.Kind == kind {
			return true
		}
		err = e.Cause
	}
	return false
}

// Interrupted reports whether err comes from a cancelled or expired context.
func Interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Named returns the kind that String calls so, and Other where there is none.
func Named(kind string) Kind {
	for _, k := range []Kind{Usage, NotFound, Refused, Damaged, Partial, Locked} {
		if k.String() == kind {
			return k
		}
	}
	return Other
}
