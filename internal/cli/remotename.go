package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
)

// Names of remotes (docs/config.md) are replaced by what they stand for before a
// command sees them. What is one is found in how the command and its flags are
// described: so a new command has them too.

// remoteWords are what remotes are called in the usage of commands and flags.
var remoteWords = []string{"REMOTE", "SRC", "DST"}

// namedRemote is a remote as the command line has it, and what that stands for.
type namedRemote struct{ name, url string }

// remoteArgs returns which arguments of a command are remotes, by their places.
func remoteArgs(c *cobra.Command) (places []int) {
	for i, word := range argWords(c) {
		if slices.Contains(remoteWords, word) {
			places = append(places, i)
		}
	}
	return places
}

// argWords are what the usage of a command calls its arguments.
func argWords(c *cobra.Command) (words []string) {
	for _, word := range strings.Fields(c.Use)[1:] {
		if word != "[flags]" {
			words = append(words, strings.Trim(word, "[]{}.…"))
		}
	}
	return words
}

// resolveRemotes replaces names of remotes, in args itself, and in flags. It returns
// the configuration that is theirs: of several, what the first one sets goes first.
func (a *app) resolveRemotes(c *cobra.Command, args []string, set *config.Config) (*config.Config, error) {
	typed := slices.Clone(args)
	for _, i := range remoteArgs(c) {
		if i < len(args) {
			args[i] = a.resolve(args[i], set)
		}
	}
	var failed error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		word, _ := pflag.UnquoteUsage(f)
		if !f.Changed || !slices.Contains(remoteWords, word) {
			return
		}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			all := many.GetSlice()
			for i, name := range all {
				all[i] = a.resolve(name, set)
			}
			failed = errors.Join(failed, many.Replace(all))
		} else if url := a.resolve(f.Value.String(), set); url != f.Value.String() {
			failed = errors.Join(failed, f.Value.Set(url))
		}
	})
	of := set
	for _, n := range slices.Backward(a.named) {
		of = of.With(n.name)
	}
	if c.Name() == "copy" && len(typed) > 1 {
		of = writingTo(of, set.With(typed[1]))
	}
	return of, failed
}

// writingTo returns the configuration of a copy: how layers are stored is its target's matter.
func writingTo(of, target *config.Config) *config.Config {
	copied := *of
	copied.Flags = maps.Clone(of.Flags)
	delete(copied.Flags, "compression")
	if value, ok := target.Flags["compression"]; ok {
		copied.Flags["compression"] = value
	}
	return &copied
}

// resolve returns what a name stands for, or the name.
func (a *app) resolve(name string, set *config.Config) string {
	r, ok := set.Remotes[name]
	if !ok {
		return name
	}
	if _, err := os.Lstat(name); err == nil && !a.quiet {
		fmt.Fprintln(a.errOut, printable(fmt.Sprintf("%s is the remote %s (%s); what is called so here is ./%s", name, r.URL.Value, r.URL.From, name)))
	}
	a.named = append(a.named, namedRemote{name, r.URL.Value})
	return r.URL.Value
}

// setFlags gives flags the values of the configuration that the command line does not
// give. They do not count as given: what a command refuses to take together is about
// what somebody has typed.
func (a *app) setFlags(c *cobra.Command, args []string, set *config.Config) error {
	for name, value := range set.Flags {
		f := c.Flags().Lookup(name)
		if f == nil || f.Changed || name == "engine" && (c.Flags().Changed("engines-file") || c.Flags().Changed("pullhosts")) {
			continue
		}
		if name == "recompress" && c.Name() != "push" {
			continue // a copy keeps what it copies, unless somebody types it
		}
		if name == "compression" {
			if takes := takesCompression(c, args, value.Value); takes != nil {
				if c.Name() == "push" && a.isOwn(set, name) {
					return fault.New(fault.Usage, "%s: %s", value.From, takes)
				}
				continue // it is for remotes of another kind
			}
		}
		if err := f.Value.Set(value.Value); err != nil {
			return fault.New(fault.Usage, "%s: %s: %s", value.From, name, err)
		}
	}
	for _, limit := range []string{"limit-upload", "limit-download"} {
		a.limitTyped = a.limitTyped || c.Flags().Changed(limit)
	}
	return a.setEngines(c, set)
}

// isOwn reports whether a flag's value comes from what is set for a remote alone.
func (a *app) isOwn(set *config.Config, flag string) bool {
	return slices.ContainsFunc(a.named, func(n namedRemote) bool {
		return set.Remotes[n.name].Flags[flag] == set.Flags[flag]
	})
}

// takesCompression says why a command does not take a --compression, if it does not.
func takesCompression(c *cobra.Command, args []string, value string) error {
	switch c.Name() {
	case "push":
		return checkCompression(args[0], value)
	case "copy":
		return checkCompression(args[1], value)
	}
	_, err := codec.ByName(value)
	return err
}

// setEngines replaces the names of groups of engines.
func (a *app) setEngines(c *cobra.Command, set *config.Config) error {
	f := c.Flags().Lookup("engine")
	if f == nil {
		return nil
	}
	if many, ok := f.Value.(pflag.SliceValue); ok {
		var all []string
		for _, name := range many.GetSlice() {
			if group, ok := set.Engines[name]; ok {
				all = append(all, group.Value...)
			} else {
				all = append(all, name)
			}
		}
		if slices.Equal(all, many.GetSlice()) {
			return nil
		}
		return many.Replace(all)
	}
	group, ok := set.Engines[f.Value.String()]
	if !ok {
		return nil
	}
	if len(group.Value) > 1 {
		return fault.New(fault.Usage, "%s is %d engines (%s), and `%s` works with one", f.Value, len(group.Value), group.From, c.CommandPath()).
			Advise("Name one: --engine %s.", group.Value[0])
	}
	return f.Value.Set(group.Value[0])
}

// inNames tells of err by the names of remotes that the command line has: with what
// each stands for where it is said first, and by the name alone after that.
func (a *app) inNames(err error) error {
	if len(a.named) == 0 {
		return err
	}
	said := map[string]bool{}
	tell := func(text string, advice bool) string {
		return replaceNames(text, a.named, func(n namedRemote) string {
			if advice || said[n.name] {
				return n.name
			}
			said[n.name] = true
			return n.name + " (" + n.url + ")"
		})
	}
	message := tell(err.Error(), false)
	f := fault.New(fault.KindOf(err), "%s", message)
	f.Advice = tell(fault.AdviceOf(err), true)
	var told printed
	if errors.As(err, &told) {
		return printed{f}
	}
	return f
}

// replaceNames replaces the URLs of remotes where they stand alone, and are no part of
// another one. Where several begin, the longest is meant; what replaces one is not looked at again.
func replaceNames(text string, named []namedRemote, by func(namedRemote) string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		var here namedRemote
		for _, n := range named {
			if len(n.url) > len(here.url) && standsAlone(text, i, n.url) {
				here = n
			}
		}
		if here.url == "" {
			b.WriteByte(text[i])
			i++
			continue
		}
		b.WriteString(by(here))
		i += len(here.url)
	}
	return b.String()
}

// standsAlone reports whether url is in text from i on, and ends and begins there.
func standsAlone(text string, i int, url string) bool {
	if !strings.HasPrefix(text[i:], url) {
		return false
	}
	const within = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	before, after := text[:i], text[i+len(url):]
	return (before == "" || !strings.Contains(within+"./:~", before[len(before)-1:])) && (after == "" || !strings.Contains(within+"/?&=%", after[:1]))
}
