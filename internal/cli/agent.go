package cli

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/agent"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/front"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) agentCommand() *cobra.Command {
	var f agentFlags
	c := &cobra.Command{
		Use:   "agent [flags] [IMAGE[:TAG]...]",
		Short: "Pull on this host: when others ask for it, and when a tag moves",
		Long: `Run on a host, and pull images into its engine with this host's credentials:

  - when somebody who has a token asks for it, as dogestry pull --via-agent does.
    Only from the remotes that --remote names, and only images that --allow-image
    allows; without these flags nothing is.
  - when a tag moves that --follow names, with its remote before it. --run runs a
    command then.

It listens on this machine alone, unless there are TLS and tokens. docs/agent.md
has more.`,
		Example: `  dogestry agent --remote prod=s3://bucket/images --allow-image 'myapp:*' --listen :22375 --tls-cert cert.pem --tls-key key.pem --tokens tokens
  dogestry agent --follow s3://bucket/images myapp:live --run 'systemctl restart myapp'
  dogestry agent --follow /srv/images a:live b:live --follow s3://bucket/images c:live --interval 5s`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			set, err := a.configuration()
			if err != nil {
				return err
			}
			return a.agent(c, set, args, f)
		},
	}
	f.add(a, c)
	return c
}

func (a *app) agent(c *cobra.Command, set *config.Config, args []string, f agentFlags) error {
	o, err := a.agentOptions(c, set, args, f)
	if err != nil {
		return err
	}
	fo, err := f.front.options(false)
	if err != nil {
		return err
	}
	a.frontLogs(&fo, f.front)
	if slices.Equal(fo.Listen, []string{"none"}) {
		if len(o.Follows) == 0 {
			return fault.New(fault.Usage, "it listens nowhere and follows nothing").Advise("Name a tag to follow, with its remote: --follow REMOTE IMAGE:TAG.")
		}
		fo.Listen = nil
	}
	pulls := agent.New(o)
	defer pulls.Close()
	fo.API = pulls
	fo.Metrics.Also(pulls.WriteMetrics)
	fo.Ready = func(urls []string) { a.printAgent(urls, o) }
	both, ctx := errgroup.WithContext(c.Context())
	both.Go(func() error {
		if fo.Listen == nil {
			fo.Ready(nil)
			return nil
		}
		return front.Serve(ctx, http.NotFoundHandler(), fo)
	})
	both.Go(func() error {
		pulls.Follow(ctx)
		return nil
	})
	return both.Wait()
}

// printAgent says where it listens, and what it does.
func (a *app) printAgent(urls []string, o agent.Options) {
	if urls == nil {
		urls = []string{}
	}
	follows := []string{}
	for _, f := range o.Follows {
		follows = append(follows, f.Remote+" "+f.Image.String())
	}
	if a.json {
		a.printJSON(map[string]any{"urls": urls, "follows": follows})
		return
	}
	for _, url := range urls {
		fmt.Fprintf(a.out, "agent at %s\n", url)
	}
	for _, f := range follows {
		fmt.Fprintln(a.out, oneLine("following "+f))
	}
	if len(o.Allowed.Remotes) > 0 && len(o.Allowed.Images) == 0 && !a.quiet {
		fmt.Fprintln(a.errOut, "no image may be asked for: allow some with --allow-image")
	}
}

// agentFlags are what its flags say.
type agentFlags struct {
	front   fronting
	remotes []string
	images  []string
	follows []followFlag
	verify  verifyFlags
	cache   cacheFlags
	delta   transfer.Delta

	interval, runTimeout time.Duration
	run                  string
	stateDir             string
	maxPulls, parallel   int
}

// followFlag is a --follow, and how many arguments came before it.
type followFlag struct {
	remote string
	args   int
}

// followValue is the value of --follow. What follows it is what the arguments behind
// it name, up to the next one.
type followValue struct {
	of    *agentFlags
	count func() int // of arguments until now
}

// Set implements pflag.Value.
func (v followValue) Set(remote string) error {
	v.of.follows = append(v.of.follows, followFlag{remote, v.count()})
	return nil
}

// String implements pflag.Value.
func (followValue) String() string { return "" }

// Type implements pflag.Value.
func (followValue) Type() string { return "REMOTE" }
