package enginetest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNamespace: what leaves is seen, and what goes to loopback does not leave.
func TestNamespace(t *testing.T) {
	n := NewNamespace(t)
	l, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run := func(script string) {
		t.Helper()
		args := n.Command("bash", "-c", script)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("exec 3<>/dev/tcp/" + slashed(l.Addr().String()))
	if left, err := n.Left(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("%q left, %v", left, err)
	}
	run("echo x >/dev/udp/192.0.2.1/53; echo y >/dev/udp/192.0.2.1/53")
	run("getent hosts registry.example || true")
	left, err := n.Left(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(left, "a query for registry.example") {
		t.Errorf("%q left, and no query", left)
	}
	if !slices.Contains(left, "udp 192.0.2.1:53") {
		t.Errorf("%q left", left)
	}
	if l, err := n.Listen("127.0.0.1:0"); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

// TestNamespaceAnywhere: on machines that look names up in other ways, all that is seen, too.
func TestNamespaceAnywhere(t *testing.T) {
	NewNamespace(t)
	for name, change := range map[string]string{
		"no files":               `rm -f etc/resolv.conf etc/nsswitch.conf`,
		"IPv6, and another way":  `echo nameserver ::1 >new; echo hosts: files resolve >nss; cp -f --remove-destination new etc/resolv.conf; cp -f --remove-destination nss etc/nsswitch.conf`,
		"no name server":         `echo search example >new; cp -f --remove-destination new etc/resolv.conf`,
		"a link that leads away": `ln -sf /nowhere/resolv.conf etc/resolv.conf`,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "--", "sh", "-ec",
				`mount -t tmpfs none "$PWD"; mkdir etc; cp -a /etc/. etc; `+change+`; mount --bind etc /etc; exec "$0" -test.run='^TestNamespace$' -test.v`, testBinary(t))
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestNamespace ") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNamespaceEnds: nothing waits for what will not come.
func TestNamespaceEnds(t *testing.T) {
	n := NewNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left, err := n.Left(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %q, %v", left, err)
	}
	if err := n.out.Close(); err != nil {
		t.Fatal(err)
	}
	<-n.done
	if left, err := n.Left(t.Context()); err == nil {
		t.Errorf("without its device: %q", left)
	}
	n.out = nil
	if left, err := (&Namespace{path: n.path + "-none"}).Left(t.Context()); err == nil {
		t.Errorf("of no namespace: %q", left)
	}
}

// TestNoNamespaces: where there is no device, it is told, and nothing is left over.
func TestNoNamespaces(t *testing.T) {
	NewNamespace(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	if _, err := newNamespace(filepath.Join(tmp, "tun")); !errors.Is(err, errNoNamespaces) || !strings.Contains(err.Error(), "/tun: no such file") {
		t.Errorf("without the device: %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// slashed is a host:port as bash takes it.
func slashed(address string) string {
	b := []byte(address)
	b[slices.Index(b, ':')] = '/'
	return string(b)
}
