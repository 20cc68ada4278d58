package enginetest

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// RequiredVariable names the environment variable that lists the kinds of engines that tests must run on, as in
// "system,29o,29c,podman": where one is missing, every test that would use it fails. Without it tests run on those that are there.
const RequiredVariable = "DOGESTRY_TEST_ENGINES"

// Kind is a kind of engine that tests run on.
type Kind struct {
	Name string
	Options
}

// bin29 is where script/bootstrap engines puts Docker 29, below the module's root.
const bin29 = ".cache/engines/29"

// kinds are all that tests may run on, the system's first.
func kinds() []Kind {
	bin := bin29
	if root, err := moduleRoot(); err == nil {
		bin = filepath.Join(root, bin29)
	}
	return []Kind{
		{Name: "system"}, // the one of For
		{Name: "29o", Options: Options{Bin: bin}},
		{Name: "29c", Options: Options{Bin: bin, ContainerdStore: true}},
		{Name: "podman", Options: Options{Podman: true}},
	}
}

// Kinds returns the kinds of engines that this machine has: the system's, and Docker 29 with either image store and Podman
// where root runs the tests and script/bootstrap engines was here. It starts none of them.
func Kinds() []Kind {
	return slices.DeleteFunc(kinds(), func(k Kind) bool { return k.missing() != nil })
}

// missing says why the machine does not have this kind. The system's is never missing: without it tests fail.
func (k Kind) missing() error {
	if k.isSystem() {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("engine %s needs root", k.Name)
	}
	if k.Podman {
		if _, err := exec.LookPath("podman"); err != nil {
			return fmt.Errorf("engine %s is not on this machine (%w): run script/bootstrap engines", k.Name, err)
		}
		return nil
	}
	for _, name := range []string{"dockerd", "containerd", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(k.Bin, name)); err != nil {
			return fmt.Errorf("engine %s is not on this machine (%w): run script/bootstrap engines", k.Name, err)
		}
	}
	return nil
}

// like reports whether another kind shows as much of our own code: -short, as with the race detector, leaves it out.
func (k Kind) like() bool { return k.Podman || k.Bin != "" && !k.ContainerdStore }

// isSystem reports whether it is the engine of [For].
func (k Kind) isSystem() bool { return k.Bin == "" && !k.Podman }

// checkRequired fails where [RequiredVariable] names a kind that is unknown or missing.
func checkRequired() error {
	required := os.Getenv(RequiredVariable)
	if required == "" {
		return nil
	}
	all := kinds()
	for name := range strings.SplitSeq(required, ",") {
		i := slices.IndexFunc(all, func(k Kind) bool { return k.Name == name })
		if i < 0 {
			return fmt.Errorf("%s names the engine %q, which is none of those that tests know", RequiredVariable, name)
		}
		if err := all[i].missing(); err != nil {
			return fmt.Errorf("%s: %w", RequiredVariable, err)
		}
	}
	return nil
}

// Describe writes one line about each kind of engine: its version, or why tests do not run on it.
func Describe(w io.Writer) error {
	for _, k := range kinds() {
		what := "the system's"
		err := k.missing()
		switch {
		case err != nil:
			what = "NOT TESTED: " + err.Error()
		case k.isSystem() && os.Getenv(EngineVariable) != "":
			what = "at " + os.Getenv(EngineVariable)
		case k.Podman:
			if version, err := exec.Command("podman", "--version").Output(); err == nil {
				what = strings.TrimSpace(string(version))
			}
		case k.Bin != "": // a dockerd that was built from a module does not know its own version
			info, err := buildinfo.ReadFile(filepath.Join(k.Bin, "dockerd"))
			if err != nil {
				return err
			}
			what = "Docker 29, " + info.Main.Path + "@" + info.Main.Version
		default:
			if version, err := exec.Command("dockerd", "--version").Output(); err == nil {
				what = strings.TrimSpace(string(version))
			}
		}
		if k.Bin != "" && err == nil {
			what += map[bool]string{false: ", classic store", true: ", containerd image store"}[k.ContainerdStore]
		}
		if k.isSystem() && (os.Getuid() != 0 || os.Getenv(EngineVariable) != "") {
			what += "; NOT TESTED: what needs an engine of its own, which root gets"
		}
		if _, err := fmt.Fprintf(w, "engine %-6s  %s\n", k.Name, what); err != nil {
			return err
		}
	}
	return nil
}

// sharedKinds are the engines of [Each], by kind: started at first use, and stopped by [Main].
var sharedKinds = struct {
	sync.Mutex
	engines map[string]func() (*Engine, error)
}{engines: map[string]func() (*Engine, error){}}

// shared returns the one engine of this kind that the tests of a process share.
func (k Kind) shared() (*Engine, error) {
	if k.isSystem() {
		return shared()
	}
	sharedKinds.Lock()
	defer sharedKinds.Unlock()
	start, ok := sharedKinds.engines[k.Name]
	if !ok {
		start = sync.OnceValues(func() (*Engine, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			return Start(ctx, k.Options)
		})
		sharedKinds.engines[k.Name] = start
	}
	return start()
}

// Each runs a test on one Docker Engine of each kind with a classic store that this machine has, one after the other. See
// [For] about them.
func Each(t *testing.T, test func(t *testing.T, e *Engine)) {
	t.Helper()
	each(t, Kind.classic, test)
}

// First runs a test as Each does if all is set, else on the engine of [For] alone.
func First(t *testing.T, all bool, test func(t *testing.T, e *Engine)) {
	t.Helper()
	if all {
		Each(t, test)
		return
	}
	test(t, For(t))
}

func (k Kind) classic() bool { return !k.ContainerdStore && !k.Podman }

// EachContainerd runs a test on each engine with the containerd image store that this machine has.
func EachContainerd(t *testing.T, test func(t *testing.T, e *Engine)) {
	t.Helper()
	each(t, func(k Kind) bool { return k.ContainerdStore }, test)
}

// EachPodman runs a test on Podman, if this machine has it.
func EachPodman(t *testing.T, test func(t *testing.T, e *Engine)) {
	t.Helper()
	each(t, func(k Kind) bool { return k.Podman }, test)
}

// EachKind runs a test for each kind of engine with a classic store that this machine has, without starting one.
func EachKind(t *testing.T, test func(t *testing.T, k Kind)) {
	t.Helper()
	if err := checkRequired(); err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds() {
		if k.classic() && !(testing.Short() && k.like()) {
			t.Run(k.Name, func(t *testing.T) { test(t, k) })
		}
	}
}

func each(t *testing.T, is func(Kind) bool, test func(t *testing.T, e *Engine)) {
	t.Helper()
	if err := checkRequired(); err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds() {
		if !is(k) || testing.Short() && k.like() {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			e, err := k.shared()
			if err != nil {
				t.Fatal(err)
			}
			test(t, e)
		})
	}
}
