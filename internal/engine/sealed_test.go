package engine

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

func sealOf(t *testing.T, programs ...string) *sealed.Seal {
	t.Helper()
	s, err := sealed.New(sealed.Options{From: "--sealed", Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealedEngine: the engine that is named is reached, by a socket and by a
// port, and nothing that it may say leads elsewhere.
func TestSealedEngine(t *testing.T) {
	noEnvironment(t)
	for _, url := range []string{(&fake{}).start(t), portOf(t, &fake{})} {
		c, err := Connect(t.Context(), Options{URL: url, Seal: sealOf(t), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c.Close()
	}
	elsewhere := portOf(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another server was asked") }))
	redirects := portOf(t, http.RedirectHandler("http"+strings.TrimPrefix(elsewhere, "tcp"), http.StatusFound))
	if _, err := Connect(t.Context(), Options{URL: redirects, Seal: sealOf(t), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("what redirects elsewhere is taken for an engine")
	}
}

// portOf lets a handler listen at a port.
func portOf(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: h}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
	return "tcp://" + l.Addr().String()
}

// TestSealedSSH: ssh is run where the configuration names it, and not else.
func TestSealedSSH(t *testing.T) {
	noEnvironment(t)
	bin := t.TempDir()
	ran := filepath.Join(bin, "ran")
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\necho >"+ran+"\necho no >&2\nexit 255\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	_, err := Connect(t.Context(), Options{URL: "ssh://me@host.invalid", Seal: sealOf(t), Log: slog.New(slog.DiscardHandler)})
	if !fault.Is(err, fault.Refused) || !errors.Is(err, sealed.ErrSealed) || !strings.Contains(err.Error(), "ssh was not run") {
		t.Error(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run")
	}
	_, err = Connect(t.Context(), Options{URL: "ssh://me@host.invalid", Seal: sealOf(t, "ssh"), Log: slog.New(slog.DiscardHandler)})
	if _, failed := os.Stat(ran); failed != nil || errors.Is(err, sealed.ErrSealed) {
		t.Errorf("named: %v, %v", err, failed)
	}
}
