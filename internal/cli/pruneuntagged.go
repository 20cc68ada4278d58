package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/repo"
)

func (a *app) pruneUntagged(ctx context.Context, o names.UntaggedOptions) error {
	rows, err := pruning(ctx, a, o.Name, func(from *repo.Repo) ([]names.Member, error) { return names.PruneUntagged(ctx, from, o) })
	if err != nil {
		return err
	}
	return a.printUntagged(o, rows)
}

// prunedManifest is a manifest in --json output.
type prunedManifest struct {
	Repository string       `json:"repository"`
	Manifest   image.Digest `json:"manifest"`
	Written    time.Time    `json:"written"` // by the remote's clock
	Fate       names.Fate   `json:"fate"`
	KeptBy     []string     `json:"keptBy"`
	Error      *failure     `json:"error,omitempty"`
}

// printUntagged prints the manifests and what becomes of them, and returns the command's error.
func (a *app) printUntagged(o names.UntaggedOptions, rows []names.Member) error {
	fates := map[names.Fate]int{}
	var tried []error // one for each that was to be removed
	for _, m := range rows {
		fates[m.Fate]++
		if m.Fate == names.Removed || m.Fate == names.Failed {
			tried = append(tried, m.Err)
		}
	}
	err := a.someFailed("removed", "manifest", tried)
	if a.json {
		manifests := []prunedManifest{}
		for _, m := range rows {
			manifests = append(manifests, prunedManifest{m.Repository, m.Manifest, m.Written.UTC(), m.Fate, append([]string{}, m.KeptBy...), failureOf(m.Err)})
		}
		return a.printDocument(struct {
			Remote    string           `json:"remote"`
			Manifests []prunedManifest `json:"manifests"`
			DryRun    bool             `json:"dryRun,omitempty"`
			Error     *failure         `json:"error,omitempty"`
		}{o.Name, manifests, o.DryRun, failureOf(err)}, err)
	}
	printManifests(a.out, rows)
	a.tellFailed(tried)
	if !a.quiet {
		fmt.Fprintln(a.errOut, untaggedSummary(o, len(rows), fates))
	}
	return err
}

func printManifests(w io.Writer, rows []names.Member) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "REPOSITORY\tMANIFEST\tWRITTEN\tRESULT\tKEPT BY")
	for _, m := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Repository, m.Manifest, ago(&m.Written), m.Fate, oneLine(strings.Join(m.KeptBy, ", ")))
	}
	t.Flush()
}

func untaggedSummary(o names.UntaggedOptions, all int, fates map[names.Fate]int) string {
	what := count(all, "manifest")
	text := fmt.Sprintf("removed %d of %s from %s; dogestry gc frees what nothing needs", fates[names.Removed], what, o.Name)
	switch {
	case all == 0:
		return "no manifests belong to repositories on their own in " + o.Name
	case o.DryRun && fates[names.Goes] == 0:
		return fmt.Sprintf("all of the %s in %s are kept", what, o.Name)
	case o.DryRun:
		return fmt.Sprintf("would remove %d of %s from %s: nothing was removed, --yes does it", fates[names.Goes], what, o.Name)
	case fates[names.Stays] > 0:
		text += fmt.Sprintf("; %s came to be needed meanwhile, and stay", count(fates[names.Stays], "manifest"))
	}
	return text
}
