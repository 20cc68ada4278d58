// Package probe finds out what a store can and cannot do, by trying: what the
// suite of storagetest proves of a transport, this tells a user of the server,
// file system or mount at hand.
package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Prefix is what the keys of all probes begin with. Each adds 16 hex digits of its own.
const Prefix = "run/check-"

// Status is what a check came to, as it stands in --json output.
type Status string

const (
	OK          Status = "ok"
	Warning     Status = "warning"     // it works, and something about it is worth knowing
	Unsupported Status = "unsupported" // the store does not claim to be able to
	Failed      Status = "failed"      // it does not do what it should, or claims to
	Skipped     Status = "skipped"     // what it builds on did not work
)

// Result is one check.
type Result struct {
	Name     string
	Status   Status
	Detail   string // one line
	Needed   string // what in dogestry needs it
	Required bool   // push and pull are among that
	Took     time.Duration
	Err      error // why it failed; nil where it did not
}

// Bad reports whether push and pull will not work because of it.
func (r Result) Bad() bool {
	return r.Required && (r.Status == Failed || r.Status == Unsupported)
}

// Options of a run.
type Options struct {
	// Begin, where it is set, is called with a check's name before it runs.
	Begin func(name string)

	part int64 // tests make it smaller than partSize, to be quick
}

// partSize is that of an upload in parts, in bytes, where a store has them.
const partSize = 8 << 20

// Run tries out a store that a and b have opened, the same place twice, and
// returns a result for each check. It writes below a random key that begins with
// Prefix, some 40 MB in all, and removes everything at the end, also after a
// failure or the end of ctx; that takes a few seconds at most then.
//
// The error is that of ctx, where it ended, or says what could not be removed;
// what the checks found is in the results alone.
func Run(ctx context.Context, a, b storage.Store, o Options) ([]Result, error) {
	if o.part == 0 {
		o.part = partSize
	}
	p := &probe{a: a, b: b, part: o.part, prefix: newPrefix(), keys: map[string]bool{}}
	results, err := p.run(ctx, o)
	return results, errors.Join(err, p.remove(ctx))
}

func newPrefix() string { return fmt.Sprintf("%s%016x/", Prefix, rand.Uint64()) }

// probe is one run.
type probe struct {
	a, b   storage.Store
	prefix string
	part   int64

	mu   sync.Mutex
	keys map[string]bool // that may hold an object of ours
}

// check is one thing to find out.
type check struct {
	name     string
	needed   string
	required bool
	mayLack  bool     // a store that says that it cannot is good without it
	after    []string // without these it would tell nothing
	run      func(*probe, context.Context) (detail string, err error)
}

// checks are all, in order: what fails first explains the most.
var checks = []check{
	{"read", "list, pull", true, false, nil, (*probe).read},
	{"write", "push", true, false, nil, (*probe).write},
	{"read back", "push, pull", true, false, []string{"write"}, (*probe).readBack},
	{"empty object", "push", true, false, []string{"read back"}, (*probe).empty},
	{"size and time", "push, pull", true, false, []string{"read back"}, (*probe).stat},
	{"clock", "gc", false, false, []string{"size and time"}, (*probe).clock},
	{"list", "push, list, gc", true, false, []string{"read back"}, (*probe).list},
	{"ranges", "push, pull", true, true, []string{"read back"}, (*probe).ranges},
	{"whole overwrite", "push, pull", true, false, []string{"read back"}, (*probe).overwrite},
	{"failed upload", "push", true, false, []string{"read back"}, (*probe).failedUpload},
	{"large object", "push, pull", true, false, []string{"read back"}, (*probe).large},
	{"delete", "push, gc", true, false, []string{"read back"}, (*probe).delete},
	{"read after write", "push, pull", true, false, []string{"delete"}, (*probe).readAfterWrite},
	{"list after write", "push, list, gc", true, false, []string{"delete", "list"}, (*probe).listAfterWrite},
	{"create if absent", "push --if-absent", false, false, []string{"read back"}, (*probe).create},
	{"compare and swap", "gc beside pushes", false, false, []string{"read back"}, (*probe).swap},
	{"left-overs", "check --sweep", false, false, []string{"failed upload"}, (*probe).leftovers},
}

func (p *probe) run(ctx context.Context, o Options) ([]Result, error) {
	var results []Result
	status := map[string]Status{}
	for _, c := range checks {
		r := Result{Name: c.name, Needed: c.needed, Required: c.required}
		if missing := lacking(c.after, status); missing != "" {
			r.Status, r.Detail = Skipped, "needs "+missing
		} else {
			if o.Begin != nil {
				o.Begin(c.name)
			}
			start := time.Now()
			detail, err := c.run(p, ctx)
			if ctx.Err() != nil {
				return results, ctx.Err()
			}
			r.Took = time.Since(start)
			r.settle(detail, err)
			r.Required = c.required && !(c.mayLack && r.Status == Unsupported)
		}
		status[c.name] = r.Status
		results = append(results, r)
	}
	return results, nil
}

// lacking returns the first of names that did not work.
func lacking(names []string, status map[string]Status) string {
	for _, name := range names {
		if s := status[name]; s != OK && s != Warning {
			return name
		}
	}
	return ""
}

// warning is an error of a check that did work.
type warning string

func (w warning) Error() string { return string(w) }

// missing is an error of a store that does not have an ability.
type missing string

func (m missing) Error() string        { return string(m) }
func (m missing) Is(target error) bool { return target == errors.ErrUnsupported }

// settle fills in what err means.
func (r *Result) settle(detail string, err error) {
	var w warning
	switch {
	case err == nil:
		r.Status, r.Detail = OK, detail
		return
	case errors.As(err, &w):
		r.Status = Warning
	case errors.Is(err, errors.ErrUnsupported):
		r.Status = Unsupported
	default:
		r.Status, r.Err = Failed, err
	}
	r.Detail = strings.Join(strings.Fields(err.Error()), " ")
}
