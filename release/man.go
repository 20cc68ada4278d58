package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// page is the manual page of a command: its name in section 1, and its roff source.
type page struct{ name, source string }

// pages are those of a command and of all below it.
func pages(c *cobra.Command, version string, at time.Time) []page {
	all := []page{{pageName(c), manual(c, version, at)}}
	for _, sub := range documented(c) {
		all = append(all, pages(sub, version, at)...)
	}
	return all
}

// documented are the commands below c that have pages.
func documented(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool {
		return !sub.IsAvailableCommand() || sub.Name() == "help" || c.Name() == "completion" // a page tells of all shells
	})
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manual is the source of a page, for groff_man(7) and mandoc. Cobra's own generator takes texts
// for Markdown, and makes emphasis of what patterns and names have in them.
func manual(c *cobra.Command, version string, at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 %s %q %q\n", strings.ToUpper(quoted(pageName(c))), at.Format("2006-01-02"), "dogestry "+version, "dogestry")
	b.WriteString(".nh\n.ad l\n") // names and addresses must not be broken by hyphens
	b.WriteString(".SH NAME\n" + quoted(pageName(c)) + ` \- ` + quoted(c.Short) + "\n")
	b.WriteString(".SH SYNOPSIS\n.B " + quoted(c.CommandPath()))
	if rest := strings.TrimPrefix(c.UseLine(), c.CommandPath()); rest != "" {
		b.WriteString("\n" + quoted(strings.TrimSpace(rest)))
	}
	b.WriteString("\n.SH DESCRIPTION\n")
	writeText(&b, firstOf(c.Long, c.Short+"."))
	if subs := documented(c); len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", quoted(pageName(sub)), quoted(sub.Short))
		}
	}
	writeFlags(&b, "OPTIONS", c.LocalFlags())
	writeFlags(&b, "OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		writeLines(&b, c.Example)
	}
	if !c.HasParent() {
		b.WriteString(exitStatus + files)
	}
	b.WriteString(".SH SEE ALSO\n" + seeAlso(c) + "\n")
	return b.String()
}

const exitStatus = `.SH EXIT STATUS
0 done, 1 other failures, 2 usage, 3 not found, 4 refused, 5 damaged, 6 some of many failed, 7 something else is running, 130 and 143 interrupted.
`

const files = `.SH FILES
.TP
.I /etc/dogestry/config.yaml
what the administrator has set
.TP
.I ~/.config/dogestry/config.yaml
what the user has set
`

func seeAlso(c *cobra.Command) string {
	var names []string
	if c.HasParent() {
		names = append(names, pageName(c.Parent()))
	}
	for _, sub := range documented(c) {
		names = append(names, pageName(sub))
	}
	for i, name := range names {
		names[i] = `\fB` + quoted(name) + `\fR(1)`
	}
	return strings.Join(append(names, `\fBdocker\fR(1)`), ",\n")
}

// writeFlags writes a section of flags, or nothing where there are none.
func writeFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	b.WriteString(".SH " + title + "\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			b.WriteString(`\fB\-` + quoted(f.Shorthand) + `\fR, `)
		}
		b.WriteString(`\fB\-\-` + quoted(f.Name) + `\fR`)
		if value != "" {
			b.WriteString(` \fI` + quoted(value) + `\fR`)
		}
		b.WriteString("\n" + line(usage))
		if !slices.Contains([]string{"", "false", "0", "0s", "[]", "<nil>"}, f.DefValue) {
			b.WriteString(" (default " + quoted(f.DefValue) + ")")
		}
		b.WriteString("\n")
	})
}

// writeText writes paragraphs. One with an indented line stays as it is.
func writeText(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(paragraph, " ") || strings.Contains(paragraph, "\n ") {
			writeLines(b, paragraph)
			continue
		}
		for l := range strings.Lines(paragraph) {
			b.WriteString(line(strings.TrimSpace(l)) + "\n")
		}
	}
}

// writeLines writes lines that are not filled.
func writeLines(b *strings.Builder, text string) {
	b.WriteString(".nf\n")
	for l := range strings.Lines(text) {
		b.WriteString(line(strings.TrimRight(l, "\n")) + "\n")
	}
	b.WriteString(".fi\n")
}

// roff escapes what would be taken for requests, quotes or dashes of typesetters.
var roff = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

func quoted(s string) string { return roff.Replace(s) }

// line is quoted text that begins a line, where a dot would begin a request.
func line(s string) string {
	s = quoted(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
