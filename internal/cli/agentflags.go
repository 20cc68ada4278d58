package cli

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/agent"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/front"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
)

// add adds them to the command.
func (f *agentFlags) add(a *app, c *cobra.Command) {
	s := c.Flags()
	s.StringArrayVar(&f.remotes, "remote", nil, "let callers pull from this `[NAME=]REMOTE`, by its name or its URL. May be given again")
	s.StringSliceVar(&f.images, "allow-image", nil, "let callers pull images like this `PATTERN`: myapp:live-*, team/*, ** for all. May be given again")
	s.Var(followValue{f, s.NArg}, "follow", "pull the images that are named behind this `REMOTE` whenever their tags move. May be given again")
	s.DurationVar(&f.interval, "interval", agent.DefaultInterval, "how often followed tags are looked at")
	s.StringVar(&f.run, "run", "", "run this `COMMAND` when the image of a followed tag is here; no shell reads it")
	s.DurationVar(&f.runTimeout, "run-timeout", agent.DefaultRunTime, "how long that may take")
	s.StringVar(&f.stateDir, "state-dir", "", "remember in this `DIR` what was done for followed tags (default: below the user's state)")
	s.IntVar(&f.maxPulls, "max-pulls", agent.DefaultPulls, "how many pulls run at once")
	s.IntVar(&f.parallel, "parallel", transfer.DefaultParallel, "layers of a pull on their way at once")
	s.Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network, for each pull")
	s.StringVar(&a.engine, "engine", "", "the engine's `URL`: unix://, tcp://, ssh:// (default: the one that docker uses)")
	f.delta = transfer.DeltaAuto
	s.Var((*deltaValue)(&f.delta), "delta", deltaUsage)
	f.verify.add(c)
	f.cache.add(c)

	f.front.MaxUploads, f.front.maxBlob = front.DefaultUploads, front.DefaultMaxBlob // of which there are none
	s.StringSliceVar(&f.front.Listen, "listen", []string{"127.0.0.1:" + agent.Port}, "`ADDRESS:PORT` to listen at; port 0 is any that is free, none is nowhere. May be given again")
	s.BoolVar(&f.front.InsecureListen, "insecure-listen", false, "listen beyond this machine without TLS or without tokens: for networks that are trusted")
	s.StringVar(&f.front.CertFile, "tls-cert", "", "`FILE` of the certificate and those that it was signed with, PEM; read again when it changes")
	s.StringVar(&f.front.KeyFile, "tls-key", "", "`FILE` of its key, PEM")
	s.StringVar(&f.front.Tokens, "tokens", "", "`FILE` of tokens, lines \"NAME read|write SHA256\": write may pull, read may look; read again when it changes")
	s.IntVar(&f.front.MaxRequests, "max-requests", front.DefaultRequests, "how many requests are answered at once")
	s.DurationVar(&f.front.Stall, "stall-timeout", front.DefaultStall, "when a connection is cut off on which nothing moves")
	s.DurationVar(&f.front.Grace, "shutdown-grace", front.DefaultGrace, "how long pulls that were asked for, and a command, may go on once the program is to end")
	s.StringVar(&f.front.accessLog, "access-log", "text", "how each request is told on stderr: text, json or off; --quiet is off")
}

// puller is how the agent pulls from one remote.
type puller struct {
	verify verifyFlags
	cache  cacheFlags
	delta  transfer.Delta
}

// agentOptions makes of the flags what the agent is to do.
func (a *app) agentOptions(c *cobra.Command, set *config.Config, args []string, f agentFlags) (o agent.Options, err error) {
	switch {
	case f.interval <= 0 || f.runTimeout <= 0:
		return o, fault.New(fault.Usage, "--interval and --run-timeout are longer than 0")
	case f.maxPulls < 1 || f.parallel < 1:
		return o, fault.New(fault.Usage, "--max-pulls and --parallel are 1 or more")
	case f.run != "" && len(f.follows) == 0:
		return o, fault.New(fault.Usage, "--run is for --follow, and that is missing")
	}
	o = agent.Options{
		Version: Version, Log: a.agentLog(), Parallel: f.parallel,
		MaxPulls: f.maxPulls, MaxWaiting: agent.DefaultWaiting, Linger: agent.DefaultLinger,
		Allowed: agent.Allowed{Canonical: canonical},
		Times:   agent.Times{Interval: f.interval, Most: agent.DefaultMost},
		Command: agent.Command{Limit: f.runTimeout, Grace: f.front.Grace, Seal: a.seal},
	}
	if c.Flags().Changed("run") {
		if o.Command.Args, err = agent.SplitCommand(f.run); err == nil {
			err = o.Command.Check()
		}
		if err != nil {
			return o, err
		}
	}
	if o.State.Dir = f.stateDir; o.State.Dir == "" {
		dir, err := stateDir()
		if err != nil {
			return o, fault.Wrap(fault.Refused, err, "there is no place to remember what was done").Advise("Name a directory: --state-dir.")
		}
		o.State.Dir = filepath.Join(dir, "agent")
	}
	o.State.Engine = a.engine
	for _, pattern := range f.images {
		p, err := agent.ParsePattern(pattern)
		if err != nil {
			return o, err
		}
		o.Allowed.Images = append(o.Allowed.Images, p)
	}
	pullers := map[string]puller{}
	know := func(name string) (url string, err error) {
		url = a.resolve(name, set)
		if err := checkRemote(url); err != nil {
			return "", err
		}
		p := puller{f.verify, f.cache, f.delta}
		p.verify.configure(c, set.With(name))
		p.cache.configure(c, set.With(name))
		pullers[url] = p
		_, err = p.verify.open(url, nil) // what makes no sense is told now
		return url, err
	}
	for _, text := range f.remotes {
		r := agent.ParseRemote(text)
		if r.Name == "" && agent.IsName(r.URL) && set.Remotes[r.URL].URL.Value != "" {
			r.Name = r.URL
		}
		if r.URL, err = know(r.URL); err != nil {
			return o, err
		}
		o.Allowed.Remotes = append(o.Allowed.Remotes, r)
	}
	if o.Follows, err = f.following(args, know); err != nil {
		return o, err
	}
	o.Pull = func(ctx context.Context, url string, images []transfer.PullImage, o transfer.Options) ([]transfer.Result, error) {
		return a.pullHere(ctx, url, images, pullers[url], o)
	}
	o.Open = func(ctx context.Context, url string) (remote.Source, func() error, error) {
		return a.openToRead(ctx, url, cacheFlags{}, func(string) {})
	}
	return o, nil
}

// following returns what is to be followed: of each --follow the arguments behind it.
func (f *agentFlags) following(args []string, know func(name string) (url string, err error)) (all []agent.Follow, err error) {
	if len(args) > 0 && (len(f.follows) == 0 || f.follows[0].args > 0) {
		return nil, fault.New(fault.Usage, "%s has no remote", args[0]).Advise("Name it before the image: --follow REMOTE %s.", args[0])
	}
	for i, follow := range f.follows {
		end := len(args)
		if i+1 < len(f.follows) {
			end = f.follows[i+1].args
		}
		if follow.args == end {
			return nil, fault.New(fault.Usage, "--follow %s is not followed by an image", follow.remote).Advise("Name it behind the remote: --follow %s myapp:live.", follow.remote)
		}
		url, err := know(follow.remote)
		if err != nil {
			return nil, err
		}
		for _, arg := range args[follow.args:end] {
			ref, err := parseReference(arg)
			if err != nil {
				return nil, err
			}
			if !ref.Digest.IsZero() {
				return nil, fault.New(fault.Usage, "%s is named by its digest, and only tags move", arg)
			}
			all = append(all, agent.Follow{Remote: url, Key: canonical(url), Image: ref})
		}
	}
	return all, nil
}

// pullHere pulls for the agent.
func (a *app) pullHere(ctx context.Context, url string, images []transfer.PullImage, p puller, o transfer.Options) ([]transfer.Result, error) {
	verifier, err := p.verify.open(url, images) // the keys may be others by now
	if err != nil {
		return nil, err
	}
	from, closeFrom, err := a.openToRead(ctx, url, p.cache.unless(o.DryRun), o.Progress.Status)
	if err != nil {
		return nil, err
	}
	defer closeFrom() //nolint:errcheck // what it wrote is a cache
	to, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if err := look(verifier, from, url, o.DryRun); err != nil {
		return nil, err
	}
	if verifier != nil {
		first, then := o.Verify, p.verify.verify(verifier)
		o.Verify = func(ctx context.Context, ref image.Reference, id image.ID) (string, error) {
			if _, err := first(ctx, ref, id); err != nil {
				return "", err
			}
			return then(ctx, ref, id)
		}
	}
	o.Log, o.Delta, o.CacheDir = a.log(), p.delta, cacheDir()
	return transfer.Pull(ctx, from, to, images, o)
}

// agentLog is where an agent tells what it does.
func (a *app) agentLog() *slog.Logger {
	switch {
	case a.debug:
		return a.log()
	case a.quiet:
		return a.serveLog()
	}
	return slog.New(slog.NewTextHandler(logWriter{a}, nil))
}
