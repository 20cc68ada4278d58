package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
)

// given writes files and returns them as sources. A "$" in what they say, and in
// what is expected, stands for the directory.
func given(t *testing.T, system, user string, env map[string]string) (s Sources, dir string) {
	t.Helper()
	dir = t.TempDir()
	s = Sources{
		System: filepath.Join(dir, "system.yaml"), User: filepath.Join(dir, "user.yaml"),
		Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
	for name, content := range map[string]string{s.System: system, s.User: user} {
		if content == "" {
			continue
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s, dir
}

// TestPrecedence: the environment overrides the user's file, and that the
// administrator's; but what that demands stays.
func TestPrecedence(t *testing.T) {
	type want struct {
		require     bool
		requireFrom string
		keys        []string
		keysFrom    string
	}
	for name, test := range map[string]struct {
		system, user string
		env          map[string]string
		want
	}{
		"nothing":     {want: want{}},
		"comments":    {system: "# nothing\n", user: "---\n", want: want{}},
		"system":      {system: "require-signature: true\nverify-key: a.pub\n", want: want{true, "$/system.yaml:1", []string{"$/a.pub"}, "$/system.yaml:2"}},
		"user":        {user: "\nverify-key:\n  - /k/a.pub\n  - b.pub\nrequire-signature: true\n", want: want{true, "$/user.yaml:5", []string{"/k/a.pub", "$/b.pub"}, "$/user.yaml:3"}},
		"user's keys": {system: "verify-key: a.pub", user: "verify-key: [b.pub]", want: want{keys: []string{"$/b.pub"}, keysFrom: "$/user.yaml:1"}},
		"none of the user's": {
			system: "verify-key: a.pub", user: "verify-key: []",
			want: want{keys: []string{}, keysFrom: "$/user.yaml:1"},
		},
		"environment": {
			user: "require-signature: true\nverify-key: a.pub", env: map[string]string{"DOGESTRY_REQUIRE_SIGNATURE": "false", "DOGESTRY_VERIFY_KEY": "x.pub:/y.pub"},
			want: want{false, "DOGESTRY_REQUIRE_SIGNATURE", []string{"x.pub", "/y.pub"}, "DOGESTRY_VERIFY_KEY"},
		},
		"empty variables": {
			user: "require-signature: true\nverify-key: a.pub", env: map[string]string{"DOGESTRY_REQUIRE_SIGNATURE": "", "DOGESTRY_VERIFY_KEY": ""},
			want: want{true, "$/user.yaml:1", []string{"$/a.pub"}, "$/user.yaml:2"},
		},
		"a demand stays, with its keys": {
			system: "require-signature: true\nverify-key: a.pub", user: "require-signature: false\nverify-key: b.pub",
			env:  map[string]string{"DOGESTRY_REQUIRE_SIGNATURE": "false", "DOGESTRY_VERIFY_KEY": "x.pub"},
			want: want{true, "$/system.yaml:1", []string{"$/a.pub"}, "$/system.yaml:2"},
		},
		"a demand without keys": {
			system: "require-signature: true", user: "require-signature: false\nverify-key: b.pub",
			want: want{true, "$/system.yaml:1", []string{"$/b.pub"}, "$/user.yaml:2"},
		},
		"what is no demand does not": {
			system: "require-signature: false\nverify-key: a.pub", user: "require-signature: true\nverify-key: b.pub",
			want: want{true, "$/user.yaml:1", []string{"$/b.pub"}, "$/user.yaml:2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := given(t, test.system, test.user, test.env)
			c, err := Load(s)
			if err != nil {
				t.Fatal(err)
			}
			here := func(s string) string { return strings.ReplaceAll(s, "$", dir) }
			for i, k := range test.keys {
				test.keys[i] = here(k)
			}
			if c.RequireSignature != (Setting[bool]{test.require, here(test.requireFrom)}) {
				t.Errorf("require-signature: %+v", c.RequireSignature)
			}
			if diff := cmp.Diff(Setting[[]string]{test.keys, here(test.keysFrom)}, c.VerifyKeys); diff != "" {
				t.Errorf("verify-key (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCache: the environment overrides the user's file, and that the administrator's.
func TestCache(t *testing.T) {
	for name, test := range map[string]struct {
		system, user string
		env          map[string]string
		cache        Setting[string]
		size         Setting[int64]
	}{
		"nothing": {},
		"system":  {system: "cache: kept\ncache-size: 20GB\n", cache: Setting[string]{"$/kept", "$/system.yaml:1"}, size: Setting[int64]{20e9, "$/system.yaml:2"}},
		"user": {
			system: "cache: /var/kept\ncache-size: 20GB\n", user: "cache-size: 1000000\n",
			cache: Setting[string]{"/var/kept", "$/system.yaml:1"}, size: Setting[int64]{1e6, "$/user.yaml:1"},
		},
		"none of the user's": {system: "cache: /var/kept\n", user: "cache: ''\n", cache: Setting[string]{"", "$/user.yaml:1"}},
		"environment": {
			user: "cache: kept\ncache-size: 1GB\n", env: map[string]string{"DOGESTRY_CACHE": "here", "DOGESTRY_CACHE_SIZE": "1.5 MB"},
			cache: Setting[string]{"here", "DOGESTRY_CACHE"}, size: Setting[int64]{1.5e6, "DOGESTRY_CACHE_SIZE"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := given(t, test.system, test.user, test.env)
			c, err := Load(s)
			if err != nil {
				t.Fatal(err)
			}
			here := func(s string) string { return strings.ReplaceAll(s, "$", dir) }
			if want := (Setting[string]{here(test.cache.Value), here(test.cache.From)}); c.Cache != want {
				t.Errorf("cache: %+v, want %+v", c.Cache, want)
			}
			if want := (Setting[int64]{test.size.Value, here(test.size.From)}); c.CacheSize != want {
				t.Errorf("cache-size: %+v, want %+v", c.CacheSize, want)
			}
		})
	}
	s, _ := given(t, "", "", map[string]string{"DOGESTRY_CACHE_SIZE": "much"})
	if _, err := Load(s); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "DOGESTRY_CACHE_SIZE") {
		t.Errorf("a variable: %v", err)
	}
}

// TestMistakes: what a file or a variable says wrong is refused, and told where.
func TestMistakes(t *testing.T) {
	for content, says := range map[string]string{
		"require-signature: true\nrequire-signatures: true\n":      `:2: no setting is called "require-signatures"`,
		"Require-Signature: true\n":                                ":1: no setting",
		"verify-key: a\nrequire-signature: true\nverify-key: b\n":  ":3: verify-key is there twice",
		"require-signature: yes\n":                                 ":1: require-signature is true or false",
		"require-signature: maybe\n":                               ":1: require-signature is true or false",
		"require-signature: \"true\"\n":                            ":1: require-signature is true or false",
		"require-signature:\n":                                     ":1: require-signature is true or false",
		"require-signature: [true]\n":                              ":1: require-signature is true or false",
		"verify-key:\n  - a\n  - 7\n":                              ":3: verify-key is the name of a file",
		"verify-key:\n":                                            ":1: verify-key is the name of a file",
		"verify-key: ''\n":                                         ":1: verify-key is the name of a file",
		"verify-key: {a: b}\n":                                     ":1: verify-key is the name of a file",
		"verify-key: &a [x]\nrequire-signature: *a\n":              ":2: require-signature is true or false",
		"verify-key: &a [*a]\n":                                    ":1: verify-key is the name of a file",
		"- require-signature\n":                                    ":1: settings are expected",
		"require-signature\n":                                      ":1: settings are expected",
		"require-signature: true\n---\nrequire-signature: false\n": "more than one YAML document",
		"require-signature: [\n":                                   "is not YAML: line 1",
		"? [a]\n: b\n":                                             ":1: no setting",
		"<<: {require-signature: true}\n":                          `no setting is called "<<"`,
		"x: y\n#" + strings.Repeat("x", maxFile):                   "is larger than",
		"require-signature: true\n\x00":                            "is not YAML",
		"cache: [a]\n":                                             ":1: cache is the name of a directory",
		"cache: true\n":                                            ":1: cache is the name of a directory",
		"cache:\n":                                                 ":1: cache is the name of a directory",
		"cache: a\ncache-size: much\n":                             ":2: cache-size is a number of bytes",
		"cache-size: 0\n":                                          ":1: cache-size is a number of bytes",
		"cache-size: -1GB\n":                                       ":1: cache-size is a number of bytes",
		"cache-size: 1.5\n":                                        ":1: cache-size is a number of bytes",
		"cache-size: {a: b}\n":                                     ":1: cache-size is a number of bytes",
	} {
		for _, who := range []string{"system", "user"} {
			system, user := content, ""
			if who == "user" {
				system, user = user, system
			}
			s, dir := given(t, system, user, nil)
			_, err := Load(s)
			if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), filepath.Join(dir, who+".yaml")) {
				t.Errorf("%.60q: %v, want %q", content, err, says)
			}
		}
	}
	s, _ := given(t, "", "", map[string]string{"DOGESTRY_REQUIRE_SIGNATURE": "perhaps"})
	if _, err := Load(s); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "DOGESTRY_REQUIRE_SIGNATURE") {
		t.Errorf("a variable: %v", err)
	}
}

// TestUnreadable: a file that cannot be read may demand something.
func TestUnreadable(t *testing.T) {
	s, _ := given(t, "", "", nil)
	if err := os.Mkdir(s.System, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(s); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), s.System) {
		t.Errorf("%v, want a refused fault", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("require-signature: true\nverify-key: [a, b]\n")
	f.Add("&a [*a]")
	f.Fuzz(func(t *testing.T, content string) {
		c := new(Config)
		if err := (&file{"x.yaml", c}).parse([]byte(content)); err == nil && c.RequireSignature.Value && !strings.Contains(content, "require-signature") {
			t.Errorf("%q demands signatures", content)
		}
	})
}

// TestSealed: what the administrator seals stays so, with what that file allows;
// else the last one who says something counts.
func TestSealed(t *testing.T) {
	const lists = "sealed-allow: [sts.example:443]\nsealed-programs: ssh\n"
	for name, test := range map[string]struct {
		system, user string
		env          map[string]string
		want         Config
	}{
		"nothing": {},
		"user": {user: "sealed: true\n" + lists, want: Config{
			Sealed: Setting[bool]{true, "$/user.yaml:1"}, SealedAllow: Setting[[]string]{[]string{"sts.example:443"}, "$/user.yaml:2"}, SealedPrograms: Setting[[]string]{[]string{"ssh"}, "$/user.yaml:3"},
		}},
		"variable": {user: "sealed: true", env: map[string]string{"DOGESTRY_SEALED": "0"}, want: Config{Sealed: Setting[bool]{false, "DOGESTRY_SEALED"}}},
		"lists of the administrator without the seal": {system: lists, user: "sealed: true\nsealed-allow: a:1", want: Config{
			Sealed: Setting[bool]{true, "$/user.yaml:1"}, SealedAllow: Setting[[]string]{[]string{"a:1"}, "$/user.yaml:2"}, SealedPrograms: Setting[[]string]{[]string{"ssh"}, "$/system.yaml:2"},
		}},
		"administrator": {system: "sealed: true\n" + lists, user: "sealed: false\nsealed-allow: [a:1]\nsealed-programs: [curl]", env: map[string]string{"DOGESTRY_SEALED": "false"}, want: Config{
			Sealed: Setting[bool]{true, "$/system.yaml:1"}, SealedStays: true,
			SealedAllow: Setting[[]string]{[]string{"sts.example:443"}, "$/system.yaml:2"}, SealedPrograms: Setting[[]string]{[]string{"ssh"}, "$/system.yaml:3"},
		}},
		"an administrator without lists": {system: "sealed: true", user: lists, want: Config{Sealed: Setting[bool]{true, "$/system.yaml:1"}, SealedStays: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := given(t, test.system, test.user, test.env)
			got, err := Load(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, from := range []*string{&got.Sealed.From, &got.SealedAllow.From, &got.SealedPrograms.From} {
				*from = strings.ReplaceAll(*from, dir, "$")
			}
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for content, says := range map[string]string{
		"sealed: yes\n": ":1: sealed is true or false", "sealed-allow: [a:1, 7]\n": ":1: sealed-allow is a host:port", "sealed-programs: {}\n": ":1: sealed-programs is the name of a program",
	} {
		s, _ := given(t, "", content, nil)
		if _, err := Load(s); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", content, err)
		}
	}
	s, _ := given(t, "", "", map[string]string{"DOGESTRY_SEALED": "perhaps"})
	if _, err := Load(s); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
}
