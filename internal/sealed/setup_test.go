package sealed

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func setup(t *testing.T, registry string, mirrors ...string) Setup {
	t.Helper()
	r, err := url.Parse(registry)
	if err != nil {
		t.Fatal(err)
	}
	return Setup{Registry: *r, Proxy: url.URL{Scheme: "http", Host: "127.0.0.1:3128"}, Mirrors: mirrors}
}

// TestMissing: what is told is in force; each piece that is not, and each way
// around, is found.
func TestMissing(t *testing.T) {
	const registry, proxy = "http://127.0.0.1:5000", "http://127.0.0.1:3128"
	good := State{[]string{registry + "/"}, proxy, proxy, "localhost,127.0.0.0/8,::1"}
	for name, test := range map[string]struct {
		edit func(*State)
		says []string
	}{
		"all":              {func(*State) {}, nil},
		"more mirrors":     {func(s *State) { s.Mirrors = []string{"https://other.example/", registry} }, nil},
		"no no-proxy":      {func(s *State) { s.NoProxy = "" }, nil},
		"spaces, the port": {func(s *State) { s.NoProxy = " 127.0.0.1, [::1],127.0.0.1:5000 " }, nil},
		"nothing":          {func(s *State) { *s = State{} }, []string{"registry-mirrors", "(http-proxy)", "(https-proxy)"}},
		"another mirror":   {func(s *State) { s.Mirrors = []string{"http://127.0.0.1:5001"} }, []string{"registry-mirrors"}},
		"mirror with TLS":  {func(s *State) { s.Mirrors = []string{"https://127.0.0.1:5000"} }, []string{"registry-mirrors"}},
		"another proxy":    {func(s *State) { s.HTTPSProxy = "http://proxy.example:3128" }, []string{"HTTPS does not go by way of " + proxy}},
		"a way around":     {func(s *State) { s.NoProxy += ",.example.com" }, []string{`".example.com" is reached without`}},
		"all ways":         {func(s *State) { s.NoProxy = "*" }, []string{`"*" is reached without`}},
		"nets":             {func(s *State) { s.NoProxy = "10.0.0.0/8,0.0.0.0/0,127.0.0.0/7,::/0" }, []string{`"10.0.0.0/8"`, `"0.0.0.0/0"`, `"127.0.0.0/7"`, `"::/0"`}},
	} {
		now := good
		test.edit(&now)
		got := setup(t, registry, DockerHub).Missing(now)
		if len(got) != len(test.says) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, says := range test.says {
			if !strings.Contains(got[i], says) {
				t.Errorf("%s: %q, want %q", name, got[i], says)
			}
		}
	}
}

// TestFiles: they say what Missing asks for, and are what engines can read.
func TestFiles(t *testing.T) {
	s := setup(t, "http://images.lan:5000", DockerHub, "quay.io")
	files := s.Files()
	var d struct {
		Mirrors  []string `json:"registry-mirrors"`
		Insecure []string `json:"insecure-registries"`
		Proxies  map[string]string
	}
	if err := json.Unmarshal([]byte(files[0].Content), &d); err != nil {
		t.Fatal(err)
	}
	if missing := s.Missing(State{d.Mirrors, d.Proxies["http-proxy"], d.Proxies["https-proxy"], d.Proxies["no-proxy"]}); len(missing) > 0 || !slices.Equal(d.Insecure, []string{"images.lan:5000"}) {
		t.Errorf("%s\n%q", files[0].Content, missing)
	}
	if strings.Contains(files[1].Content, "proxies") || !strings.Contains(files[2].Content, `"HTTPS_PROXY=http://127.0.0.1:3128" "NO_PROXY=localhost,127.0.0.0/8,::1,images.lan"`) {
		t.Errorf("before 23:\n%s%s", files[1].Content, files[2].Content)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
		if f.Content == "" || !strings.HasSuffix(f.Content, "\n") || f.For == "" {
			t.Errorf("%+v", f)
		}
	}
	for _, want := range []string{"/etc/containerd/certs.d/quay.io/hosts.toml", "/etc/containers/registries.conf.d/dogestry-sealed.conf"} {
		if !slices.Contains(paths, want) {
			t.Errorf("%q lack %s", paths, want)
		}
	}
	if strings.Contains(setup(t, "http://127.0.0.1:5000", DockerHub).Files()[0].Content, "insecure") {
		t.Error("loopback needs no exception")
	}
	if strings.Contains(setup(t, "http://127.0.0.1:5000", "quay.io").Files()[0].Content, "mirrors") {
		t.Error("docker knows no mirrors of quay.io")
	}
}
