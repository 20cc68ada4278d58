package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/fleet"
	"github.com/dogestry/dogestry/internal/transfer"
)

// fleetOutcome is what a pull onto many engines came to.
type fleetOutcome struct {
	remote  string
	images  int // that each was to get
	engines []fleet.Outcome
	took    time.Duration
	err     error
}

// printEngines prints a line an engine on stdout, and what else is to be known on
// stderr. It returns the outcome's error.
func (a *app) printEngines(o fleetOutcome) error {
	if a.json {
		return a.printDocument(o.document(), o.err)
	}
	o.table(a.out)
	if !a.quiet {
		for _, e := range o.engines {
			switch {
			case e.SameAs != "":
				fmt.Fprintln(a.errOut, oneLine(fmt.Sprintf("%s and %s are one engine, which was done once", e.Host, e.SameAs)))
			case e.Alone > 0:
				fmt.Fprintln(a.errOut, oneLine(fmt.Sprintf("%s fell behind the others, and read %s for itself", e.Host, bytes(e.Alone))))
			}
		}
		fmt.Fprintf(a.errOut, "%s in %.1fs\n", count(len(o.engines), "engine"), o.took.Seconds())
	}
	return o.err
}

func (o fleetOutcome) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	ways := slices.ContainsFunc(o.engines, func(e fleet.Outcome) bool { return e.Way != "" })
	way := func(text string) string {
		if !ways {
			return ""
		}
		return cmp.Or(text, "-") + "\t"
	}
	fmt.Fprintf(t, "ENGINE\tSTATUS\t%sIMAGE ID\tMOVED\tSPARED\tTIME\tERROR\n", way("VIA"))
	for _, e := range o.engines {
		moved, spared, took, problem := "-", "-", "-", "-"
		if e.Took > 0 {
			took = fmt.Sprintf("%.1fs", e.Took.Seconds())
		}
		if e.Status == fleet.Done || len(e.Images) > 0 {
			m, s := sums(e.Images)
			moved, spared = bytes(m), bytes(s)
		}
		if e.Err != nil && e.Status != fleet.Stopped {
			problem = oneLine(e.Err.Error())
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\t%s\t%s\t%s\t%s\n", oneLine(e.Host), e.Status, way(e.Way), o.have(e.Images), moved, spared, took, problem)
	}
	t.Flush()
}

// have says which images an engine has now.
func (o fleetOutcome) have(images []transfer.Result) string {
	switch {
	case len(images) == 0:
		return "-"
	case o.images == 1:
		return images[0].ID.Short()
	case len(images) == o.images:
		return count(o.images, "image")
	}
	return fmt.Sprintf("%d of %s", len(images), count(o.images, "image"))
}

// sums adds up the bytes of layers that travelled, and of those that did not.
func sums(images []transfer.Result) (moved, spared int64) {
	for _, r := range images {
		_, m, _ := r.Moved()
		_, s, _ := r.Spared()
		moved, spared = moved+m, spared+s
	}
	return moved, spared
}

// engineDocument is an engine in --json output.
type engineDocument struct {
	Engine     string            `json:"engine"`
	Status     fleet.Status      `json:"status"`
	SameAs     string            `json:"sameAs,omitempty"`
	Via        string            `json:"via,omitempty"` // agent or here, where there was a choice
	Images     []transfer.Result `json:"images"`
	Moved      int64             `json:"moved"`                // bytes of layers
	Spared     int64             `json:"spared"`               // the same
	FellBehind int64             `json:"fellBehind,omitempty"` // bytes that it read for itself
	Seconds    float64           `json:"seconds"`
	Error      *failure          `json:"error,omitempty"`
}

func (o fleetOutcome) document() any {
	document := struct {
		Remote  string           `json:"remote"`
		Engines []engineDocument `json:"engines"`
		Seconds float64          `json:"seconds"`
		Error   *failure         `json:"error,omitempty"`
	}{o.remote, []engineDocument{}, o.took.Seconds(), failureOf(o.err)}
	for _, e := range o.engines {
		moved, spared := sums(e.Images)
		if e.Images == nil {
			e.Images = []transfer.Result{}
		}
		document.Engines = append(document.Engines, engineDocument{
			e.Host, e.Status, e.SameAs, e.Way, e.Images, moved, spared, e.Alone, e.Took.Seconds(), failureOf(e.Err),
		})
	}
	return document
}
