//go:build unix

package cli

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// startAgent starts `dogestry agent` for an engine, and returns where it listens.
func startAgent(t *testing.T, e *enginetest.Engine, env []string, flags ...string) (p *process, address string) {
	t.Helper()
	p = &process{t: t, cmd: command(t, e.Host, append([]string{"agent", "--listen", "127.0.0.1:0"}, flags...)...)}
	p.cmd.Env = append(s3test.Clean(p.cmd.Env), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.launch()
	at := regexp.MustCompile(`agent at https?://(\S+)\n`)
	p.until("it says where it listens", func() bool { return at.MatchString(p.stdout.String()) })
	return p, at.FindStringSubmatch(p.stdout.String())[1]
}

// tapped passes connections on, and keeps what clients send.
type tapped struct {
	mu   sync.Mutex
	sent strings.Builder
	port string
}

func tap(t *testing.T, network, address string) *tapped {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tapped{}
	_, p.port, _ = net.SplitHostPort(l.Addr().String())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				to, err := net.Dial(network, address)
				if err != nil {
					return
				}
				defer to.Close()
				all.Go(func() {
					_, _ = io.Copy(conn, to)
					_ = conn.Close()
				})
				_, _ = io.Copy(to, io.TeeReader(conn, p))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return p
}

func (p *tapped) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent.Write(b)
}

func (p *tapped) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent.String()
}

// agentConfig writes what callers have set: the token, and where there is one the authority.
func agentConfig(t *testing.T, token, ca string) (file string) {
	t.Helper()
	dir := t.TempDir()
	content := "agent-token-file: token\n"
	if ca != "" {
		content += "agent-ca: " + ca + "\n"
	}
	file = filepath.Join(dir, "config.yaml")
	for name, content := range map[string]string{filepath.Join(dir, "token"): token + "\n", file: content} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// caller is a dogestry that lets an agent pull, with credentials that are none of the agent's business.
func caller(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: command(t, "unix:///nowhere.sock", args...)}
	p.cmd.Env = append(s3test.Clean(p.cmd.Env), "AWS_ACCESS_KEY_ID=AKCALLER", "AWS_SECRET_ACCESS_KEY=callers-s3cret", "AWS_SESSION_TOKEN=callers-session")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.launch()
	<-p.exited
	return p
}

func (p *process) exits(t *testing.T, code int, says ...string) {
	t.Helper()
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%s: exit code %d, want %d\n%s%s", p.cmd.Args, got, code, p.stdout.String(), p.stderr.String())
	}
	for _, text := range says {
		if all := p.stdout.String() + p.stderr.String(); !regexp.MustCompile(text).MatchString(all) {
			t.Errorf("%s does not say %s:\n%s", p.cmd.Args, text, all)
		}
	}
}

// TestAgentPull: an agent pulls out of a bucket that only it can read, for who has a token;
// the caller's credentials do not leave it, and exit codes are as if it had pulled itself.
func TestAgentPull(t *testing.T) {
	e := enginetest.For(t)
	server := s3test.For(t)
	remote := "s3://" + server.Bucket(t) + "/images?endpoint=" + server.Endpoint
	const ref = "agent/pull:1"
	img := wordsImage(ref, []string{"agent-pull-base", "agent-pull-top"})
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	own := append(server.Environment(), "AGENT=1")
	push := &process{t: t, cmd: command(t, e.Host, "push", remote, ref)}
	push.cmd.Env = append(push.cmd.Env, server.Environment()...)
	push.cmd.Stdout, push.cmd.Stderr = &push.stdout, &push.stderr
	push.launch()
	push.mustSucceed()
	remove := func() {
		t.Helper()
		if _, err := e.Docker(t.Context(), nil, "rmi", ref); err != nil {
			t.Fatal(err)
		}
	}
	there := func() {
		t.Helper()
		saved, err := e.Saved(t.Context(), ref)
		if err == nil {
			err = saved.Check(img)
		}
		if err != nil {
			t.Error(err)
		}
	}
	remove()

	login := loginFlags(t)
	tokens := []string{"--tokens", login[len(login)-1]}
	allow := append(tokens, "--remote", "prod="+remote, "--allow-image", "agent/*")
	p, address := startAgent(t, e, own, allow...)
	wire := tap(t, "tcp", address)
	config := agentConfig(t, robotToken, "")
	via := func(port string, args ...string) []string {
		return append([]string{"pull", "--config-file", config, "--engine", "tcp://127.0.0.1:1", "--agent-port", port}, args...)
	}
	caller(t, via(wire.port, "--via-agent", "require", "prod", ref)...).exits(t, 0, `(?m)^ENGINE +STATUS +VIA `, `(?m)^tcp://127.0.0.1:1 +done +agent +[0-9a-f]{12} `)
	there()
	for _, secret := range []string{"AKCALLER", "callers-s3cret", "callers-session", "AWS"} {
		if strings.Contains(wire.said(), secret) {
			t.Errorf("the agent is sent %s:\n%s", secret, wire.said())
		}
	}
	if !strings.Contains(wire.said(), robotToken) || !strings.Contains(wire.said(), `"remote":"prod"`) {
		t.Errorf("the wire was not seen: %s", wire.said())
	}
	// By its URL, and as JSON.
	remove()
	asked := caller(t, via(wire.port, "--via-agent", "require", remote, ref, "--json")...)
	asked.exits(t, 0)
	var said struct {
		Engines []struct{ Via, Status string }
	}
	if err := json.Unmarshal([]byte(asked.stdout.String()), &said); err != nil || len(said.Engines) != 1 || said.Engines[0].Via != "agent" || said.Engines[0].Status != "done" {
		t.Errorf("as JSON: %v, %s", err, asked.stdout.String())
	}
	there()

	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a tag that is not there": {[]string{"prod", "agent/pull:2"}, 3, `the agent at 127.0.0.1:\d+: no image agent/pull:2 in prod\n`},
		"another image":           {[]string{"prod", "other:1"}, 4, "may not pull the image other:1"},
		"another name":            {[]string{"prod", ref, "--as", "nginx:1"}, 4, "may not pull the image nginx:1"},
		"another remote":          {[]string{"/etc", ref}, 4, "may not pull from the remote"},
		"an unknown name":         {[]string{"test", ref}, 4, "may not pull from the remote"},
		"another bucket":          {[]string{"s3://other/images", ref}, 4, "may not pull from the remote"},
		"another server":          {[]string{strings.Replace(remote, "endpoint=", "endpoint=http://127.0.0.1:1/?x=", 1), ref}, -1, ""},
	} {
		asked := caller(t, via(wire.port, append([]string{"--via-agent", "require"}, c.args...)...)...)
		if c.code > 0 {
			asked.exits(t, c.code, c.says)
		} else if asked.cmd.ProcessState.Success() {
			t.Errorf("%s: it succeeds", name)
		}
	}
	config = agentConfig(t, "another-token", "")
	caller(t, via(wire.port, "--via-agent", "require", "prod", ref)...).exits(t, 4, "does not know this token")

	for path, code := range map[string]int{"/healthz": 200, "/v1/status": 401, "/metrics": 200, "/v2/": 401} {
		res, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != code || path == "/metrics" && !strings.Contains(string(content), `dogestry_agent_pulls_total{result="done"} 2`+"\n") {
			t.Errorf("%s: %d %s", path, res.StatusCode, content)
		}
	}
	if told := p.stdout.String() + p.stderr.String(); strings.Contains(told, robotToken) || strings.Contains(told, server.SecretKey) || !strings.Contains(told, "user=robot") {
		t.Errorf("the agent tells\n%s", told)
	}
	p.end(syscall.SIGTERM, 0, "")
}

// TestAgentTLS: beyond this machine, and wherever an authority is named, TLS is spoken; who is not known gets no token.
func TestAgentTLS(t *testing.T) {
	e := enginetest.For(t)
	remote := filepath.Join(t.TempDir(), "remote")
	const ref = "agent/tls:1"
	if err := e.LoadImage(t.Context(), wordsImage(ref, []string{"agent-tls"})); err != nil {
		t.Fatal(err)
	}
	run(t, e.Host, "push", remote, ref)
	encrypt, certs := tlsFlags(t)
	_, others := tlsFlags(t)
	login := loginFlags(t)
	_, address := startAgent(t, e, nil, append(encrypt, "--tokens", login[len(login)-1], "--remote", remote, "--allow-image", "**")...)
	_, port, _ := net.SplitHostPort(address)
	pull := func(ca string, args ...string) *process {
		return caller(t, append([]string{"pull", "--config-file", agentConfig(t, robotToken, ca), "--agent-port", port, remote, ref}, args...)...)
	}
	pull(filepath.Join(certs, "ca.crt"), "--engine", "tcp://127.0.0.1:1", "--via-agent", "require").exits(t, 0, "done +agent")
	pull(filepath.Join(others, "ca.crt"), "--engine", "tcp://127.0.0.1:1", "--via-agent", "require").exits(t, 4, "is not known")

	// Where none is known, or lets us in, the engine is fed from here; that is auto, and the default with a token.
	_, socket, _ := strings.Cut(e.Host, "://")
	engine := "tcp://127.0.0.1:" + tap(t, "unix", socket).port
	pull(filepath.Join(certs, "ca.crt"), "--engine", engine).exits(t, 0, "done +agent")
	pull(filepath.Join(others, "ca.crt"), "--engine", engine).exits(t, 0, "done +here", "not by an agent: the agent at 127.0.0.1:\\d+ is not known")
	pull(filepath.Join(others, "ca.crt"), "--engine", engine, "--via-agent", "off").exits(t, 0, "(?m)^"+ref+" sha256:")
	refused := filepath.Join(t.TempDir(), "refused")
	run(t, e.Host, "push", refused, ref)
	caller(t, "pull", "--config-file", agentConfig(t, robotToken, filepath.Join(certs, "ca.crt")), "--agent-port", port, refused, ref, "--engine", engine).
		exits(t, 0, "done +here", "not by its agent: .* may not pull from the remote")
}

// TestAgentFollow: what a tag moves to is in the engine soon, and the command is run once for
// each move, also when the agent was killed and started again.
func TestAgentFollow(t *testing.T) {
	e := enginetest.For(t)
	dir := t.TempDir()
	remote, state, ran := filepath.Join(dir, "remote"), filepath.Join(dir, "state"), filepath.Join(dir, "ran")
	const live = "agent/follow:live"
	var ids []string
	move := func(n string) {
		t.Helper()
		ref := "agent/follow:" + n
		if err := e.LoadImage(t.Context(), wordsImage(ref, []string{"agent-follow-base", ref})); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, inspectID(t, e, ref))
		run(t, e.Host, "push", remote, ref, "--as", live)
		if _, err := e.Docker(t.Context(), nil, "rmi", ref); err != nil {
			t.Fatal(err)
		}
	}
	move("1")
	flags := []string{"--follow", remote, live, "--interval", "20ms", "--state-dir", state, "--run", `sh -c 'echo "$DOGESTRY_IMAGE $DOGESTRY_IMAGE_ID" >>` + ran + `'`}
	p, _ := startAgent(t, e, nil, flags...)
	handled := func() {
		t.Helper()
		p.until("the command has run", func() bool {
			content, err := os.ReadFile(ran)
			return err == nil && strings.Count(string(content), "\n") >= len(ids)
		})
		want := ""
		for _, id := range ids {
			want += live + " " + id + "\n"
		}
		if content, err := os.ReadFile(ran); err != nil || string(content) != want {
			t.Errorf("the command was run for\n%s, want\n%s", content, want)
		}
		if id, ok, err := e.ImageID(t.Context(), live); err != nil || !ok || id != ids[len(ids)-1] {
			t.Errorf("%s is %s, %v, %v", live, id, ok, err)
		}
	}
	handled()
	move("2")
	handled()
	recorded := func() bool {
		found := files(t, state)
		if len(found) != 1 {
			return false
		}
		content, err := os.ReadFile(found[0])
		return err == nil && strings.Contains(string(content), `"handled":"`) && strings.Contains(string(content), ids[len(ids)-1])
	}
	p.until("it is written down", recorded)
	_ = p.cmd.Process.Kill()
	<-p.exited
	if _, err := e.Docker(t.Context(), nil, "rmi", live); err != nil { // it comes back, and nothing is run
		t.Fatal(err)
	}
	p, address := startAgent(t, e, nil, flags...)
	p.until("the image is back", func() bool { _, ok, err := e.ImageID(t.Context(), live); return ok && err == nil })
	handled()
	move("3")
	handled()
	p.until("it is written down", recorded)
	res, err := http.Get("http://" + address + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var said struct {
		Follows []struct{ Image, ID, Handled, Named, Error string }
	}
	if err := json.NewDecoder(res.Body).Decode(&said); err != nil || len(said.Follows) != 1 || said.Follows[0].ID != ids[2] || said.Follows[0].Handled != said.Follows[0].Named || said.Follows[0].Error != "" {
		t.Errorf("its status is %+v, %v", said, err)
	}
	p.end(syscall.SIGTERM, 0, "")
}
