package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
)

// sshIs makes a shell script the ssh of the test.
func sshIs(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// dialled is a connection through it that has passed on hello, and closed its input before.
func dialled(t *testing.T) net.Conn {
	t.Helper()
	d, err := dialSSH("ssh://me@gone.example")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.ReadFull(c, make([]byte, len("hello\n"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWriteToSSHThatHasEnded: a write may come before any read finds out.
func TestWriteToSSHThatHasEnded(t *testing.T) {
	sshIs(t, "exec <&-\necho hello\necho 'no route to gone.example' >&2\nexit 255\n")
	for range 2 {
		c := dialled(t)
		for range 2 {
			if _, err := c.Write([]byte("HEAD")); err == nil || !strings.Contains(err.Error(), "no route to gone.example") {
				t.Errorf("the write fails with %v", err)
			}
		}
		if n, err := c.Read(make([]byte, 9)); n != 0 || err == nil || !strings.Contains(err.Error(), "no route to gone.example") {
			t.Errorf("the read gives %d bytes and fails with %v", n, err)
		}
	}
}

// TestWriteToSSHThatAnswers: of what it passes on nothing is lost.
func TestWriteToSSHThatAnswers(t *testing.T) {
	sshIs(t, "exec <&-\necho hello\necho answer\n")
	c := dialled(t)
	for range 2 {
		if _, err := c.Write([]byte("HEAD")); err == nil {
			t.Error("the write succeeds")
		}
	}
	if got, err := io.ReadAll(c); string(got) != "answer\n" || err != nil {
		t.Errorf("it passes on %q, %v", got, err)
	}
}

// TestCloseOfSSHThatTakesNothing: no write waits for longer than the connection is there.
func TestCloseOfSSHThatTakesNothing(t *testing.T) {
	sshIs(t, "exec <&-\necho hello\nexec sleep 600\n")
	c := dialled(t)
	failed := make(chan error)
	go func() {
		_, err := c.Write([]byte("HEAD"))
		failed <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the write succeeds")
	}
}

// TestWhySSHEnds: what it says is told, whatever docker's client takes it for.
func TestWhySSHEnds(t *testing.T) {
	noEnvironment(t)
	const denied = "dial unix /var/run/docker.sock: connect: permission denied"
	for said, want := range map[string]struct {
		kind   fault.Kind
		advice string
	}{
		"ssh: no route to gone.example":                               {fault.Other, "--engine URL"},
		"dial unix /var/run/docker.sock: connect: connection refused": {fault.Other, "--engine URL"},
		denied: {fault.Refused, "group"},
	} {
		sshIs(t, "printf '%s\\r\\n' '"+said+"' >&2\nexit 255\n")
		_, err := Connect(t.Context(), Options{URL: "ssh://me@gone.example", Log: slog.New(slog.DiscardHandler)})
		if !fault.Is(err, want.kind) || !strings.HasSuffix(err.Error(), said) || !strings.Contains(err.Error(), "ssh://me@gone.example") ||
			!strings.Contains(fault.AdviceOf(err), want.advice) {
			t.Errorf("%s: error %v, advice %s", said, err, fault.AdviceOf(err))
		}
		if errors.Is(err, ErrAbsent) != (said != denied) {
			t.Errorf("%s: there is an engine, or none: %v", said, err)
		}
	}
	// What an earlier one said is not told of another failure.
	d, err := dialSSH("ssh://me@gone.example")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || d.why(io.EOF) == io.EOF {
		t.Errorf("it ended: %v, %v", err, d.why(io.EOF))
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := d.dial(t.Context(), "", ""); err == nil || d.why(err) != err {
		t.Errorf("there is no ssh: %v, %v", err, d.why(err))
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Connect(ended, Options{URL: "ssh://me@gone.example", Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: error %v", err)
	}
}
