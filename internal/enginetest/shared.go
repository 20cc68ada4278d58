package enginetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// EngineVariable names the environment variable that holds the address of the engine that tests are to use.
const EngineVariable = "DOGESTRY_TEST_ENGINE"

// started are the private engines of this process that were not stopped yet.
var started = struct {
	sync.Mutex
	engines map[*Engine]bool
}{engines: map[*Engine]bool{}}

// StopAll stops every private engine that this process started.
func StopAll() error {
	started.Lock()
	engines := make([]*Engine, 0, len(started.engines))
	for e := range started.engines {
		engines = append(engines, e)
	}
	started.Unlock()
	var errs []error
	for _, e := range engines {
		errs = append(errs, e.Stop())
	}
	return errors.Join(errs...)
}

// Main is the TestMain of a package whose tests use engines:
//
//	func TestMain(m *testing.M) { enginetest.Main(m) }
//
// It stops all engines of the process after the tests. When the process panics, is killed or runs out of its time, each
// engine's watcher does that instead.
func Main(m *testing.M) {
	code := m.Run()
	if err := StopAll(); err != nil {
		fmt.Fprintln(os.Stderr, "enginetest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// shared is the engine of [For]. A failure is kept as well, so that each test says it and none tries again.
var shared = sync.OnceValues(func() (*Engine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if host := os.Getenv(EngineVariable); host != "" {
		return Attach(ctx, host)
	}
	_, err := exec.LookPath("dockerd")
	if err == nil && os.Getuid() == 0 {
		return Start(ctx, Options{})
	}
	const running = "unix:///var/run/docker.sock"
	e, err := Attach(ctx, running)
	if err != nil {
		return nil, fmt.Errorf("no engine to test with (%w): run `script/bootstrap engine` and the tests as root, "+
			"start an engine at %s, or set %s to the address of one", err, running, EngineVariable)
	}
	return e, nil
})

// For returns the one engine of this test process, started at first use; [Main] stops it. It is, in this order: the one
// that [EngineVariable] names; as root, and with dockerd installed, a private one; the one that runs on the machine. With
// none of them the test fails: a skip would pass for a success. Tests that run in parallel share it, so they should not
// empty it.
func For(tb testing.TB) *Engine {
	tb.Helper()
	e, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// NeedPrivate is for tests that only a private engine can run: one that they kill, or look into. Where there is none they
// are skipped, as [Describe] says, unless engines are required.
func NeedPrivate(tb testing.TB, there bool) {
	tb.Helper()
	switch {
	case there:
	case os.Getenv(RequiredVariable) != "":
		tb.Fatalf("this test needs an engine of its own: run it as root, without %s", EngineVariable)
	default:
		tb.Skip("this test needs an engine of its own, and so root")
	}
}

// StartFor starts a private engine for one test, and stops it when the test ends. See [NeedPrivate].
func StartFor(tb testing.TB, o Options) *Engine {
	tb.Helper()
	NeedPrivate(tb, os.Getuid() == 0)
	e, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// LoadFor is [Engine.Load] for tests.
func (e *Engine) LoadFor(tb testing.TB, name ImageName) (ref string) {
	tb.Helper()
	ref, err := e.Load(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}
