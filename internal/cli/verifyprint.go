package cli

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/cli/progress"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/verify"
)

// verifying shows a verification as one bar: its layers may be many thousands.
type verifying struct {
	*progress.Display
	bar atomic.Pointer[transfer.Bar]
}

// Reading begins a bar, or ends it.
func (v *verifying) Reading(bytes int64) {
	var next *transfer.Bar
	if bytes > 0 {
		bar := v.Layer("layers", bytes)
		next = &bar
	}
	if last := v.bar.Swap(next); last != nil {
		(*last).Done()
	}
}

// Read moves the bar.
func (v *verifying) Read(n int) {
	if bar := v.bar.Load(); bar != nil {
		(*bar).Add(n)
	}
}

// verified is what a verification came to.
type verified struct {
	verification
	report       *verify.Report
	unreferenced []remote.Entry
	took         time.Duration
	err          error // why it did not go on, if it did not
}

// printVerified prints what is wrong on stdout, and how much was read on stderr.
// It returns the fault that damage is.
func (a *app) printVerified(v verified) error {
	v.err = a.orSignal(v.err)
	complete := v.err == nil
	if complete {
		v.err = v.damage()
	}
	if a.json {
		return a.printDocument(v.document(), v.err)
	}
	for _, f := range v.report.Findings {
		what := string(f.Problem)
		if f.Repaired {
			what = "repaired, was " + what
		}
		fmt.Fprintf(a.out, "%s: %s: %s\n", oneLine(f.Object), what, oneLine(f.Detail))
		for _, frames := range f.Frames {
			fmt.Fprintf(a.out, "  %s\n", oneLine(frames.String()))
		}
		if f.MoreFrames > 0 {
			fmt.Fprintf(a.out, "  and in %s more\n", count(f.MoreFrames, "place"))
		}
		if f.Failure != "" {
			fmt.Fprintf(a.out, "  not repaired: %s\n", oneLine(f.Failure))
		}
		fmt.Fprintf(a.out, "  needed by %s\n", sharedWith(f.Images))
	}
	if complete && !a.quiet {
		v.summarize(a)
	}
	return v.err
}

// damage returns the fault of what is left, nil where all is well.
func (v verified) damage() error {
	left, unreadable, outside := v.report.Left(), v.report.LeftOf(verify.Unreadable), v.report.LeftOf(verify.Outside)
	if left == 0 {
		return nil
	}
	f := fault.New(fault.Damaged, "%s in %s: damaged or missing", count(left-outside, "object"), v.name)
	switch left {
	case outside: // all is whole
		return fault.New(fault.Refused, "%s in %s: of images that point outside", count(left, "object"), v.name).
			Advise("Engines may fetch such layers from there. Build the images anew, on base images without them; `dogestry rm` and `gc` remove these.")
	case unreadable + outside: // it may be the way to them
		f = fault.New(fault.Other, "%s in %s could not be read", count(unreadable, "object"), v.name)
	}
	switch {
	case v.report.Stopped != nil:
		return f.Advise("The repair has ended early: %s", v.report.Stopped)
	case v.repairFrom != "":
		return f.Advise("Where the list does not say more: try another source, or push the image again.")
	}
	return f.Advise("`--repair-from` another remote, or an engine that has the image (`--repair-from engine`), writes it again.")
}

func (v verified) summarize(a *app) {
	r := v.report
	part := ""
	if v.part.Of > 0 {
		part = " of part " + v.part.String()
	}
	besides := ""
	if r.Members > 0 {
		besides = count(r.Members, "manifest") + " besides, "
	}
	fmt.Fprintf(a.errOut, "verified %s: %s, %s%s, %s%s, %s in %.1fs\n", v.name,
		count(r.Images, "image"), besides, count(r.Documents, "document"), count(r.Layers, "layer"), part, bytes(r.Bytes), v.took.Seconds())
	for _, n := range r.Notes {
		fmt.Fprintf(a.errOut, "%s: %s: `dogestry index %s` writes it anew\n", oneLine(n.Object), n.Detail, v.name)
	}
	for _, u := range r.Unproved {
		fmt.Fprintf(a.errOut, "not proved: %s: %s\n", sharedWith(u.Images), printable(u.Why))
	}
	if u := r.Unreferenced; u != nil && u.Entries > 0 {
		fmt.Fprintf(a.errOut, "no tag reaches %s: of pushes under way, or of tags that were moved or removed\n", heap(repo.Heap{Count: u.Entries, Stored: u.Bytes}))
	}
}

func (v verified) document() any {
	type unreferenced struct {
		*verify.Unreferenced
		List []remote.Entry `json:"list"`
	}
	document := struct {
		Remote       string            `json:"remote"`
		Subset       string            `json:"subset,omitempty"`
		Images       int               `json:"images"`
		Members      int               `json:"members,omitempty"` // manifests that no tag names
		Documents    int               `json:"documents"`
		Layers       int               `json:"layers"`
		Bytes        int64             `json:"bytes"`
		Findings     []verify.Finding  `json:"findings"`
		Notes        []verify.Note     `json:"notes,omitempty"` // of objects that are whole
		Unproved     []verify.Unproved `json:"unproved,omitempty"`
		Unreferenced *unreferenced     `json:"unreferenced,omitempty"` // absent where it is not known
		Seconds      float64           `json:"seconds"`
		Error        *failure          `json:"error,omitempty"`
	}{
		Remote: v.name, Images: v.report.Images, Members: v.report.Members, Documents: v.report.Documents, Layers: v.report.Layers, Bytes: v.report.Bytes,
		Findings: v.report.Findings, Notes: v.report.Notes, Unproved: v.report.Unproved, Seconds: v.took.Seconds(), Error: failureOf(v.err),
	}
	if v.part.Of > 0 {
		document.Subset = v.part.String()
	}
	if v.report.Unreferenced != nil {
		document.Unreferenced = &unreferenced{v.report.Unreferenced, append([]remote.Entry{}, v.unreferenced...)}
	}
	return document
}
