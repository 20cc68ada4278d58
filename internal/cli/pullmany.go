package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/cli/progress"
	"github.com/dogestry/dogestry/internal/fleet"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/trust"
)

// manyPull is a pull onto many engines.
type manyPull struct {
	remote   string
	images   []transfer.PullImage
	urls     []string
	engines  enginesFlags
	verifier *trust.Verifier // nil verifies nothing
	cache    cacheFlags
	o        transfer.Options
}

func (a *app) pullMany(c *cobra.Command, p manyPull) error {
	ctx := c.Context()
	if err := checkRemote(p.remote); err != nil {
		return err
	}
	hosts, closeAll := a.hosts(p.urls)
	defer closeAll()
	display, hide := a.showEngines(hosts)
	defer hide()
	via := &p.engines.via
	hosts, closeAgents, err := via.hosts(ctx, a, hosts, p, display.Status)
	if err != nil {
		return err
	}
	defer closeAgents()
	cached := false
	var from remote.Source // nil where every host has its own
	if !via.blind(p.verifier) {
		display.Status("opening " + p.remote)
		cache := p.cache.unless(p.o.DryRun)
		cache.open = &cached
		var closeFrom func() error
		if from, closeFrom, err = a.openToRead(ctx, p.remote, cache, display.Status); err != nil {
			return err
		}
		defer closeFrom() //nolint:errcheck // what it wrote is a cache
		if err := look(p.verifier, from, p.remote, p.o.DryRun); err != nil {
			return err
		}
	}
	display.Status("asking " + count(len(hosts), "engine") + " how they are")
	start := time.Now()
	outcomes, err := fleet.Pull(ctx, hosts, fleet.Job{Images: p.images, Source: from, Options: p.o}, fleet.Options{
		Parallel: p.engines.parallel, FailFast: p.engines.failFast, SkipChecks: p.engines.skipChecks,
		Cached: cached, Log: a.log(),
		Progress: func(host string) fleet.Progress {
			display.Status("reading " + p.remote)
			return display.Engine(host)
		},
	})
	hide()
	return a.printEngines(fleetOutcome{remote: p.remote, images: len(p.images), engines: outcomes, took: time.Since(start), err: a.orSignal(err)})
}

// showEngines is show with a bar for each engine.
func (a *app) showEngines(hosts []fleet.Host) (d *progress.Display, hide func()) {
	names := 0
	for _, h := range hosts {
		names = max(names, len([]rune(progress.NameOf(h.Name()))))
	}
	return a.showWith(progress.Options{Verb: "moved", Names: names})
}
