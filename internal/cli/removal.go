package cli

import (
	"fmt"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/names"
)

// removal is what rm came to.
type removal struct {
	Remote  string
	Tags    []names.Named
	Members []names.Named // manifests, by their digests
	DryRun  bool
	errs    []error // one for each tag, and then one for each manifest
}

// removed is a tag or manifest in --json output.
type removed struct {
	names.Named
	Removed bool     `json:"removed"`
	Error   *failure `json:"error,omitempty"`
}

// printRemoval prints a line a name that is gone, or would be, on stdout, and on
// stderr what failed. It returns the command's error.
func (a *app) printRemoval(r removal) error {
	err := a.someFailed("removed", r.what(), r.errs)
	if a.json {
		tags := []removed{}
		var manifests []removed
		for i, t := range append(slices.Clone(r.Tags), r.Members...) {
			row := removed{t, r.errs[i] == nil && !r.DryRun, failureOf(r.errs[i])}
			if i < len(r.Tags) {
				tags = append(tags, row)
			} else {
				manifests = append(manifests, row)
			}
		}
		return a.printDocument(struct {
			Remote    string    `json:"remote"`
			Tags      []removed `json:"tags"`
			Manifests []removed `json:"manifests,omitempty"`
			DryRun    bool      `json:"dryRun,omitempty"`
			Error     *failure  `json:"error,omitempty"`
		}{r.Remote, tags, manifests, r.DryRun, failureOf(err)}, err)
	}
	gone := 0
	for i, t := range append(slices.Clone(r.Tags), r.Members...) {
		if r.errs[i] == nil {
			fmt.Fprintln(a.out, tagLine(t))
			gone++
		}
	}
	a.tellFailed(r.errs)
	if !a.quiet && gone > 0 {
		verb := "removed"
		if r.DryRun {
			verb = "would remove"
		}
		fmt.Fprintf(a.errOut, "%s %s from %s; layers stay\n", verb, count(gone, r.what()), r.Remote)
	}
	return err
}

// what it is that was to be removed.
func (r removal) what() string {
	switch {
	case len(r.Members) == 0:
		return "tag"
	case len(r.Tags) == 0:
		return "manifest"
	}
	return "name"
}

// tellFailed tells each of several failures on stderr. One alone is the command's error.
func (a *app) tellFailed(errs []error) {
	if len(errs) < 2 {
		return
	}
	for _, err := range errs {
		if err != nil && !fault.Interrupted(err) {
			fmt.Fprintln(a.errOut, printable(err.Error()))
		}
	}
}

// someFailed is the error of a command that did something to many things, such as tags:
// Partial where some were done and others not. Past is what was done to them.
func (a *app) someFailed(past, what string, errs []error) error {
	var first error
	failed, alike := 0, true
	for _, err := range errs {
		if err == nil {
			continue
		}
		failed++
		first = orElse(first, err)
		alike = alike && fault.KindOf(err) == fault.KindOf(first)
	}
	_, by := a.bySignal()
	switch {
	case failed == 0:
		return nil
	case by != nil:
		return by // what failed then failed for it
	case len(errs) == 1:
		return first
	}
	kind := fault.Partial
	if failed == len(errs) && alike {
		kind = fault.KindOf(first)
	}
	f := fault.New(kind, "%d of %d %ss were not %s", failed, len(errs), what, past)
	return f.Advise("%s", fault.AdviceOf(first))
}

func tagLine(t names.Named) string {
	switch {
	case !t.Reference.Digest.IsZero():
		return t.Reference.String()
	case t.ID.IsZero():
		return t.Reference.String() + " damaged"
	}
	return t.Reference.String() + " " + t.ID.String()
}
