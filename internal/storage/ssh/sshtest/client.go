package sshtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Client is an ssh with a configuration of its own: the program "ssh" in Bin.
type Client struct{ dir string }

// variable names that directory, so that the servers of one test share it.
const variable = "DOGESTRY_TEST_SSH"

var counting sync.Mutex

// theClient makes "ssh" one of the test's own. Tests that use it cannot be parallel.
func theClient(t testing.TB) *Client {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		return &Client{dir}
	}
	c := NewClient(t)
	t.Setenv(variable, c.dir)
	t.Setenv("PATH", c.Bin()+string(os.PathListSeparator)+os.Getenv("PATH"))
	return c
}

// NewClient returns an ssh that knows no hosts yet.
func NewClient(t testing.TB) *Client {
	t.Helper()
	c := &Client{t.TempDir()}
	appendTo(t, c.path("authorized_keys"), newKey(t, c.path("key")))
	appendTo(t, c.path("known_hosts"), "")
	appendTo(t, c.path("config"), strings.Join([]string{
		"Host *", "IdentityFile " + c.path("key"), "IdentitiesOnly yes", "IdentityAgent none", "StrictHostKeyChecking yes",
		"UserKnownHostsFile " + c.path("known_hosts"), "GlobalKnownHostsFile /dev/null", "User " + login(t),
		"KexAlgorithms curve25519-sha256", "", // tests connect often; the default takes longer
	}, "\n"))
	if err := os.Mkdir(c.Bin(), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -F '%s' \"$@\"\n", c.path("config"))
	if err := os.WriteFile(filepath.Join(c.Bin(), "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// Bin is the directory that has to be in PATH.
func (c *Client) Bin() string { return c.path("bin") }

func (c *Client) path(name string) string { return filepath.Join(c.dir, name) }

// count is a number that no other host of this client has.
func (c *Client) count() int {
	counting.Lock()
	defer counting.Unlock()
	config, _ := os.ReadFile(c.path("config"))
	return strings.Count(string(config), "HostName")
}

// add makes a host known.
func (c *Client) add(t testing.TB, s *Server, jump *Server) {
	t.Helper()
	config := fmt.Sprintf("Host %s\nHostName 127.0.0.1\nPort %s\nHostKeyAlias %s\n", s.Name, s.Port(), s.Name)
	if jump != nil {
		config += "ProxyJump " + jump.Name + "\n"
	}
	appendTo(t, c.path("config"), config)
}

// Configure adds lines to the configuration of the test's ssh, for one host.
func (s *Server) Configure(t testing.TB, lines ...string) {
	t.Helper()
	appendTo(t, s.client.path("config"), "Host "+s.Name+"\n"+strings.Join(lines, "\n")+"\n")
}

// Forget lets the test's ssh know no keys of hosts; with a new one for this host it
// knows another one.
func (s *Server) Forget(t testing.TB, another bool) {
	t.Helper()
	known := ""
	if another {
		known = s.Name + " " + newKey(t, filepath.Join(t.TempDir(), "other"))
	}
	if err := os.WriteFile(s.client.path("known_hosts"), []byte(known), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Deny takes the test's key from those that may log in.
func (s *Server) Deny(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(s.client.path("authorized_keys"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
