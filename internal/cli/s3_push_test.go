package cli

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// setAccount lets commands, in this process and in others, be an account.
func setAccount(t *testing.T, a s3test.Account) {
	t.Helper()
	for _, v := range a.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// oneLayer brings an image with one large layer into the engine.
func oneLayer(t *testing.T, engine *enginetest.Engine, size int64) (ref string) {
	t.Helper()
	m := enginetest.BigImage(1, size)
	if err := engine.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m.Tags()[0]
}

// mainWants runs a command in this process and returns what it printed.
func mainWants(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	if got := Main(args, &out, &errs); got != code {
		t.Errorf("%q: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// TestLimitFlags moves a layer of 3 MB at 1 MB a second: what the flags say
// reaches the connections.
func TestLimitFlags(t *testing.T) {
	engine := enginetest.For(t)
	ref := oneLayer(t, engine, 3e6)
	server := s3test.For(t)
	setAccount(t, server.Account)
	t.Setenv("DOCKER_HOST", engine.Host)
	remote := "s3://" + server.Bucket(t) + "?endpoint=" + server.Endpoint
	slow := func(args ...string) {
		t.Helper()
		start := time.Now()
		mainWants(t, 0, args...)
		if took := time.Since(start); took < 2500*time.Millisecond {
			t.Errorf("%q: 3 MB at 1 MB/s took %s", args, took)
		}
	}
	slow("push", remote, ref, "--compression", "none", "--limit-upload", "1MB")
	if out, err := engine.Docker(t.Context(), nil, "rmi", ref); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	slow("pull", remote, ref, "--limit-download", "1MB/s")
}

// TestRetryIsShown has a server that is busy once: the user is told, and the
// command goes through.
func TestRetryIsShown(t *testing.T) {
	engine := enginetest.For(t)
	if err := engine.LoadImage(t.Context(), wordsImage("retry/app:1", []string{"retry"})); err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	setAccount(t, server.Account)
	t.Setenv("DOCKER_HOST", engine.Host)
	proxy := server.ProxyFor(t)
	remote := "s3://" + server.Bucket(t) + "?endpoint=" + proxy.Endpoint
	for _, test := range []struct {
		op   string
		args []string
	}{
		{"PutObject", []string{"push", remote, "retry/app:1"}},
		{"GetObject", []string{"pull", remote, "retry/app:1"}},
		{"ListObjectsV2", []string{"list", remote}},
		{"ListObjectsV2", []string{"inspect", remote, "retry/app:1"}},
		{"ListObjectsV2", []string{"check", remote}},
	} {
		proxy.SetFault(s3test.Times(1, s3test.Is(test.op), s3test.Answer(http.StatusServiceUnavailable, "SlowDown")))
		if _, stderr := mainWants(t, 0, test.args...); strings.Count(stderr, "(SlowDown), trying again in ") != 1 {
			t.Errorf("%q says on stderr:\n%s", test.args, stderr)
		}
		proxy.SetFault(s3test.Times(1, s3test.Is(test.op), s3test.Answer(http.StatusServiceUnavailable, "SlowDown")))
		if _, stderr := mainWants(t, 0, append(test.args, "--quiet")...); stderr != "" {
			t.Errorf("%q --quiet says on stderr:\n%s", test.args, stderr)
		}
	}
}

// TestIgnoredConditions has a server that takes If-None-Match and If-Match, and
// overwrites all the same: no tag is promised to stay, and check says so.
func TestIgnoredConditions(t *testing.T) {
	engine := enginetest.For(t)
	if err := engine.LoadImage(t.Context(), wordsImage("ignored/app:1", []string{"ignored"})); err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	setAccount(t, server.Account)
	t.Setenv("DOCKER_HOST", engine.Host)
	proxy := server.ProxyFor(t)
	bucket := server.Bucket(t)
	remote := "s3://" + bucket + "?endpoint=" + proxy.Endpoint
	proxy.SetFault(s3test.Always(s3test.Is("PutObject", "CompleteMultipartUpload"), s3test.Ignore("If-None-Match", "If-Match")))
	_, stderr := mainWants(t, 4, "push", remote, "ignored/app:1", "--if-absent")
	if !strings.Contains(stderr, "cannot promise that a tag is not overwritten") || !strings.Contains(stderr, "without --if-absent") {
		t.Errorf("push --if-absent says\n%s", stderr)
	}
	if entries, err := os.ReadDir(server.Dir(bucket)); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "repositories" || e.Name() == "run" }) {
		t.Errorf("it left %v, %v", entries, err)
	}
	mainWants(t, 0, "push", remote, "ignored/app:1")
	stdout, _ := mainWants(t, 0, "check", remote)
	for _, want := range []string{"create if absent   unsupported", "compare and swap   unsupported"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check does not say %q:\n%s", want, stdout)
		}
	}
}
