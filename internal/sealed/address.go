package sealed

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// CheckAddress returns an error, for users, about what is no host:port.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" && !strings.ContainsAny(host, "/@*? ") {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			return nil
		}
	}
	return fmt.Errorf("%.100q is no host:port such as sts.eu-west-1.amazonaws.com:443", address)
}

// key is one name for one address: of hosts case, a dot at the end and the
// spelling of an IP do not matter.
func key(network, address string) string {
	if !strings.HasPrefix(network, "tcp") {
		return network + "\n" + address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "tcp\n" + address
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return "tcp\n" + net.JoinHostPort(host, port)
}

// HostPort is what a request to u dials.
func HostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Proxy returns find, which may be nil, for a transport: what a request asks for has
// to be allowed, and so has the proxy, behind which the dialer does not see that.
func (s *Seal) Proxy(find func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	if s == nil {
		return find
	}
	return func(r *http.Request) (*url.URL, error) {
		if err := s.Check("tcp", HostPort(r.URL)); err != nil || find == nil {
			return nil, err
		}
		proxy, err := find(r)
		if proxy == nil || err != nil {
			return proxy, err
		}
		address := HostPort(proxy)
		if s.Check("tcp", address) != nil {
			return nil, fault.Wrap(fault.Refused, &refusal{s.from}, "%s was not contacted by way of the proxy %s", HostPort(r.URL), address).
				Advise("If the proxy may be used, the configuration has to name it: sealed-allow: [%q]. Else take it out of HTTP_PROXY and HTTPS_PROXY, or put the host into NO_PROXY. See docs/sealed.md.", address)
		}
		return proxy, nil
	}
}
