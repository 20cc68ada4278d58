package cli

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestSecrets runs commands on a bucket, whole and failing in each way, and
// looks for what must not be told: not in results, not in errors, not with --debug.
func TestSecrets(t *testing.T) {
	engine := enginetest.For(t)
	if err := engine.LoadImage(t.Context(), wordsImage("secrets/app:1", []string{"secrets"})); err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	const token = "known-session-token"
	for _, v := range append(server.Environment(), "AWS_SESSION_TOKEN="+token, "DOCKER_HOST="+engine.Host) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	remote := "s3://" + bucket + "/images?endpoint=" + proxy.Endpoint
	var seen atomic.Bool
	plain := func(r *http.Request) s3test.Fault { // this server has no sessions
		if r.Header.Get("X-Amz-Security-Token") == token {
			seen.Store(true)
		}
		return s3test.Ignore("X-Amz-Security-Token")
	}
	proxy.SetFault(plain)
	run := func(name string, code int, args ...string) {
		t.Helper()
		var stdout, stderr strings.Builder
		if got := Main(append(args, "--debug"), &stdout, &stderr); got != code {
			t.Errorf("%s: %q: exit code %d, want %d: %s", name, args, got, code, stderr.String())
		}
		text := stdout.String() + stderr.String()
		for what, secret := range map[string]string{
			"secret key": server.SecretKey, "session token": token, "signature": "AWS4-HMAC", "header": "Authorization", "signed URL": "X-Amz-Signature",
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %q tells the %s:\n%s", name, args, what, text)
			}
		}
		if text == "" {
			t.Errorf("%s: %q says nothing", name, args)
		}
	}
	run("whole", 0, "push", remote, "secrets/app:1")
	run("whole", 0, "list", remote, "--json")
	run("whole", 0, "pull", remote, "secrets/app:1")
	if !seen.Load() {
		t.Error("no request had the session token: this test proves nothing")
	}
	for name, test := range map[string]struct {
		fault s3test.Rule
		code  int
	}{
		"denied":         {s3test.Always(s3test.Any, s3test.Answer(http.StatusForbidden, "AccessDenied")), 4},
		"wrong secret":   {s3test.Always(s3test.Any, s3test.Answer(http.StatusForbidden, "SignatureDoesNotMatch")), 4},
		"expired":        {s3test.Always(s3test.Any, s3test.Answer(http.StatusBadRequest, "ExpiredToken")), 4},
		"not understood": {s3test.Always(s3test.Any, s3test.Answer(http.StatusBadRequest, "SomethingNew")), 1},
		"moved":          {s3test.Always(s3test.Any, s3test.Redirect("eu-west-1")), 1},
		"500 twice":      {s3test.Times(2, s3test.Any, s3test.Answer(http.StatusInternalServerError, "InternalError")), 0},
		"503 once":       {s3test.Times(1, s3test.Any, s3test.Answer(http.StatusServiceUnavailable, "SlowDown")), 0},
		"dropped":        {s3test.Times(1, s3test.Any, s3test.Drop()), 0},
	} {
		for _, args := range [][]string{
			{"push", remote, "secrets/app:1", "--as", "secrets/other:" + strings.ReplaceAll(name, " ", "-")},
			{"pull", remote, "secrets/app:1"},
			{"list", remote},
		} {
			proxy.SetFault(s3test.Rules(test.fault, plain))
			run(name, test.code, args...)
		}
	}
}

// TestSecretsOfProcess has a credential_process that prints a warning before its
// JSON, which the SDK then quotes with all that follows.
func TestSecretsOfProcess(t *testing.T) {
	dir := t.TempDir()
	process, config := filepath.Join(dir, "process"), filepath.Join(dir, "config")
	script := `#!/bin/sh
echo 'Warning: a new version is there'
echo '{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "printed-secret", "SessionToken": "printed-token"}'
`
	for path, text := range map[string]string{process: script, config: "[profile ops]\ncredential_process = " + process + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "ops", "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
	for _, args := range [][]string{{"list"}, {"list", "--json"}, {"check"}, {"check", "--json"}} {
		var stdout, stderr strings.Builder
		code := Main(append(args, "--debug", "s3://bucket/images?endpoint=http://127.0.0.1:1"), &stdout, &stderr)
		text := stdout.String() + stderr.String()
		if code != 4 || !strings.Contains(text, "credential_process") || !strings.Contains(text, "one JSON document") {
			t.Errorf("%q: exit code %d: %s", args, code, text)
		}
		for _, secret := range []string{"printed-secret", "printed-token", "Warning", "AKIDEXAMPLE"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q tells %s:\n%s", args, secret, text)
			}
		}
	}
}

// TestPasswordInName has an engine that does not answer for a while: meanwhile
// commands show which remote they open.
func TestPasswordInName(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			time.AfterFunc(2*time.Second, func() { c.Close() })
		}
	}()
	t.Setenv("DOCKER_HOST", "tcp://"+l.Addr().String())
	for _, remote := range []string{"s3://key:hunter2@bucket/images", "s3://bucket?secret-key=hunter2", "https://user:hunter2@host/images"} {
		for _, args := range [][]string{{"push", remote, "app"}, {"pull", remote, "app"}, {"list", remote}, {"inspect", remote, "app"}} {
			var stdout, stderr strings.Builder
			if code := Main(append(args, "--json", "--debug"), &stdout, &stderr); code != 2 {
				t.Errorf("%q: exit code %d, want 2", args, code)
			}
			if text := stdout.String() + stderr.String(); strings.Contains(text, "hunter2") {
				t.Errorf("%q shows the password:\n%s", args, text)
			}
		}
	}
}
