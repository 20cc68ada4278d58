package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
)

// pruned is a tag in --json output.
type pruned struct {
	Reference image.Reference `json:"reference"`
	Written   time.Time       `json:"written"` // by the remote's clock
	Fate      names.Fate      `json:"fate"`
	KeptBy    []string        `json:"keptBy"`
	ID        image.ID        `json:"id,omitzero"`
	Error     *failure        `json:"error,omitempty"`
}

// printPruned prints all tags and what becomes of them, and returns the command's error.
func (a *app) printPruned(o names.PruneOptions, rows []names.Pruned) error {
	fates := map[names.Fate]int{}
	var tried []error // one for each tag that was to be removed
	for _, p := range rows {
		fates[p.Fate]++
		if p.Fate == names.Removed || p.Fate == names.Failed {
			tried = append(tried, p.Err)
		}
	}
	err := a.someFailed("removed", "tag", tried)
	if a.json {
		tags := []pruned{}
		for _, p := range rows {
			tags = append(tags, pruned{p.Reference, p.Written.UTC(), p.Fate, append([]string{}, p.KeptBy...), p.ID, failureOf(p.Err)})
		}
		return a.printDocument(struct {
			Remote string   `json:"remote"`
			Tags   []pruned `json:"tags"`
			DryRun bool     `json:"dryRun,omitempty"`
			Error  *failure `json:"error,omitempty"`
		}{o.Name, tags, o.DryRun, failureOf(err)}, err)
	}
	printFates(a.out, rows)
	a.tellFailed(tried)
	if !a.quiet {
		fmt.Fprintln(a.errOut, pruneSummary(o, len(rows), fates))
	}
	return err
}

func printFates(w io.Writer, rows []names.Pruned) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "REPOSITORY\tTAG\tWRITTEN\tRESULT\tKEPT BY")
	for _, p := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Reference.Repository, p.Reference.Tag, ago(&p.Written), p.Fate, oneLine(strings.Join(p.KeptBy, ", ")))
	}
	t.Flush()
}

func pruneSummary(o names.PruneOptions, all int, fates map[names.Fate]int) string {
	text := fmt.Sprintf("removed %d of %s from %s; layers stay", fates[names.Removed], count(all, "tag"), o.Name)
	switch {
	case all == 0:
		return "there are no tags in " + o.Name
	case o.DryRun && fates[names.Goes] == 0:
		return fmt.Sprintf("all of the %s in %s are kept", count(all, "tag"), o.Name)
	case o.DryRun:
		return fmt.Sprintf("would remove %d of %s from %s: nothing was removed, --yes does it", fates[names.Goes], count(all, "tag"), o.Name)
	case fates[names.Stays] > 0:
		text += fmt.Sprintf("; %s changed meanwhile, and stay as they are", count(fates[names.Stays], "tag"))
	}
	return text
}
