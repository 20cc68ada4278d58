package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/transfer"
)

// copied is what a copy came to, or an upgrade, which is a copy of a remote to itself.
type copied struct {
	transfer.CopyOptions
	transfer.Copied
	verb, past string
	took       time.Duration
	err        error // why it stopped, if it did not do all
}

// notCopied is an image in --json output that the target has not.
type notCopied struct {
	Image image.Reference `json:"image"`
	Error *failure        `json:"error"`
}

// printCopied prints a line an image on stdout, and one for each tag that was
// removed; the rest on stderr. It returns the copy's error.
func (a *app) printCopied(c copied) error {
	c.err = a.orSignal(c.err)
	if a.json {
		return a.copiedDocument(c)
	}
	for _, r := range c.Images {
		fmt.Fprintln(a.out, r.Image, r.ID)
	}
	for _, r := range c.Removed {
		fmt.Fprintln(a.out, "removed", tagLine(names.Named{Reference: r.Image, ID: r.ID}))
	}
	a.printSummaries(c)
	for _, f := range c.Failed {
		text := f.Err.Error()
		if !strings.Contains(text, f.Image.String()) {
			text = f.Image.String() + ": " + text
		}
		fmt.Fprintln(a.errOut, printable(text))
		a.printAdvice(f.Err)
	}
	return c.err
}

// printSummaries says what moved. Of a copy of all, images that were there
// already are counted, and not told one by one.
func (a *app) printSummaries(c copied) {
	if a.quiet {
		return
	}
	o := outcome{verb: c.verb, past: c.past, results: c.Images, took: c.took}
	same := 0
	for _, r := range c.Images {
		if n, _, _ := r.Moved(); n == 0 && c.All {
			same++
			continue
		}
		fmt.Fprintln(a.errOut, summary(o, r))
	}
	if n := len(c.Images); c.All || n > 1 {
		fmt.Fprintf(a.errOut, "%s in %.1fs", count(n, "image"), c.took.Seconds())
		if c.All {
			fmt.Fprintf(a.errOut, ", %d with nothing to move", same)
		}
		if c.Members > 0 {
			fmt.Fprintf(a.errOut, ", and %s that no tag needs", count(c.Members, "manifest"))
		}
		if len(c.Removed) > 0 {
			verb := "removed"
			if c.DryRun {
				verb = "would remove"
			}
			fmt.Fprintf(a.errOut, ", %s %s", verb, countRemoved(c.Removed))
		}
		fmt.Fprintln(a.errOut)
	}
}

// countRemoved counts tags, and manifests where there are any.
func countRemoved(all []transfer.Removed) string {
	manifests := 0
	for _, r := range all {
		if r.Image.Tag == "" {
			manifests++
		}
	}
	var parts []string
	if tags := len(all) - manifests; tags > 0 {
		parts = append(parts, count(tags, "tag"))
	}
	if manifests > 0 {
		parts = append(parts, count(manifests, "manifest"))
	}
	return strings.Join(parts, " and ")
}

func (a *app) copiedDocument(c copied) error {
	if c.err != nil && len(c.Images)+len(c.Failed)+len(c.Removed) == 0 {
		return c.err // the one JSON document is then the error
	}
	document := struct {
		Remote  string             `json:"remote,omitempty"` // of an upgrade
		From    string             `json:"from,omitempty"`
		To      string             `json:"to,omitempty"`
		Images  []transfer.Result  `json:"images"`
		Failed  []notCopied        `json:"failed,omitempty"`  // images that the target has not, or tags that it still has
		Removed []transfer.Removed `json:"removed,omitempty"` // tags, and by their digests manifests
		Members int                `json:"members,omitempty"` // manifests that belong to repositories, tagged or not
		Seconds float64            `json:"seconds"`
		Error   *failure           `json:"error,omitempty"` // what stopped it before it had done all
	}{Images: c.Images, Removed: c.Removed, Members: c.Members, Seconds: c.took.Seconds(), Error: failureOf(c.err)}
	if document.From, document.To = c.From, c.To; c.From == c.To {
		document.Remote, document.From, document.To = c.From, "", ""
	}
	if document.Images == nil {
		document.Images = []transfer.Result{}
	}
	for _, f := range c.Failed {
		document.Failed = append(document.Failed, notCopied{f.Image, failureOf(f.Err)})
	}
	return a.printDocument(document, c.err)
}
