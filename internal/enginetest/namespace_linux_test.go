package enginetest

import (
	"os/exec"
	"slices"
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
	if left := n.Left(); len(left) > 0 {
		t.Errorf("%q left", left)
	}
	run("echo x >/dev/udp/192.0.2.1/53; echo y >/dev/udp/192.0.2.1/53")
	run("getent hosts registry.example || true")
	left := n.Left()
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

// slashed is a host:port as bash takes it.
func slashed(address string) string {
	b := []byte(address)
	b[slices.Index(b, ':')] = '/'
	return string(b)
}
