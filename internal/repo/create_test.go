package repo_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/probe"
)

// undying is a store in which nothing can be removed.
type undying struct{ *mem.Store }

var errUndying = errors.New("nothing can be removed")

func (undying) Delete(context.Context, string) error { return errUndying }

// TestKilledCreate kills a push --if-absent between its probe and the removal of
// that: `check --sweep` removes it.
func TestKilledCreate(t *testing.T) {
	s := mem.New()
	r, err := repo.Open(t.Context(), undying{s}, repo.Options{Name: "the-remote"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.MayCreate(t.Context(), remotetest.Ref(t, "app:1"), image.ID{}, true); !errors.Is(err, errUndying) {
		t.Fatalf("%v: this test proves nothing", err)
	}
	var left []string
	for info := range s.List(t.Context(), "") {
		left = append(left, info.Key)
	}
	if len(left) != 1 || !strings.HasPrefix(left[0], "run/") {
		t.Fatalf("a probe leaves %q", left)
	}
	if n, err := probe.Sweep(t.Context(), s, time.Hour); n != 0 || err != nil {
		t.Errorf("swept %d young ones, %v", n, err)
	}
	if n, err := probe.Sweep(t.Context(), s, 0); n != 1 || err != nil {
		t.Errorf("swept %d of %q, %v", n, left, err)
	}
}
