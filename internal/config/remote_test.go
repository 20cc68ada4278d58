package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
)

// TestWith: what is set for a remote goes before what is set for all, variables go
// before both, and what the administrator demands stays.
func TestWith(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	const prod = "remotes:\n  prod:\n    url: s3://bucket/images\n    verify-key: prod.pub\n    require-signature: true\n    cache: ~/kept\n    cache-size: 1GB\n    compression: zstd\n    parallel: 7\n"
	type want struct {
		url, require, keys, cache, compression string // "value from"
		size                                   int64
	}
	for name, test := range map[string]struct {
		system, user string
		env          map[string]string
		want
	}{
		"its own": {user: "compression: lz4\ncache: all\nverify-key: all.pub\n" + prod, want: want{
			"s3://bucket/images", "true $/user.yaml:8", "$/prod.pub $/user.yaml:7", "/home/me/kept", "zstd $/user.yaml:11", 1e9,
		}},
		"of all": {user: "compression: lz4\ncache: all\nverify-key: all.pub\nremotes: {prod: ./images}", want: want{
			"$/images", "false ", "$/all.pub $/user.yaml:3", "$/all", "lz4 $/user.yaml:1", 0,
		}},
		"variables": {user: prod, env: map[string]string{
			"DOGESTRY_COMPRESSION": "none", "DOGESTRY_CACHE": "~/here", "DOGESTRY_CACHE_SIZE": "2GB", "DOGESTRY_VERIFY_KEY": "env.pub", "DOGESTRY_REQUIRE_SIGNATURE": "false",
		}, want: want{
			"s3://bucket/images", "false DOGESTRY_REQUIRE_SIGNATURE", "env.pub DOGESTRY_VERIFY_KEY", "/home/me/here", "none DOGESTRY_COMPRESSION", 2e9,
		}},
		"a name of the environment": {user: prod, env: map[string]string{"DOGESTRY_REMOTES": "a=/b  prod=https://c/d"}, want: want{
			"https://c/d", "false ", " ", "", " ", 0,
		}},
		"a demand for all": {system: "require-signature: true\nverify-key: all.pub\n", user: prod, want: want{
			"s3://bucket/images", "true $/system.yaml:1", "$/all.pub $/system.yaml:2", "/home/me/kept", "zstd $/user.yaml:8", 1e9,
		}},
		"a demand for one": {system: prod, user: "remotes: {prod: {url: /mine, verify-key: mine.pub, require-signature: false}}", env: map[string]string{
			"DOGESTRY_VERIFY_KEY": "env.pub", "DOGESTRY_REQUIRE_SIGNATURE": "false",
		}, want: want{"/mine", "true $/system.yaml:5", "$/prod.pub $/system.yaml:4", "", " ", 0}},
		"a demand for all, keys of one": {system: "require-signature: true\nremotes: {prod: {url: /p, verify-key: /prod.pub}}", user: "verify-key: mine.pub\nremotes: {prod: {url: /q, verify-key: mine.pub}}", want: want{
			"/q", "true $/system.yaml:1", "/prod.pub $/system.yaml:2", "", " ", 0,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := given(t, test.system, test.user, test.env)
			c, err := Load(s)
			if err != nil {
				t.Fatal(err)
			}
			url := c.Remotes["prod"].URL.Value
			c = c.With("prod")
			require := "false "
			if c.RequireSignature.Value {
				require = "true "
			}
			got := want{
				url, require + c.RequireSignature.From, strings.Join(c.VerifyKeys.Value, " ") + " " + c.VerifyKeys.From, c.Cache.Value,
				c.Flags["compression"].Value + " " + c.Flags["compression"].From, c.CacheSize.Value,
			}
			here := func(s string) string { return strings.ReplaceAll(s, dir, "$") }
			got = want{here(got.url), here(got.require), here(got.keys), here(got.cache), here(got.compression), got.size}
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestNamed: groups of engines, from a file and a variable.
func TestNamed(t *testing.T) {
	s, _ := given(t, "engines: {web: ssh://a}", "engines:\n  db: [tcp://b:2376, ssh://c]\nlock-file: l\n", map[string]string{"DOGESTRY_ENGINES": "x=ssh://d,ssh://e web=ssh://f"})
	c, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for name, group := range c.Engines {
		got[name] = group.Value
	}
	if diff := cmp.Diff(map[string][]string{"web": {"ssh://f"}, "db": {"tcp://b:2376", "ssh://c"}, "x": {"ssh://d", "ssh://e"}}, got); diff != "" {
		t.Error(diff)
	}
	if want := filepath.Join(filepath.Dir(s.User), "l"); c.LockFile.Value != want {
		t.Errorf("lock-file %s, want %s", c.LockFile.Value, want)
	}
}

// TestMistakesInNames: they are refused, told where, and no password is shown.
func TestMistakesInNames(t *testing.T) {
	for content, says := range map[string]string{
		"remotes: /x":                                         ":1: remotes are names, each with what it stands for",
		"remotes:\n  prod:\n":                                 ":2: a remote is a URL or the name of a directory",
		"remotes:\n  prod: {compression: lz4}":                ":2: the remote prod lacks its url",
		"remotes:\n  prod: {url: /x, engine: ssh://a}":        `:2: no setting is called "engine"`,
		"remotes:\n  prod: {url: /x, sealed: true}":           `:2: no setting is called "sealed"`,
		"remotes:\n  a/b: /x":                                 `:2: "a/b" is no name`,
		"remotes:\n  engine: /x":                              `:2: "engine" means an engine`,
		"remotes:\n  a: /x\n  a: /y":                          ":3: a is there twice",
		"remotes:\n  a: s3://me:secret@bucket/x":              ":2: a remote's URL (s3://…) has a password in it",
		"remotes:\n  a: 's3://me:se cret%@bucket/x'":          ":2: a remote's URL (s3://…) has a password in it",
		"remotes:\n  a: s3://me:se/cret@bucket/x":             ":2: a remote's URL (s3://…) has a password in it",
		"remotes:\n  a: registry.example:5000/x":              ":2: \"registry.example:5000/x\" is neither a URL",
		"remotes:\n  a: oci:dir":                              ":2: \"oci:dir\" is neither a URL",
		"remotes:\n  a: {url: /x, parallel: 0}":               ":2: parallel: it is no number of layers",
		"compression: lzma":                                   ":1: compression: it is none of lz4",
		"parallel: many":                                      ":1: parallel: it is no number of layers",
		"parallel: [1]":                                       ":1: parallel is one value",
		"engine: true":                                        ":1: engine is one value",
		"recompress: yes":                                     ":1: recompress: it is neither true nor false",
		"limit-upload: fast":                                  ":1: limit-upload: it is no number of bytes a second",
		"engine: tcp://me:secret@host:2375":                   ":1: engine: the URL of the engine has a password",
		"engine: 'ssh://a,tcp://me:secret@host:2375'":         ":1: engine: the URL of the engine has a password",
		"engines: {web: [ssh://a, 'tcp://me:secret@host:1']}": ":1: an engine of the group web has a password",
		"engines: {web: []}":                                  ":1: the group web has no engines",
		"engines: {web: {a: b}}":                              ":1: engines: web is the URL of an engine",
		"lock-file: 7":                                        ":1: lock-file is the name of a file",
	} {
		s, dir := given(t, "", content, nil)
		_, err := Load(s)
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), filepath.Join(dir, "user.yaml")) {
			t.Errorf("%q: %v, want %q", content, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "cret") {
			t.Errorf("it shows the password: %v", err)
		}
	}
	for _, set := range []string{
		"DOGESTRY_REMOTES=prod", "DOGESTRY_PARALLEL=0", "DOGESTRY_ENGINES=web=tcp://me:secret@a:1", "DOGESTRY_COMPRESSION=lzma", "DOGESTRY_ENGINE=tcp://me:secret@a:1",
		"DOGESTRY_REMOTES=a=s3://b c=http://me:secret@d/", "DOGESTRY_REMOTES=http://me:secret@d/?a=b", "DOGESTRY_REMOTES=a=s3://me:se/secret@b", "DOGESTRY_ENGINES=web=ssh://a,tcp://me:secret@b:1",
	} {
		variable, value, _ := strings.Cut(set, "=")
		s, _ := given(t, "", "", map[string]string{variable: value})
		if _, err := Load(s); !fault.Is(err, fault.Usage) || !strings.HasPrefix(err.Error(), variable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s=%s: %v", variable, value, err)
		}
	}
}

// TestNoPassword: a port, and an @ in a path, are none.
func TestNoPassword(t *testing.T) {
	for _, u := range []string{"registry://host:5000/a@b", "s3://bucket/a:b@c", "https://host:8443/x@2", "ssh://me@host:22/x", "/a:b@c"} {
		if hasPassword(u) {
			t.Errorf("%s has one", u)
		}
	}
}

// TestDidYouMean: a typing error is answered with what is near.
func TestDidYouMean(t *testing.T) {
	for content, advice := range map[string]string{
		"compresion: lz4":                        "Did you mean compression?",
		"remote: {}":                             "Did you mean remotes?",
		"verify-keys: a":                         "Did you mean verify-key?",
		"remotes: {a: {url: /x, cahce-size: 1}}": "Did you mean cache-size?",
		"colour: red":                            "There are agent-ca, agent-token-file, cache, cache-size, compression, delta, engine, engines, ",
	} {
		s, _ := given(t, "", content, nil)
		if _, err := Load(s); !strings.HasPrefix(fault.AdviceOf(err), advice) {
			t.Errorf("%q: %q", content, fault.AdviceOf(err))
		}
	}
}

// TestNamedFile: a file that the user has named has to be there.
func TestNamedFile(t *testing.T) {
	s, _ := given(t, "", "", nil)
	s.UserNamed = true
	if _, err := Load(s); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), s.User) {
		t.Error(err)
	}
}

// TestEdit: what is not changed stays, comments and order too, and permissions; what
// would not be understood is not written.
func TestEdit(t *testing.T) {
	const before = `# of mine
parallel: 3 # few
# names
remotes:
  # the disk
  disk: /srv/images # fast
  prod:
    # in Frankfurt
    url: s3://bucket
require-signature: false
`
	const after = `# of mine
parallel: 3 # few
# names
remotes:
  # the disk
  disk: /srv/other # fast
  new:
    url: ~/images
    compression: zstd
    require-signature: true
    verify-key:
      - a.pub
      - "007"
require-signature: false
`
	dir := t.TempDir()
	name := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(name, []byte(before), 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.yaml")
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	e, err := Open(link)
	if err != nil {
		t.Fatal(err)
	}
	e.Put("disk", "/srv/other", nil)
	e.Put("new", "~/images", map[string][]string{"compression": {"zstd"}, "require-signature": {"true"}, "verify-key": {"a.pub", "007"}})
	if !e.Remove("prod") || e.Remove("prod") {
		t.Error("what is there is removed once")
	}
	if err := e.Write(); err != nil {
		t.Fatal(err)
	}
	expect := func(content string) {
		t.Helper()
		got, err := os.ReadFile(name)
		if diff := cmp.Diff(content, string(got)); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	expect(after)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("permissions: %v %v", info.Mode(), err)
	}

	e, err = Open(name)
	if err != nil {
		t.Fatal(err)
	}
	e.Put("bad", "s3://me:secret@bucket", nil)
	if err := e.Write(); !fault.Is(err, fault.Usage) || strings.Contains(err.Error(), "secret") {
		t.Errorf("written: %v", err)
	}
	expect(after)
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// TestEditFromNothing: a file that is not there, or has comments alone.
func TestEditFromNothing(t *testing.T) {
	for content, want := range map[string]string{
		"":                  "remotes:\n  \"1\": /x\n",
		"# mine\n# alone\n": "# mine\n# alone\n\nremotes:\n  \"1\": /x\n",
		"---\n":             "remotes:\n  \"1\": /x\n",
		"remotes: {}\n":     "remotes:\n  \"1\": /x\n",
	} {
		name := filepath.Join(t.TempDir(), "new", "config.yaml")
		if content != "" {
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		e, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		e.Put("1", "/x", nil)
		if err := e.Write(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("%q becomes %q, %v", content, got, err)
		}
		if !e.Remove("1") {
			t.Error("it is not there")
		}
		if err := e.Write(); err != nil {
			t.Errorf("%q: with nothing left: %v", content, err)
		}
	}
}

// TestEditBehindLinks: what links lead to is made where it is not there yet, and the links stay.
func TestEditBehindLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "files", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"config": filepath.Join("files", "deep"), "files/deep/config.yaml": "../second", "files/second": filepath.Join(dir, "made", "third")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	e, err := Open(filepath.Join(dir, "config", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	e.Put("a", "/x", nil)
	if err := e.Write(); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "made", "third")); string(content) != "remotes:\n  a: /x\n" {
		t.Errorf("%q, %v", content, err)
	}
}

// FuzzEdit: what is put into any file that is understood can be read from it, and the
// rest is as it was.
func FuzzEdit(f *testing.F) {
	f.Add("remotes: {a: /b}\nparallel: 3\n", "/x")
	f.Add("# c\n", "s3://b/c?x=y")
	f.Add("&a remotes: {b: &c /x}\ncompression: 'lz4'\n", "- x")
	f.Fuzz(func(t *testing.T, content, url string) {
		name := filepath.Join(t.TempDir(), "x.yaml")
		before := new(Config)
		if (&file{name, before}).parse([]byte(content)) != nil {
			return
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := remoteURL(url, filepath.Dir(name))
		if err != nil || url == "" {
			return
		}
		e, err := Open(name)
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		e.Put("fuzzed", url, nil)
		if err := e.Write(); err != nil {
			return // and nothing is written
		}
		after := new(Config)
		if err := after.read(name, true); err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		if got := after.Remotes["fuzzed"].URL.Value; got != want {
			t.Errorf("%q is read as %q, want %q", url, got, want)
		}
		if after.Flags["parallel"].Value != before.Flags["parallel"].Value || after.Sealed.Value != before.Sealed.Value {
			t.Errorf("%q has changed", content)
		}
	})
}
