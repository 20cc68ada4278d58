package enginetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of its own: a loopback device, and a way to everywhere else that leads to this process,
// which notes each packet and answers none. Its name servers note each query, and know no name. Its methods may be called from several goroutines.
type Namespace struct {
	path string
	out  *os.File // what leaves
	done chan struct{}

	names names

	mu      sync.Mutex
	arrived *sync.Cond // another packet, or the end
	ended   bool
	left    []string
}

const netnsDir = "/run/netns"

// NewNamespace makes a namespace for one test, which must be root's, and removes it when the test ends. See [NeedPrivate].
func NewNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	NeedPrivate(tb, os.Getuid() == 0)
	n, err := newNamespace()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.remove(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

func newNamespace() (n *Namespace, err error) {
	file, err := os.CreateTemp("", "dgy-ns-") // for a name that no other process has
	if err != nil {
		return nil, err
	}
	name := filepath.Base(file.Name())
	err = errors.Join(file.Close(), os.Remove(file.Name()))
	if err != nil {
		return nil, err
	}
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make a network namespace (script/bootstrap engine installs iproute2): %w: %s", err, out)
	}
	n = &Namespace{path: filepath.Join(netnsDir, name), done: make(chan struct{})}
	n.arrived = sync.NewCond(&n.mu)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.remove())
		}
	}()
	if err := n.within(n.open); err != nil {
		close(n.done)
		return n, fmt.Errorf("cannot see what leaves a network namespace: %w", err)
	}
	go n.note()
	for _, args := range []string{
		"link set lo up", "addr add 198.18.214.1/24 dev out", "link set out up", "route add default dev out", // RFC 2544
	} {
		if out, err := exec.Command("ip", append([]string{"-n", name}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			return n, fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return n, n.listenForNames()
}

// open makes the device by which everything leaves. It runs in the namespace.
func (n *Namespace) open() error {
	// The kernel itself would send packets of IPv6 to find neighbours.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "out")
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); failed != 0 {
		return errors.Join(failed, unix.Close(fd))
	}
	n.out = os.NewFile(uintptr(fd), "out")
	return nil
}

// note reads packets until the device is closed.
func (n *Namespace) note() {
	defer close(n.done)
	packet := make([]byte, 64<<10)
	for {
		read, err := n.out.Read(packet)
		n.mu.Lock()
		if n.ended = err != nil; !n.ended {
			n.left = append(n.left, describe(packet[:read]))
		}
		n.arrived.Broadcast()
		n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// describe says where a packet goes to.
func describe(p []byte) string {
	const header = 20
	if len(p) < header+4 || p[0]>>4 != 4 {
		return fmt.Sprintf("a packet of %d bytes, IP version %d", len(p), p[0]>>4)
	}
	to := netip.AddrFrom4([4]byte(p[16:20]))
	kind := map[byte]string{1: "icmp", 6: "tcp", 17: "udp"}[p[9]]
	ports := p[int(p[0]&15)*4:]
	if len(ports) < 4 || kind == "icmp" {
		return fmt.Sprintf("%s (%d) %s", kind, p[9], to)
	}
	return fmt.Sprintf("%s %s:%d", kind, to, int(ports[2])<<8|int(ports[3]))
}

// Left returns where packets went that left the namespace, and names that were asked for, each once, in the order of their
// first ones. What was sent before it was called is in it.
func (n *Namespace) Left() []string {
	// A packet of our own comes behind all others.
	const last = "udp 198.18.214.77:7"
	_ = n.within(func() error {
		c, err := net.Dial("udp", strings.TrimPrefix(last, "udp "))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("last"))
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.ended {
		i := slices.Index(n.left, last)
		if i < 0 {
			n.arrived.Wait()
			continue
		}
		n.left = slices.Delete(n.left, i, i+1)
		var each []string
		for _, to := range n.left {
			if !slices.Contains(each, to) {
				each = append(each, to)
			}
		}
		return each
	}
	return []string{"the device is gone"}
}

// Await returns when a packet has left for where, as Left writes it.
func (n *Namespace) Await(ctx context.Context, where string) error {
	defer context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.arrived.Broadcast()
	})()
	n.mu.Lock()
	defer n.mu.Unlock()
	for !slices.Contains(n.left, where) {
		if n.ended || ctx.Err() != nil {
			return fmt.Errorf("no packet left for %s: %w", where, ctx.Err())
		}
		n.arrived.Wait()
	}
	return nil
}

// Command makes a command that runs in the namespace. It keeps all else of this process's, also its mounts.
func (n *Namespace) Command(args ...string) []string {
	return append([]string{"nsenter", "--net=" + n.path, "--"}, args...)
}

// Listen listens at an address of the namespace's loopback device; what accepts connections may be anywhere.
func (n *Namespace) Listen(address string) (l net.Listener, err error) {
	failed := n.within(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, failed
}

// within calls f on a thread that is in the namespace.
func (n *Namespace) within(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		result <- func() error {
			fd, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-result
}

// remove removes the namespace, once nothing in it runs any more.
func (n *Namespace) remove() error {
	var err error
	n.names.close()
	if n.out != nil {
		err = n.out.Close()
		<-n.done
	}
	if out, failed := exec.Command("ip", "netns", "delete", filepath.Base(n.path)).CombinedOutput(); failed != nil {
		err = errors.Join(err, fmt.Errorf("ip netns delete: %w: %s", failed, out))
	}
	return err
}
