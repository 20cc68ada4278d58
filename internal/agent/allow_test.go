package agent

import (
	"path"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func TestPatterns(t *testing.T) {
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"myapp", []string{"myapp:1", "myapp", "myapp" + digest, "myapp:1" + digest}, []string{"myapp2:1", "team/myapp:1", "host:5000/myapp"}},
		{"myapp:live", []string{"myapp:live"}, []string{"myapp:live2", "myapp", "myapp" + digest, "myapp:live" + digest}},
		{"myapp:live-*", []string{"myapp:live-1", "myapp:live-"}, []string{"myapp:live", "myapp:1"}},
		{"team/*", []string{"team/a:1", "team/b" + digest}, []string{"team/a/b:1", "team2/a:1", "team:1"}},
		{"team/**", []string{"team/a:1", "team/a/b:1"}, []string{"team:1", "team2/a:1", "x/team/a:1"}},
		{"*/**", []string{"team/a:1", "team/a/b:1"}, []string{"team:1"}},
		{"team/a**:live", []string{"team/a:live", "team/ab/c:live"}, []string{"team/b:live", "team/a:1"}},
		{"**", []string{"a:1", "a/b/c:2", "host:5000/a", "a" + digest}, nil},
		{"**:live", []string{"a:live", "a/b/c:live"}, []string{"a:1", "a:live" + digest}},
		{"host:5000/a", []string{"host:5000/a:1"}, []string{"host/a:1", "a:1"}},
		{"*", []string{"a:1"}, []string{"a/b:1"}},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for want, names := range map[bool][]string{true: c.yes, false: c.no} {
			for _, name := range names {
				ref, err := image.ParseReference(name)
				if err != nil {
					t.Fatal(err)
				}
				if got := p.matches(ref); got != want {
					t.Errorf("%s matches %s: %v", c.pattern, name, got)
				}
			}
		}
	}
	for _, bad := range []string{"", ":live", "a:", "a/**/b", "**/a", "[", "a:[", "a@sha256:1", "a b"} {
		if _, err := ParsePattern(bad); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// canonical stands for cli's: directories are cleaned, and a region means nothing.
func canonical(url string) string {
	url, _, _ = strings.Cut(url, "?")
	if strings.HasPrefix(url, "/") {
		return path.Clean(url)
	}
	return url
}

// TestRemotes: what is found is what the administrator wrote, by its name or by all of its URL.
func TestRemotes(t *testing.T) {
	const bucket = "s3://bucket/images?region=eu-central-1"
	a := Allowed{Canonical: canonical, Remotes: []Remote{ParseRemote("prod=" + bucket), ParseRemote("/srv/images")}}
	for asked, want := range map[string]string{
		"prod": bucket, bucket: bucket, "s3://bucket/images": bucket, "s3://bucket/images?region=evil": bucket,
		"/srv/images": "/srv/images", "/srv//images/": "/srv/images", "/srv/other/../images": "/srv/images",
	} {
		if r, err := a.remote(asked); err != nil || r.URL != want {
			t.Errorf("%s is %v, %v", asked, r, err)
		}
	}
	for _, asked := range []string{
		"", "prod2", "images", "PROD", "prod/", "prod/../prod", "s3://bucket", "s3://bucket/images2", "s3://bucket/images/sub", "s3://evil/images",
		"/srv", "/srv/images/..", "/srv/images/sub", "srv/images", "file:///etc", "http://169.254.169.254/latest", "ssh://host/srv/images", strings.Repeat("/", maxName) + "srv/images",
	} {
		if r, err := a.remote(asked); !fault.Is(err, fault.Refused) {
			t.Errorf("%.100s is %v, %v", asked, r, err)
		}
	}
	if r := ParseRemote("s3://b/p?endpoint=http://h"); r.Name != "" || r.URL != "s3://b/p?endpoint=http://h" {
		t.Errorf("a URL is %v", r)
	}
	if _, err := (Allowed{Canonical: canonical}).remote("/srv/images"); !fault.Is(err, fault.Refused) {
		t.Error("nothing is allowed, and something may be pulled")
	}
}
