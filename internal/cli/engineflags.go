package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/fleet"
)

// enginesFlags say onto which engines a pull goes, and how onto many.
type enginesFlags struct {
	urls      []string
	file      string
	pullHosts []string // what the original dogestry called it

	parallel            int
	failFast, keepGoing bool
	skipChecks          bool

	via agentVia
}

func (e *enginesFlags) add(c *cobra.Command) {
	e.via.add(c)
	f := c.Flags()
	f.StringSliceVar(&e.urls, "engine", nil, "the engine's `URL`: unix://, tcp://, ssh://, context://NAME, or a docker context's bare name; of several, one a flag or with commas between, all get the images (default: the one that docker uses)")
	f.StringVar(&e.file, "engines-file", "", "engines also from this `FILE`, one a line, # begins a comment; - is standard input")
	f.StringSliceVar(&e.pullHosts, "pullhosts", nil, "engines, as the original dogestry took them")
	_ = f.MarkHidden("pullhosts") // it is there
	f.IntVar(&e.parallel, "max-parallel", fleet.DefaultParallel, "of many engines, so many at once")
	f.BoolVar(&e.failFast, "fail-fast", false, "of many engines, stop all when one fails; begin only if all answer")
	f.BoolVar(&e.keepGoing, "keep-going", false, "of many engines, let the others go on when one fails (the default)")
	f.BoolVar(&e.skipChecks, "skip-checks", false, "of many engines, do not ask first whether they answer and have room")
}

// many returns the engines where they are to be treated as many, each once. Of one that
// --engine names, and of docker's, it returns none; a.engine is that then.
func (e *enginesFlags) many(a *app, set *config.Config) ([]string, error) {
	if err := e.via.configure(set); err != nil {
		return nil, err
	}
	if e.parallel < 1 {
		return nil, fault.New(fault.Usage, "--max-parallel %d: at least one engine is on its way at a time", e.parallel)
	}
	if e.failFast && e.keepGoing {
		return nil, fault.New(fault.Usage, "--fail-fast and --keep-going exclude one another")
	}
	var all []string
	for _, url := range slices.Concat(e.urls, e.pullHosts) {
		if url = strings.TrimSpace(url); url != "" {
			all = append(all, url)
		}
	}
	listed := e.file != "" || len(e.pullHosts) > 0
	if e.file != "" {
		urls, err := a.readEngines(e.file)
		if err != nil {
			return nil, err
		}
		all = append(all, urls...)
	}
	if len(all) == 1 && !listed && !e.via.wants(all[0]) {
		a.engine = all[0]
		return nil, nil
	}
	if len(all) == 0 && !listed && e.via.wants("") {
		return []string{""}, nil
	}
	if len(all) == 0 && listed {
		return nil, fault.New(fault.Usage, "no engine is named in %s", cmp.Or(e.file, "--pullhosts")).Advise("Write one a line: tcp://host:2376, ssh://user@host, or the name of a docker context.")
	}
	var once []string
	for _, url := range all {
		if !slices.Contains(once, url) {
			once = append(once, url)
		}
	}
	return once, nil
}

// Bounds of a file of engines.
const (
	maxEnginesFile = 1 << 20 // bytes
	maxEngines     = 1000
)

// readEngines reads a file of engines.
func (a *app) readEngines(name string) ([]string, error) {
	var urls []string
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fault.Wrap(fault.NotFound, err, "no file of engines").Advise("--engines-file names a file with an engine a line.")
		case errors.Is(err, fs.ErrPermission):
			return nil, fault.Wrap(fault.Refused, err, "cannot read the engines")
		case err != nil:
			return nil, fault.Wrap(fault.Other, err, "cannot read the engines")
		}
		defer f.Close()
		in = f
	}
	lines, size := bufio.NewScanner(in), 0
	for lines.Scan() {
		size += len(lines.Bytes()) + 1
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		switch {
		case size > maxEnginesFile || len(urls) > maxEngines:
			return nil, fault.New(fault.Usage, "%s has more than %d engines, or is larger than %d bytes", name, maxEngines, maxEnginesFile)
		case strings.ContainsAny(line, " \t,"):
			return nil, fault.New(fault.Usage, "%s: %q is not one engine", name, engine.Redact(line)).Advise("Write one a line.")
		case line != "":
			urls = append(urls, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot read the engines in %s", name)
	}
	return urls, nil
}

// hosts makes hosts of engines, and what closes them.
// A nil *engine.Client would be an Engine that is not nil.
func (a *app) hosts(urls []string) (hosts []fleet.Host, closeAll func()) {
	for _, url := range urls {
		name := engine.Redact(url)
		if url == "" { // the one that docker uses
			name, _ = engine.Endpoint("") // who connects says why there is none
		}
		hosts = append(hosts, fleet.NewEngine(name, func(ctx context.Context) (fleet.Engine, error) {
			c, err := engine.Connect(ctx, engine.Options{URL: url, CacheDir: cacheDir(), Store: a.engineStore, Seal: a.seal, Log: a.log()})
			if err != nil {
				return nil, err
			}
			return c, nil
		}))
	}
	return hosts, func() {
		for _, h := range hosts {
			if err := h.Close(); err != nil {
				a.log().Debug("cannot close the connection to an engine", "error", err)
			}
		}
	}
}
