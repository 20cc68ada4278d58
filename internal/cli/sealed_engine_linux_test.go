package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// TestSealedEngine has engines of all kinds whose only way out is the proxy of serve,
// where every packet that leaves would be seen: on a base image that the remote has
// they build; what it does not have fails at once and says why.
func TestSealedEngine(t *testing.T) {
	source := enginetest.For(t)
	if err := source.LoadImage(t.Context(), wordsImage("sealedbase:1", []string{"sealed-engine-base"})); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, source.Host, "push", remote, "sealedbase:1")
	test := func(t *testing.T, k enginetest.Kind) {
		n := enginetest.NewNamespace(t)
		registry, proxy := serveSealed(t, n, remote)
		o := k.Options
		o.Namespace = n
		files := filesOf(t, registry, proxy)
		if o.Config = files[0].Content; k.Bin == "" { // Docker 20
			o.Config = files[1].Content
			for _, m := range regexp.MustCompile(`"([A-Z_]+=[^"]*)"`).FindAllStringSubmatch(files[2].Content, -1) {
				o.Env = append(o.Env, m[1])
			}
		}
		e := enginetest.StartFor(t, o)
		dir := t.TempDir()
		build := func(lines string) error {
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+lines+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := e.Docker(t.Context(), nil, "build", "--tag", "built:1", dir)
			return err
		}
		if err := build("sealedbase:1\nCOPY Dockerfile /"); err != nil {
			t.Errorf("on a base image that is there: %v", err)
		}
		ways := map[string]error{"build": build("debian:bookworm"), "ADD": build("sealedbase:1\nADD https://192.0.2.5/file /")}
		for _, args := range [][]string{
			{"pull", "debian:bookworm"},
			{"run", "--network", "none", "alpine"},
			{"push", "built:1"},
			{"pull", "192.0.2.9/x:1"}, // an engine looks up the names of others than docker.io
		} {
			_, err := e.Docker(t.Context(), nil, args...)
			ways[args[0]+" "+args[1]] = err
		}
		for what, err := range ways {
			if err == nil || !strings.Contains(err.Error(), "dogestry is sealed: ") {
				t.Errorf("%s: %v", what, err)
			}
		}
		check := []string{"seal", "--check", "--engine", e.Host, "--registry", registry, "--proxy", proxy}
		mainWants(t, 0, check...)
		if out, _ := mainWants(t, int(fault.Refused), append(check, "--registry", "127.0.0.1:1", "--json")...); !strings.Contains(out, "registry-mirrors") || strings.Contains(out, "(http-proxy)") {
			t.Errorf("of another registry: %s", out)
		}
		version, err := e.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		left, err := n.Left(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(version, "20.") { // it asks whether the registry is one of insecure-registries
			left = slices.DeleteFunc(left, func(to string) bool {
				return strings.HasPrefix(to, "a query for ") && strings.HasSuffix(to, "docker.io")
			})
		}
		if len(left) > 0 {
			t.Errorf("%s, %s: %q left", k.Name, version, left)
		}
	}
	enginetest.EachKind(t, test)
	for _, k := range enginetest.Kinds() {
		if k.ContainerdStore {
			t.Run(k.Name, func(t *testing.T) { test(t, k) })
		}
	}
}

// filesOf returns what `dogestry seal` prints.
func filesOf(t *testing.T, registry, proxy string) []sealed.File {
	t.Helper()
	out, _ := mainWants(t, 0, "seal", "--registry", registry, "--proxy", proxy, "--json")
	var printed struct{ Files []sealed.File }
	if err := json.Unmarshal([]byte(out), &printed); err != nil || len(printed.Files) < 3 {
		t.Fatalf("seal --json: %v\n%s", err, out)
	}
	return printed.Files
}

// serveSealed runs serve in a namespace, and returns where its registry and its proxy are.
func serveSealed(t *testing.T, n *enginetest.Namespace, remote string) (registry, proxy string) {
	t.Helper()
	p := &process{t: t, cmd: within(t, n, "unix:///nowhere.sock", nil,
		"serve", "--sealed", remote, "--listen", "127.0.0.1:0", "--mirror-of", "docker.io", "--deny-proxy", "127.0.0.1:0")}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.launch()
	at := regexp.MustCompile(`(?s)denying .* at http://(\S+)\n.*serving .* at http://(\S+)\n`)
	p.until("it says where it listens", func() bool { return at.MatchString(p.stdout.String()) })
	m := at.FindStringSubmatch(p.stdout.String())
	return m[2], m[1]
}
