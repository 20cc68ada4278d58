package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/agent"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/fleet"
	"github.com/dogestry/dogestry/internal/trust"
)

// agentVia says whether pulls onto other hosts go by way of agents there.
type agentVia struct {
	mode string // auto, off or require; "" is auto where there is a token
	port string

	token       string
	authorities *x509.CertPool // nil are the system's
}

func (v *agentVia) add(c *cobra.Command) {
	c.Flags().StringVar(&v.mode, "via-agent", "", "`WHETHER` the agents of engines at tcp:// and ssh:// are to pull: off, require (or fail), auto (or send from here), which is the default where the configuration has agent-token-file")
	c.Flags().StringVar(&v.port, "agent-port", agent.Port, "`PORT` where agents are looked for")
}

// on reports whether agents are looked for.
func (v *agentVia) on() bool { return v.mode == "auto" || v.mode == "require" }

// wants reports whether the engine at a URL may have an agent that is looked for.
func (v *agentVia) wants(engineURL string) bool { return v.on() && v.address(engineURL) != "" }

// blind reports whether nothing need be read of the remote here.
func (v *agentVia) blind(verifier *trust.Verifier) bool {
	return v.mode == "require" && verifier == nil
}

// configure completes it from the configuration.
func (v *agentVia) configure(set *config.Config) (err error) {
	switch v.mode {
	case "":
		if v.mode = "off"; set.AgentTokenFile.Value != "" {
			v.mode = "auto"
		}
	case "auto", "off", "require":
	default:
		return fault.New(fault.Usage, "--via-agent %s: it is none of auto, off and require", v.mode)
	}
	if !v.on() {
		return nil
	}
	if file := set.AgentTokenFile.Value; file != "" {
		if v.token, err = readToken(file); err != nil {
			return err
		}
	}
	if file := set.AgentCA.Value; file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return fault.Wrap(fault.Refused, err, "%s: cannot read the authorities of agents", set.AgentCA.From)
		}
		if v.authorities = x509.NewCertPool(); !v.authorities.AppendCertsFromPEM(content) {
			return fault.New(fault.Usage, "%s: no certificate is in %s", set.AgentCA.From, file)
		}
	}
	return nil
}

// maxToken bounds a token in bytes.
const maxToken = 4 << 10

// readToken reads a token. As with keys, it refuses a file that others than its owner may read.
func readToken(file string) (string, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", fault.Wrap(fault.Refused, err, "cannot read the token for agents")
	}
	defer in.Close()
	info, err := in.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" { // where rights are something else
		return "", fault.New(fault.Refused, "the token for agents in %s may be read by others than its owner: its rights are %04o", file, info.Mode().Perm()).
			Advise("If nobody has read it: chmod 600 %q. Else give out a new one.", file)
	}
	var content []byte
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(in, maxToken+1))
	}
	token := strings.TrimSpace(string(content))
	switch {
	case err != nil:
		return "", fault.Wrap(fault.Refused, err, "cannot read the token for agents")
	case token == "" || len(content) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fault.New(fault.Usage, "no token is in %s", file).Advise("It is one word, such as `openssl rand -hex 32` prints.")
	}
	return token, nil
}

// address is where the agent of an engine is looked for; "" where none is.
func (v *agentVia) address(engineURL string) string {
	switch scheme, _, ok := strings.Cut(engineURL, "://"); {
	case !ok && strings.Contains(engineURL, ":"):
		engineURL = "tcp://" + engineURL
	case !ok || scheme == "context": // one that docker knows
		var err error
		if engineURL, err = engine.Endpoint(engineURL); err != nil {
			return "" // who connects says why
		}
	}
	u, err := url.Parse(engineURL)
	if err != nil || u.Scheme != "tcp" && u.Scheme != "ssh" || u.Hostname() == "" {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), v.port)
}

// agentTime is how long an agent has to say that it is there.
const agentTime = 10 * time.Second

// hosts puts agents in the place of the engines that have one. The caller calls what it
// returns to close them.
func (v *agentVia) hosts(ctx context.Context, a *app, fed []fleet.Host, p manyPull, status func(string)) ([]fleet.Host, func(), error) {
	if !v.on() {
		return fed, func() {}, nil
	}
	status("looking for agents")
	hosts, clients := make([]fleet.Host, len(fed)), make([]*agent.Client, len(fed))
	for i, engineURL := range p.urls {
		address := v.address(engineURL)
		if address == "" && v.mode == "require" {
			return nil, nil, fault.New(fault.Usage, "no agent is looked for at %s", fed[i].Name()).
				Advise("Agents are looked for on the hosts of engines that are at tcp://host:port or ssh://host, also by docker contexts and DOCKER_HOST.")
		}
		if address != "" {
			clients[i] = agent.NewClient(agent.ClientOptions{
				Address: address, Token: v.token, Authorities: v.authorities, Seal: a.seal,
				Plain: v.authorities == nil && onLoopback(address),
			})
		}
	}
	var g errgroup.Group
	for i, h := range fed {
		g.Go(func() error {
			hosts[i] = v.host(ctx, a, h, clients[i], p)
			return nil
		})
	}
	_ = g.Wait() // none fails
	return hosts, func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close() // idle connections
			}
		}
	}, nil
}

// host returns the agent where there is one, or has to be one, and else what is fed.
func (v *agentVia) host(ctx context.Context, a *app, fed fleet.Host, c *agent.Client, p manyPull) fleet.Host {
	o := agent.HostOptions{Name: fed.Name(), Client: c, Remote: p.remote, Pinned: !v.blind(p.verifier)}
	if !strings.Contains(p.remote, "://") && !agent.IsName(p.remote) {
		o.Remote = absolute(p.remote) // it is the path there
	}
	if v.mode == "require" {
		return agent.NewHost(o)
	}
	if c != nil {
		limited, cancel := context.WithTimeout(ctx, agentTime)
		defer cancel()
		_, err := c.Status(limited)
		if err == nil {
			o.Else = fed
			return agent.NewHost(o)
		}
		if errors.Is(err, agent.ErrAbsent) || ctx.Err() == nil {
			a.note(fed.Name() + ": not by an agent: " + err.Error())
		}
	}
	if known, ok := fed.(fleet.Fed); ok {
		return fedHere{known}
	}
	return fed
}

// fedHere is an engine that could have had an agent.
type fedHere struct{ fleet.Fed }

// Way implements fleet.Wayfarer.
func (fedHere) Way() string { return agent.Here }

// onLoopback reports whether an address is on this machine by what it says.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
