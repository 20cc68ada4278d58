package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// The link: a network namespace behind a pair of virtual interfaces, which let
// a rate through in each direction, linkRate if nothing else is said. The addresses are for benchmarks (RFC 2544).
const (
	linkNear = "198.18.213.1"
	linkFar  = "198.18.213.2"
	linkRate = "200mbit"
)

// link is a namespace from which servers of this machine are reached over a slow
// wire: a relay listens there, and hands what comes to a unix socket here.
type link struct {
	namespace string
	dir       string
	relays    []*exec.Cmd
	listeners []net.Listener
	running   sync.WaitGroup
}

func newLink(dir, rate string) (l *link, err error) {
	l = &link{namespace: fmt.Sprintf("dgy-bench-%d", os.Getpid()), dir: dir}
	near := fmt.Sprintf("dgy%d", os.Getpid())
	for _, args := range []string{
		"ip netns add " + l.namespace,
		"ip link add " + near + " type veth peer name far netns " + l.namespace,
		"ip addr add " + linkNear + "/30 dev " + near,
		"ip link set " + near + " up",
		"ip -n " + l.namespace + " addr add " + linkFar + "/30 dev far",
		"ip -n " + l.namespace + " link set far up",
		"tc qdisc add dev " + near + " root tbf rate " + rate + " burst 256kb latency 50ms",
		"tc -n " + l.namespace + " qdisc add dev far root tbf rate " + rate + " burst 256kb latency 50ms",
	} {
		words := strings.Fields(args)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %s", args, err, out), l.close())
		}
	}
	return l, nil
}

// close ends the relays and removes the namespace, and with it both interfaces.
func (l *link) close() error {
	for _, r := range l.relays {
		_ = r.Process.Kill()
		_ = r.Wait() // killed is how it ends
	}
	for _, listener := range l.listeners {
		listener.Close()
	}
	l.running.Wait()
	if out, err := exec.Command("ip", "netns", "delete", l.namespace).CombinedOutput(); err != nil {
		return fmt.Errorf("ip netns delete %s: %w: %s", l.namespace, err, out)
	}
	return nil
}

// dieWithUs ends a process that is to be started when this one dies.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// reach lets a server of this machine be reached over the link, and returns its
// address there.
func (l *link) reach(ctx context.Context, server string) (string, error) {
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		return "", err
	}
	socket := filepath.Join(l.dir, "link-"+port)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", err
	}
	l.listeners = append(l.listeners, listener)
	l.running.Go(func() { relay(listener, "tcp", server) })
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	far := net.JoinHostPort(linkFar, port)
	cmd := exec.Command("ip", "netns", "exec", l.namespace, self, "-relay", far+"="+socket)
	cmd.Stderr = os.Stderr
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	l.relays = append(l.relays, cmd)
	for range 100 {
		if c, err := net.Dial("tcp", far); err == nil {
			return far, c.Close()
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", fmt.Errorf("nothing answers at %s", far)
}

// runRelay is what the program does in the namespace: "address=socket".
func runRelay(what string) error {
	address, socket, _ := strings.Cut(what, "=")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	relay(listener, "unix", socket)
	return nil
}

// relay passes each connection on, until the listener is closed.
func relay(listener net.Listener, network, to string) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			target, err := net.Dial(network, to)
			if err != nil {
				return
			}
			defer target.Close()
			done := make(chan struct{}, 2)
			for _, pair := range [][2]net.Conn{{from, target}, {target, from}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					if half, ok := pair[0].(interface{ CloseWrite() error }); ok {
						_ = half.CloseWrite()
					}
					done <- struct{}{}
				}()
			}
			<-done
			<-done
		}()
	}
}

// onLink measures pulls over the link: from a bucket, and with docker from a
// stock registry.
func (b *bench) onLink() error { return b.overLink(linkRate, b.linkPulls) }

// onDeltaLink measures pulls of rebuilt layers over a slower one.
func (b *bench) onDeltaLink() error { return b.overLink(deltaRate, b.deltaPulls) }

// overLink runs measure with a stock registry and a bucket behind a link: the registry's addresses here and there, and
// the bucket's server, remote without an endpoint, and endpoint there.
func (b *bench) overLink(rate string, measure func(near, far string, server *s3test.Server, bucket, endpoint string) error) (err error) {
	l, err := newLink(b.dir, rate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return b.onRegistry(func(r *registry) error {
		return b.onServer(func(server *s3test.Server, bucket string) error {
			registry, err := l.reach(b.ctx, r.address)
			if err != nil {
				return err
			}
			endpoint, err := l.reach(b.ctx, strings.TrimPrefix(server.Endpoint, "http://"))
			if err != nil {
				return err
			}
			return measure(r.address, registry, server, "s3://"+bucket+"/images?endpoint=", "http://"+endpoint)
		})()
	})()
}

// onServedLink runs linkServed with a link and a stock registry.
func (b *bench) onServedLink() (err error) {
	l, err := newLink(b.dir, linkRate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return b.onRegistry(func(r *registry) error { return b.linkServed(l.reach, r) })()
}

func (b *bench) linkPulls(near, far string, server *s3test.Server, bucket, endpoint string) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	if _, err := b.engine.Docker(b.ctx, nil, "tag", image, near+"/bench/apt:1"); err != nil {
		return err
	}
	b.once(command{args: []string{"docker", "push", "--quiet", near + "/bench/apt:1"}})
	b.once(command{args: []string{b.dogestry, "push", "--quiet", "--compression", "zstd", bucket + url.QueryEscape(server.Endpoint), image}})
	empty := func() error { return b.engine.Empty(b.ctx) }
	b.compare(figure{name: "pull over 200 Mbit/s, zstd in a bucket", most: 0.8, peer: "docker pull over it"},
		command{args: []string{b.dogestry, "pull", "--quiet", bucket + url.QueryEscape(endpoint), image}, before: empty},
		command{args: []string{"docker", "pull", "--quiet", far + "/bench/apt:1"}, before: empty})
	return b.err
}
