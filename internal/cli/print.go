package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/dogestry/dogestry/internal/transfer"
)

// outcome is what a push or pull came to.
type outcome struct {
	verb, past string
	remote     string
	results    []transfer.Result
	took       time.Duration
	err        error // why it stopped, if it did not do all
}

// printResults prints a line an image on stdout, as soon as a script may rely
// on it, and what moved on stderr. It returns the outcome's error.
func (a *app) printResults(o outcome) error {
	o.err = a.orSignal(o.err)
	if a.json {
		if o.err != nil && len(o.results) == 0 {
			return o.err // the one JSON document is then the error
		}
		return a.printDocument(struct {
			Remote  string            `json:"remote"`
			Images  []transfer.Result `json:"images"`
			Seconds float64           `json:"seconds"`
			Error   *failure          `json:"error,omitempty"` // what stopped it before it had done all
		}{o.remote, o.results, o.took.Seconds(), failureOf(o.err)}, o.err)
	}
	for _, r := range o.results {
		fmt.Fprintln(a.out, r.Image, r.ID)
	}
	if !a.quiet {
		for _, r := range o.results {
			fmt.Fprintln(a.errOut, summary(o, r))
		}
		if n := len(o.results); n > 1 {
			fmt.Fprintf(a.errOut, "%d images in %.1fs\n", n, o.took.Seconds())
		}
	}
	return o.err
}

// summary says in one line how much of an image moved and how much was spared.
func summary(o outcome, r transfer.Result) string {
	var b strings.Builder
	verb := o.past
	if r.DryRun {
		verb = "would " + o.verb
	}
	fmt.Fprintf(&b, "%s %s:", verb, r.Image)
	moved, size, stored := r.Moved()
	spared, sparedSize, _ := r.Spared()
	fetched, rebuilt, rebuiltSize := r.Fetched()
	switch {
	case rebuilt > 0:
		how := "fetched"
		if r.DryRun {
			how = "to fetch"
		}
		fmt.Fprintf(&b, " %s image, %s %s (%s rebuilt from local data)", bytes(size+sparedSize), bytes(fetched), how, rebuiltLayers(rebuilt, rebuiltSize))
	case moved == 0:
		fmt.Fprintf(&b, " nothing to move")
	case r.DryRun && size == 0:
		fmt.Fprintf(&b, " %s", count(moved, "layer"))
	default:
		fmt.Fprintf(&b, " moved %s, %s (%s in the remote)", count(moved, "layer"), bytes(size), bytes(stored))
	}
	if spared > 0 {
		fmt.Fprintf(&b, ", spared %s, %s", count(spared, "layer"), bytes(sparedSize))
	}
	if r.SignedBy != "" {
		fmt.Fprintf(&b, ", signed by %s", r.SignedBy)
	}
	if len(o.results) == 1 && !r.DryRun { // o.took is the time of all
		fmt.Fprintf(&b, " in %.1fs", o.took.Seconds())
	}
	return b.String()
}

// rebuiltLayers says how many layers of how many bytes in all.
func rebuiltLayers(n int, size int64) string {
	if n == 1 {
		return bytes(size) + " layer"
	}
	return fmt.Sprintf("%d layers of %s", n, bytes(size))
}

// count says how many of what there are.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// bytes writes a size as docker does.
func bytes(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// ago writes a time as docker does.
func ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(time.Since(*t)) + " ago"
}
