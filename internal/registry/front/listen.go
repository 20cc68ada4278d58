package front

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// listen binds all addresses, or none. What others than this machine could reach
// without TLS and login is refused unless the options allow it: by the address that
// was bound, whatever name it was given by.
func listen(ctx context.Context, o Options) ([]net.Listener, error) {
	var all []net.Listener
	for _, address := range o.Listen {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			closeAll(all)
			return nil, cannotListen(address, err)
		}
		all = append(all, l)
		if err := mayListen(address, l.Addr(), o); err != nil {
			closeAll(all)
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Usage, "no address to listen on")
	}
	return all, nil
}

func cannotListen(address string, err error) error {
	var wrong *net.AddrError
	if errors.As(err, &wrong) {
		return fault.Wrap(fault.Usage, err, "cannot listen at %s", address).Advise("Name an address and a port: 127.0.0.1:5000, or :5000 for all addresses.")
	}
	return fault.Wrap(fault.Other, err, "cannot listen at %s", address).
		Advise("Another program may be there already: choose another port with --listen.")
}

// mayListen refuses what is open to others and not said to be.
func mayListen(address string, bound net.Addr, o Options) error {
	if o.InsecureListen || onLoopback(bound) {
		return nil
	}
	var missing, do []string
	if o.CertFile == "" {
		missing, do = append(missing, "TLS"), append(do, "--tls-cert and --tls-key")
	}
	if o.Htpasswd == "" && o.Tokens == "" {
		ways := "--htpasswd or --tokens"
		if o.API != nil { // which programs ask
			ways = "--tokens"
		}
		missing, do = append(missing, "login"), append(do, ways)
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.New(fault.Usage, "%s can be reached from other machines, without %s", address, strings.Join(missing, " and without ")).
		Advise("Give %s, listen at 127.0.0.1 or [::1], or say --insecure-listen where the network is trusted.", strings.Join(do, ", and "))
}

// onLoopback reports whether only this machine can reach an address. An unspecified
// one stands for all.
func onLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// urls returns where listeners can be reached.
func urls(listeners []net.Listener, encrypted bool) []string {
	scheme := "http://"
	if encrypted {
		scheme = "https://"
	}
	var all []string
	for _, l := range listeners {
		all = append(all, scheme+l.Addr().String())
	}
	return all
}
