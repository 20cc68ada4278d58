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
// which notes each packet and answers none. Its name server notes each query, and knows no name. Its methods may be called from several goroutines.
type Namespace struct {
	path string
	dir  string   // of the configuration of what runs in it
	out  *os.File // what leaves
	done chan struct{}

	names names

	mu      sync.Mutex
	arrived *sync.Cond // another packet, or the end
	ended   bool
	left    []string
}

const netnsDir = "/run/netns"

// NamespacesVariable names the environment variable that makes the test fail where no namespace can be had; without it, it is
// left out there.
const NamespacesVariable = "DOGESTRY_TEST_NAMESPACES"

// errNoNamespaces is for machines such as containers without the device or the rights.
var errNoNamespaces = errors.New("this machine has no network namespaces with /dev/net/tun")

// NewNamespace makes a namespace for one test, which must be root's, and removes it when the test ends. See [NeedPrivate] and
// [NamespacesVariable].
func NewNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	NeedPrivate(tb, os.Getuid() == 0)
	n, err := newNamespace(tunDevice)
	switch {
	case errors.Is(err, errNoNamespaces) && os.Getenv(NamespacesVariable) == "":
		tb.Skip(err)
	case errors.Is(err, errNoNamespaces):
		tb.Fatalf("%s is set: %v", NamespacesVariable, err)
	case err != nil:
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.remove(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

const tunDevice = "/dev/net/tun"

func newNamespace(tun string) (n *Namespace, err error) {
	for _, program := range []string{"ip", "nsenter", "unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("cannot make a network namespace (script/bootstrap test installs what is missing): %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "dgy-ns-") // its name is no other process's
	if err != nil {
		return nil, err
	}
	name := filepath.Base(dir)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: ip netns add: %w: %s", errNoNamespaces, err, out), os.RemoveAll(dir))
	}
	n = &Namespace{path: filepath.Join(netnsDir, name), dir: dir, done: make(chan struct{})}
	n.arrived = sync.NewCond(&n.mu)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.remove())
		}
	}()
	if err := n.within(func() error { return n.open(tun) }); err != nil {
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
	return n, n.configureNames()
}

// open makes the device by which everything leaves. It runs in the namespace.
func (n *Namespace) open(tun string) error {
	// The kernel itself would send packets of IPv6 to find neighbours.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fd, err := unix.Open(tun, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errNoNamespaces, tun, err)
	}
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "out")
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); failed != 0 {
		return errors.Join(fmt.Errorf("%w: %s: %w", errNoNamespaces, tun, failed), unix.Close(fd))
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
// first ones. What was sent before it was called is in it. It fails when the context ends before, or the device is gone.
func (n *Namespace) Left(ctx context.Context) ([]string, error) {
	// A packet of our own comes behind all others.
	const last = "udp 198.18.214.77:7"
	err := n.within(func() error {
		c, err := new(net.Dialer).DialContext(ctx, "udp", strings.TrimPrefix(last, "udp "))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("last"))
		return err
	})
	if err == nil {
		err = n.Await(ctx, last)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell what has left: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.Index(n.left, last)
	n.left = slices.Delete(n.left, i, i+1)
	var each []string
	for _, to := range n.left {
		if !slices.Contains(each, to) {
			each = append(each, to)
		}
	}
	return each, nil
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
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no packet left for %s: %w", where, ctx.Err())
		case n.ended:
			return fmt.Errorf("no packet left for %s, and the device is gone", where)
		}
		n.arrived.Wait()
	}
	return nil
}

// Command makes a command that runs in the namespace. It keeps all else of this process's, but for how names are looked up:
// that does not depend on the machine. Its mounts are its own, and end with it.
func (n *Namespace) Command(args ...string) []string {
	// Where a file is missing, the C library and Go do what these say.
	const script = `dir=$1; shift
		for file in resolv.conf nsswitch.conf; do
			if [ -e "/etc/$file" ]; then mount --bind "$dir/$file" "/etc/$file" || exit; fi
		done
		exec "$@"`
	return append([]string{"nsenter", "--net=" + n.path, "--", "unshare", "--mount", "--", "sh", "-c", script, "sh", n.dir}, args...)
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
	return errors.Join(err, os.RemoveAll(n.dir))
}
