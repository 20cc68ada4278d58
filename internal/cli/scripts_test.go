package cli

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
	"github.com/dogestry/dogestry/internal/storage/web/webtest"
)

// every is for `make test-engines`, which has time.
var every = flag.Bool("every", false, "TestScripts runs all that is not about remotes on each kind of engine, and so do the tests of signals")

var update = flag.Bool("update", false, "write what the commands print into the golden files of the scripts")

// raceOptions keep the race detector, where it is on, from a pause of a second
// at the end of each process. It still makes the exit code 66 where it finds something.
const raceOptions = "atexit_sleep_ms=0"

// suite is the tests of this package, and stops the engine behind them.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	if err := enginetest.StopAll(); err != nil {
		fmt.Fprintln(os.Stderr, "enginetest:", err)
		code = max(code, 1)
	}
	return code
}

// TestMain makes this test binary the commands dogestry and nobody as well, which
// the scripts and the tests of signals start as processes.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"dogestry": func() { // SYSTEM_CONFIG stands for the administrator's file
			os.Exit(mainWith(os.Args[1:], os.Stdout, os.Stderr, os.Getenv("SYSTEM_CONFIG")))
		},
		"docker-dogestry": func() { // as a plugin of docker's
			os.Exit(mainWith(os.Args[1:], os.Stdout, os.Stderr, os.Getenv("SYSTEM_CONFIG")))
		},
		"nobody": func() { // dogestry, without root's rights
			if err := becomeNobody(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(99)
			}
			os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs testdata/script. Besides testscript's own commands scripts have
//
//	dogestry ARGS…            the program; exit code 0, or with "!" any other
//	exits CODE COMMAND…       a command that exits with this very code
//	image NAME LAYER…         brings an image into the engine with one layer for each word; the same word is the same layer
//	trouble NAME              brings one of enginetest.Trouble into the engine
//	hostile NAME              brings an image whose config is full of control characters
//	golden VERSION DIR        a copy of the golden repository of that version of the format
//	docker ARGS…              the docker command on the engine
//	context NAME URL          a docker context of that name, for an engine
//	json                      stdout must be one JSON document; replaces in it what differs from run to run
//	flip FILE                 damages the byte in the middle
//	readonly DIR              mounts DIR read-only [root]
//	bucket NAME               makes a bucket on a real S3 server: $NAME is its name, $ENDPOINT where it is, and
//	                          $AWS_ACCESS_KEY_ID and so on are for its owner; rclone, which starts in a tenth of the
//	                          time of aws, calls it s:$NAME
//	registry NAME [basic]     a stock registry that is empty: $NAME is its host and port; basic asks for the
//	                          password "a secret of tests" of the user dogestry
//	sshd NAME [HOME]          a host behind ssh: $NAME is what the script's ssh calls it; ~ there is HOME
//	nginx NAME DIR [OPTION…]  a web server that publishes the directory: $NAME is its host and port, ${NAME}_CA a file with its
//	                          authority; lists lets it give lists, basic asks for the password of the user dogestry
//	rsyncd NAME               a real rsync server of served/: $NAME is its host and port (rsyncdCommand)
//	policy NAME BUCKET        sets a policy of docs/s3.md: for a new user, who is then in $AWS_ACCESS_KEY_ID and so on,
//	                          or for everybody, if the NAME begins with "public "
//
// They run in parallel on each kind of engine, so images and layers have names that no
// other script uses. Those in testdata/script/remote are about remotes and not about
// engines: they run on the first kind alone. So do those in testdata/script/any, but
// with -every: any engine does for them. -update writes golden files anew.
func TestScripts(t *testing.T) {
	patterns := []string{"testdata/script/*.txtar", "testdata/script/any/*.txtar", "testdata/script/remote/*.txtar"}
	others := 1
	if *every {
		others = 2
	}
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) {
		testScripts(t, e, patterns)
		patterns = patterns[:others]
	})
}

func testScripts(t *testing.T, engine *enginetest.Engine, patterns []string) {
	var scripts []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no scripts like %s: %v", pattern, err)
		}
		scripts = append(scripts, found...)
	}
	testscript.Run(t, testscript.Params{
		Files:              scripts,
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("DOCKER_HOST", engine.Host)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("SYSTEM_CONFIG", filepath.Join(env.WorkDir, ".etc", "config.yaml"))
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			env.Setenv("GORACE", raceOptions)
			env.Setenv("TERM", "xterm") // so that nothing but the pipe keeps bars away
			// Scripts run dogestry as nobody, too.
			return errors.Join(os.Chmod(filepath.Dir(env.WorkDir), 0o755), os.Chmod(env.WorkDir, 0o755))
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"image":    loads(t.Context(), engine, wordsImage),
			"trouble":  loads(t.Context(), engine, func(name string, _ []string) *enginetest.Image { return enginetest.TroubleNamed(name).Image }),
			"hostile":  loads(t.Context(), engine, func(name string, _ []string) *enginetest.Image { return hostileImage(name) }),
			"golden":   golden,
			"docker":   dockerCommand(t.Context(), engine),
			"context":  dockerContext,
			"json":     oneDocument,
			"flip":     flip,
			"readonly": readOnly,
			"bucket":   bucketCommand(s3test.For(t)),
			"registry": registryCommand(t),
			"sshd":     sshdCommand(t),
			"nginx":    nginxCommand(t),
			"rsyncd":   rsyncdCommand(t),
			"policy":   policyCommand(t.Context(), s3test.For(t)),
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if c := control(ts.ReadFile(stream)); c != "" {
			ts.Fatalf("%s has the control character %s", stream, c)
		}
	}
}

// control returns the first control character in s that may do something to a
// terminal, quoted, or "".
func control(s string) string {
	for _, r := range s {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e') {
			return strconv.QuoteRune(r)
		}
	}
	return ""
}

// loads makes the command that brings an image into the engine: NAME WORD….
func loads(ctx context.Context, e *enginetest.Engine, make func(name string, words []string) *enginetest.Image) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("the name of an image is missing")
		}
		m := make(args[0], args[1:])
		ts.Check(e.LoadImage(ctx, m))
	}
}

func wordsImage(name string, words []string) *enginetest.Image {
	m := enginetest.NewImage().Tag(name)
	for _, w := range words {
		m.Layer(enginetest.File(w, 0o644, strings.Repeat(w+"\n", 10_000)))
	}
	return m
}

func hostileImage(name string) *enginetest.Image {
	return wordsImage(name, []string{name}).EditConfig(func(config []byte) []byte {
		const attack = `\u001b]0;owned\u0007\u001b[2J\u009b31m\u007f\u202e\r\nhostile/row   1\tx`
		config = []byte(strings.Replace(string(config), `"architecture":"`, `"variant":"`+attack+`","architecture":"`, 1))
		return []byte(strings.Replace(string(config), `"Env":[`, `"Labels":{"`+attack+`":"`+attack+`"},"Env":["A=`+attack+`",`, 1))
	}).Step("RUN \x1b]0;owned\x07 \x1b[2J \u009b31m")
}

func golden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: golden VERSION DIR")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(filepath.Join("..", "..", "testdata", "golden", args[0]))))
}

func dockerCommand(ctx context.Context, e *enginetest.Engine) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		out, err := e.Docker(ctx, nil, args...)
		fmt.Fprintf(ts.Stdout(), "%s", out)
		switch {
		case neg && err == nil:
			ts.Fatalf("docker unexpectedly succeeded")
		case !neg:
			ts.Check(err)
		}
	}
}

// dockerContext writes a context as `docker context create` does.
func dockerContext(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: context NAME URL")
	}
	dir := filepath.Join(ts.Getenv("DOCKER_CONFIG"), "contexts", "meta", fmt.Sprintf("%x", sha256.Sum256([]byte(args[0]))))
	ts.Check(os.MkdirAll(dir, 0o755))
	meta, err := json.Marshal(map[string]any{"Name": args[0], "Metadata": map[string]any{}, "Endpoints": map[string]any{"docker": map[string]any{"Host": args[1]}}})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "meta.json"), meta, 0o600))
}

// volatile is what differs between runs and machines in JSON output.
var volatile = []struct {
	pattern *regexp.Regexp
	becomes string
}{
	{regexp.MustCompile(`("seconds": )[0-9.e-]+`), `${1}0`},
	{regexp.MustCompile(`("written": )"20[0-9T:.-]+Z"`), `${1}"then"`},
	{regexp.MustCompile(`("stored": )[1-9][0-9]*`), `${1}1`},
	{regexp.MustCompile(`s3://test-[a-z0-9]+`), `s3://bucket`},
	{regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`), `http://server`},
	{regexp.MustCompile(`("go": )"go[^"]*"`), `${1}"go1"`},
	{regexp.MustCompile(`"` + runtime.GOOS + `/` + runtime.GOARCH + `"`), `"linux/arch"`},
}

var digests = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

func oneDocument(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: json")
	}
	text, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	d := json.NewDecoder(strings.NewReader(text))
	var document any
	if err := d.Decode(&document); err != nil {
		ts.Fatalf("stdout is not JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		ts.Fatalf("stdout is more than one JSON document")
	}
	text = strings.ReplaceAll(text, ts.Getenv("WORK"), "$WORK")
	text = strings.ReplaceAll(text, ts.Getenv("DOCKER_HOST"), "$DOCKER_HOST")
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.becomes)
	}
	// Digests get a number each: which are equal is part of the result, which they are is not.
	numbers := map[string]string{}
	text = digests.ReplaceAllStringFunc(text, func(d string) string {
		if numbers[d] == "" {
			numbers[d] = fmt.Sprintf("<%d>", len(numbers)+1)
		}
		return numbers[d]
	})
	fmt.Fprint(ts.Stdout(), text)
	fmt.Fprint(ts.Stderr(), stderr)
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	content[len(content)/2] ^= 0xff
	ts.Check(os.WriteFile(path, content, 0o644))
}

func bucketCommand(server *s3test.Server) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: bucket NAME")
		}
		bucket, err := server.NewBucket()
		ts.Check(err)
		ts.Setenv(args[0], bucket)
		ts.Setenv("ENDPOINT", server.Endpoint)
		for _, v := range server.Environment() {
			name, value, _ := strings.Cut(v, "=")
			ts.Setenv(name, value)
		}
		for name, value := range map[string]string{"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": server.Endpoint} {
			ts.Setenv("RCLONE_CONFIG_S_"+name, value)
		}
	}
}

// registryCommand starts registries, which end with the test.
func registryCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		basic := len(args) == 2 && args[1] == "basic"
		if neg || len(args) != 1 && !basic {
			ts.Fatalf("usage: registry NAME [basic]")
		}
		ts.Setenv(args[0], registrytest.Start(t, registrytest.Options{Basic: basic}).Host)
	}
}

func sshdCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 || len(args) > 2 {
			ts.Fatalf("usage: sshd NAME [HOME]")
		}
		var o sshtest.Options
		if len(args) == 2 {
			o.Home = ts.MkAbs(args[1])
		}
		client := sshtest.NewClient(t)
		ts.Setenv(args[0], client.Start(t, o).Name)
		ts.Setenv("PATH", client.Bin()+string(os.PathListSeparator)+ts.Getenv("PATH"))
	}
}

func nginxCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: nginx NAME DIR [lists] [basic]")
		}
		server := webtest.Start(t, ts.MkAbs(args[1]), webtest.Options{Lists: slices.Contains(args[2:], "lists"), Basic: slices.Contains(args[2:], "basic")})
		ts.Setenv(args[0], server.Host)
		ts.Setenv(args[0]+"_CA", server.CAFile)
	}
}

func policyCommand(ctx context.Context, server *s3test.Server) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: policy NAME BUCKET")
		}
		name, public := strings.CutPrefix(args[0], "public ")
		policy, err := s3test.ReadPolicy(name)
		ts.Check(err)
		if public {
			ts.Check(server.PutPolicy(ctx, args[1], policy.Public(args[1])))
			return
		}
		user, err := server.NewAccount(ctx)
		ts.Check(err)
		ts.Check(server.PutPolicy(ctx, args[1], policy.For(args[1], user, -1)))
		ts.Setenv("AWS_ACCESS_KEY_ID", user.AccessKey)
		ts.Setenv("AWS_SECRET_ACCESS_KEY", user.SecretKey)
	}
}

func readOnly(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: readonly DIR")
	}
	undo, err := mountReadOnly(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(undo)
}
