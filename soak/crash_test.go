package main

import (
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestCrashes kills a sample of the operations of the commands in scenes, on every
// kind of store. `make crash` kills them all.
func TestCrashes(t *testing.T) {
	server := s3test.For(t)
	for _, v := range server.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	at, err := openOn(t.Context(), mem.New(), lease.Times{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := makeCatalogue(t.Context(), at, few, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []struct {
		ground
		most int
	}{{inMemory(), 6}, {inDirectory(t.TempDir()), 1}, {inBucket(server), 1}} {
		if testing.Short() {
			g.most = min(g.most, 3)
		}
		var m matrix
		if err := m.crashes(t.Context(), c, g.ground, scenes(), g.most, 24); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d operations killed, %d violations", g.name, m.killed, len(m.violations))
		for _, v := range m.violations {
			t.Error(v)
		}
		if want := len(scenes()) * len(g.modes); m.killed < want {
			t.Errorf("%s: only %d operations killed, want %d", g.name, m.killed, want)
		}
	}
}
