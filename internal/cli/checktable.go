package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/storage/probe"
)

// printChecks prints the table of check.
func printChecks(w io.Writer, results []probe.Result) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "CHECK\tRESULT\tNEEDED FOR\tDETAIL")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Name, r.Status, r.Needed, oneLine(r.Detail))
	}
	t.Flush()
}

// checked is a check in --json output.
type checked struct {
	Name     string       `json:"name"`
	Status   probe.Status `json:"status"`
	Needed   string       `json:"neededFor"`
	Required bool         `json:"required"`
	Detail   string       `json:"detail,omitempty"`
	Seconds  float64      `json:"seconds"`
}

func checkDocument(name string, results []probe.Result, sweep bool, swept int, took time.Duration, err error) any {
	document := struct {
		Remote  string    `json:"remote"`
		Checks  []checked `json:"checks"`
		Swept   *int      `json:"swept,omitempty"`
		Seconds float64   `json:"seconds"`
		Error   *failure  `json:"error,omitempty"`
	}{Remote: name, Checks: []checked{}, Seconds: took.Seconds(), Error: failureOf(err)}
	for _, r := range results {
		document.Checks = append(document.Checks, checked{r.Name, r.Status, r.Needed, r.Required, r.Detail, r.Took.Seconds()})
	}
	if sweep && err == nil {
		document.Swept = &swept
	}
	return document
}
