package ssh

import (
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]string{
		"ssh://host/srv/images":           "ssh://host/srv/images",
		"ssh://user@host:2222/srv/images": "ssh://user@host:2222/srv/images",
		"ssh://host//srv//images/":        "ssh://host/srv/images",
		"ssh://host/srv/../x":             "ssh://host/x",
		"ssh://host/~/images":             "ssh://host/~/images",
		"ssh://host/~":                    "ssh://host/~",
		"ssh://host/~/":                   "ssh://host/~",
		"ssh://[::1]/x":                   "ssh://[::1]/x",
		"ssh://u@[::1]:22/x":              "ssh://u@[::1]:22/x",
		"ssh://my_alias-1/x":              "ssh://my_alias-1/x",
		"ssh://a.b+c@host/x":              "ssh://a.b+c@host/x",
		"ssh://host/with%20space":         "ssh://host/with space",

		"ssh://host":                      "",
		"ssh://host/":                     "",
		"ssh://host/..":                   "",
		"ssh://host/~/..":                 "",
		"ssh://host/~/../x":               "",
		"ssh://host/~other/x":             "",
		"ssh://-oProxyCommand=x/x":        "",
		"ssh://-x@host/x":                 "",
		"ssh://%2doProxyCommand=x@host/x": "",
		"ssh://a%20b@host/x":              "",
		"ssh://a%3bb@host/x":              "",
		"ssh://@host/x":                   "",
		"ssh://ho%20st/x":                 "",
		"ssh://$(x)/x":                    "",
		"ssh://[::1%25eth0]/x":            "",
		"ssh://user:geheim@host/x":        "",
		"ssh://:geheim@host/x":            "",
		"ssh://host:0/x":                  "",
		"ssh://host:70000/x":              "",
		"ssh://host/x?identity=geheim":    "",
		"ssh://host/x?":                   "",
		"ssh://host/x#geheim":             "",
		"ssh://host/a%0ab":                "",
		"ssh:host/x":                      "",
		"ssh:///x":                        "",
		"sftp://host/x":                   "",
	} {
		o, err := Parse(name)
		if want == "" {
			if !fault.Is(err, fault.Usage) || strings.Contains(err.Error()+fault.AdviceOf(err), "geheim") {
				t.Errorf("%s: %+v, %v", name, o, err)
			}
			continue
		}
		if err != nil || o.url() != want {
			t.Errorf("%s: %q, %v", name, o.url(), err)
		}
	}
	a, _ := Parse("ssh://Host/srv//images/")
	b, _ := Parse("ssh://host/srv/images")
	if c, _ := Parse("ssh://host/~/srv/images"); a.Canonical() != b.Canonical() || a.Canonical() == c.Canonical() {
		t.Errorf("%q, %q, %q", a.Canonical(), b.Canonical(), c.Canonical())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ssh://user@host:22/srv/images")
	f.Add("ssh://-oProxyCommand=x/~/x")
	f.Fuzz(func(t *testing.T, name string) {
		o, err := Parse(name)
		if err != nil {
			return
		}
		if strings.HasPrefix(o.Host, "-") || strings.HasPrefix(o.User, "-") || o.Dir == "" || o.Dir == "/" || strings.ContainsAny(o.Host+o.User, " ;|$`'\"\n\x00") {
			t.Errorf("%q: %+v", name, o)
		}
		args := o.args()
		if i := slices.Index(args, "--"); i < 0 || len(args) != i+3 || args[i+1] != o.Host {
			t.Errorf("%q: %q", name, args)
		}
	})
}

// TestArgs: nobody waits for an answer to a question that nobody sees, and a wire that is cut is
// noticed.
func TestArgs(t *testing.T) {
	o, err := Parse("ssh://user@host:2222/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, ask := range []bool{false, true} {
		o.Ask = ask
		args := strings.Join(o.args(), " ")
		for want, there := range map[string]bool{
			"BatchMode=yes": !ask, "ServerAliveInterval=": true, "ConnectTimeout=": true, "ForwardAgent=no": true, "-l user -p 2222 -s -- host sftp": true,
		} {
			if strings.Contains(args, want) != there {
				t.Errorf("ask %t: %s", ask, args)
			}
		}
	}
}
