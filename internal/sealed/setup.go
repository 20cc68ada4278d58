package sealed

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// DockerHub is the registry that engines mean where a name has none.
const DockerHub = "docker.io"

// Setup is what an engine has to know to be sealed: a registry to ask in the place
// of others, and a proxy that refuses all else.
type Setup struct {
	Registry url.URL  // http or https
	Proxy    url.URL  // http
	Mirrors  []string // the registries that Registry stands for
}

// File is a piece of configuration.
type File struct {
	Path    string `json:"path"`
	For     string `json:"for"` // which engines read it
	Content string `json:"content"`
}

// Files returns the configuration of the engines that there are. What is in a file
// already stays beside it.
func (s Setup) Files() []File {
	files := []File{
		{"/etc/docker/daemon.json", "Docker 23 and later", s.daemon(true)},
		{"/etc/docker/daemon.json", "Docker before 23", s.daemon(false)},
		{"/etc/systemd/system/docker.service.d/dogestry-sealed.conf", "Docker before 23, and Podman as a service (podman.service.d)", s.unit()},
	}
	for _, m := range s.Mirrors {
		files = append(files, File{"/etc/containerd/certs.d/" + m + "/hosts.toml", "containerd by itself (nerdctl, Kubernetes), whose service needs the lines for docker.service, too", s.hosts()})
	}
	return append(files, File{"/etc/containers/registries.conf.d/dogestry-sealed.conf", "Podman", s.registries()})
}

func (s Setup) registry() string { return s.Registry.Scheme + "://" + s.Registry.Host }

// direct are the hosts that are reached without the proxy: this machine, and the registry.
func (s Setup) direct() []string {
	hosts := []string{"localhost", "127.0.0.0/8", "::1"}
	if !loopback(s.Registry.Hostname()) {
		hosts = append(hosts, s.Registry.Hostname())
	}
	return hosts
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// daemon is dockerd's configuration (docs.docker.com, dockerd, "Daemon configuration file").
func (s Setup) daemon(proxies bool) string {
	type ways struct {
		HTTP  string `json:"http-proxy"`
		HTTPS string `json:"https-proxy"`
		No    string `json:"no-proxy"`
	}
	var d struct {
		Mirrors  []string `json:"registry-mirrors,omitempty"`
		Insecure []string `json:"insecure-registries,omitempty"`
		Proxies  *ways    `json:"proxies,omitempty"`
	}
	if slices.Contains(s.Mirrors, DockerHub) { // it knows no mirrors of others
		d.Mirrors = []string{s.registry()}
	}
	if s.Registry.Scheme == "http" && !loopback(s.Registry.Hostname()) {
		d.Insecure = []string{s.Registry.Host}
	}
	if proxies {
		d.Proxies = &ways{s.Proxy.String(), s.Proxy.String(), strings.Join(s.direct(), ",")}
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // strings are always JSON
	}
	return string(b) + "\n"
}

// unit is an addition to a service of systemd (systemd.exec(5)).
func (s Setup) unit() string {
	return fmt.Sprintf("[Service]\nEnvironment=\"HTTP_PROXY=%[1]s\" \"HTTPS_PROXY=%[1]s\" \"NO_PROXY=%[2]s\"\n", s.Proxy.String(), strings.Join(s.direct(), ","))
}

// hosts is containerd's configuration of a registry (containerd, docs/hosts.md). The
// server is the registry too, so that nothing is asked behind it.
func (s Setup) hosts() string {
	return fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", s.registry(), s.registry())
}

// registries is Podman's configuration (containers-registries.conf(5)).
func (s Setup) registries() string {
	var b strings.Builder
	for _, m := range s.Mirrors {
		fmt.Fprintf(&b, "[[registry]]\nprefix = %q\nlocation = %q\ninsecure = %v\n\n", m, s.Registry.Host, s.Registry.Scheme == "http")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// State is what an engine says of itself.
type State struct {
	Mirrors                        []string
	HTTPProxy, HTTPSProxy, NoProxy string
}

// Missing returns what of the configuration is not in force, in words; nothing where
// all is.
func (s Setup) Missing(now State) []string {
	missing := []string{}
	tell := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	same := func(a string, b url.URL) bool {
		u, err := url.Parse(strings.TrimSuffix(a, "/"))
		return err == nil && u.Scheme == b.Scheme && u.Host == b.Host && u.Path == ""
	}
	if slices.Contains(s.Mirrors, DockerHub) && !slices.ContainsFunc(now.Mirrors, func(m string) bool { return same(m, s.Registry) }) {
		tell("images of %s do not come from %s (registry-mirrors)", DockerHub, s.registry())
	}
	for _, way := range [][2]string{{"HTTP", now.HTTPProxy}, {"HTTPS", now.HTTPSProxy}} {
		if !same(way[1], s.Proxy) {
			tell("%s does not go by way of %s (%s-proxy)", way[0], s.Proxy.String(), strings.ToLower(way[0]))
		}
	}
	for host := range strings.SplitSeq(now.NoProxy, ",") {
		host = strings.TrimSpace(host)
		if host == "" || host == s.Registry.Hostname() || host == s.Registry.Host || local(host) {
			continue
		}
		tell("%q is reached without the proxy (no-proxy)", host)
	}
	return missing
}

// local reports whether a value of no-proxy is about this machine alone.
func local(host string) bool {
	if net, err := netip.ParsePrefix(host); err == nil {
		return net.Addr().IsLoopback() && (net.Addr().Is6() && net.Bits() == 128 || net.Addr().Is4() && net.Bits() >= 8)
	}
	return loopback(strings.Trim(host, "[]"))
}
