package image

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	at := "@sha256:" + helloHex
	for _, c := range []struct{ in, repository, tag, out string }{
		{"myapp", "myapp", "latest", "myapp:latest"},
		{"myapp:1", "myapp", "1", "myapp:1"},
		{"docker.io/library/myapp:1", "myapp", "1", "myapp:1"},
		{"docker.io/myapp:1", "myapp", "1", "myapp:1"},
		{"index.docker.io/library/myapp:1", "myapp", "1", "myapp:1"},
		{"library/myapp", "myapp", "latest", "myapp:latest"},
		{"docker.io/team/myapp", "team/myapp", "latest", "team/myapp:latest"},
		{"library/a/b", "library/a/b", "latest", "library/a/b:latest"},
		{"localhost/x:1", "localhost/x", "1", "localhost/x:1"},
		{"localhost:5000/team/x", "localhost:5000/team/x", "latest", "localhost:5000/team/x:latest"},
		{"host:5000/x:v1.2_3-4", "host:5000/x", "v1.2_3-4", "host:5000/x:v1.2_3-4"},
		{"Registry.example.com/x:1", "Registry.example.com/x", "1", "Registry.example.com/x:1"},
		{"HOST/x", "HOST/x", "latest", "HOST/x:latest"},
		{"[::1]:5000/x", "[::1]:5000/x", "latest", "[::1]:5000/x:latest"},
		{"myapp" + at, "myapp", "", "myapp" + at},
		{"host:5000/x:1" + at, "host:5000/x", "1", "host:5000/x:1" + at},
		{"myapp:UPPER", "myapp", "UPPER", "myapp:UPPER"},
		{"myapp:_1", "myapp", "_1", "myapp:_1"},
		{"a__b-c.d/e--f", "a__b-c.d/e--f", "latest", "a__b-c.d/e--f:latest"},
		{helloHex + ":1", "docker.io/library/" + helloHex, "1", "docker.io/library/" + helloHex + ":1"},
		// Their short names would mean a repository on another host.
		{"docker.io/localhost/x", "docker.io/localhost/x", "latest", "docker.io/localhost/x:latest"},
		{"docker.io/example.com/x", "docker.io/example.com/x", "latest", "docker.io/example.com/x:latest"},
		{"docker.io/library/" + helloHex, "docker.io/library/" + helloHex, "latest", "docker.io/library/" + helloHex + ":latest"},
	} {
		r, err := ParseReference(c.in)
		if err != nil || r.Repository != c.repository || r.Tag != c.tag || r.String() != c.out {
			t.Errorf("ParseReference(%q) = %+v (%s), %v", c.in, r, r, err)
			continue
		}
		if want := strings.Contains(c.in, "@"); r.Digest.IsZero() == want || want && r.Digest != hello {
			t.Errorf("ParseReference(%q) has digest %s", c.in, r.Digest)
		}
		if b, err := json.Marshal(r); err != nil || string(b) != `"`+c.out+`"` {
			t.Errorf("%s as JSON: %s, %v", r, b, err)
		}
	}
}

func TestParseReferenceRefused(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{"", "not an image name"},
		{helloHex, "image ID"},
		{"sha256:" + helloHex, "image ID"},
		{"MyApp", "must be lowercase"},
		{"host/MyApp:1", "must be lowercase"},
		{"myapp:", "not an image name"},
		{"myapp:.1", "not an image name"},
		{"myapp:a/b", "not an image name"},
		{"myapp:" + strings.Repeat("x", 129), "not an image name"},
		{strings.Repeat("x", 300), "not an image name"},
		{"../x", "not an image name"},
		{"a/../b", "not an image name"},
		{"a//b", "not an image name"},
		{"/a", "not an image name"},
		{"a/", "not an image name"},
		{"a%3Ab", "not an image name"},
		{"a b", "not an image name"},
		{"a\x00", "not an image name"},
		{"a\n", "not an image name"},
		{"-a", "not an image name"},
		{"https://host/x", "not an image name"},
		{"myapp@sha256:" + helloHex[1:], "not an image name"},
		{"myapp@sha256:" + strings.ToUpper(helloHex), "not an image name"},
		{"myapp@sha512:" + helloHex + helloHex, "digest"},
	} {
		r, err := ParseReference(c.in)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseReference(%q) = %+v, %v; want an error with %q", c.in, r, err, c.says)
		}
	}
}

func TestParseRepository(t *testing.T) {
	for in, want := range map[string]string{
		"myapp": "myapp", "docker.io/library/myapp": "myapp", "host:5000/a/b": "host:5000/a/b", "docker.io/localhost/x": "docker.io/localhost/x",
	} {
		if got, err := ParseRepository(in); err != nil || got != want {
			t.Errorf("ParseRepository(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "myapp:1", "myapp@sha256:" + helloHex, "MyApp", helloHex, "a/"} {
		if got, err := ParseRepository(in); err == nil {
			t.Errorf("ParseRepository(%q) = %q", in, got)
		}
	}
}

func TestCompareReferences(t *testing.T) {
	sorted := []Reference{
		{Repository: "a", Tag: "1"},
		{Repository: "a", Tag: "1", Digest: hello},
		{Repository: "a", Tag: "2"},
		{Repository: "a/b", Tag: "1"},
		{Repository: "b"},
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := a.Compare(b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%s compared with %s: %d", a, b, got)
			}
		}
	}
}

// keySafe reports whether name can be elements of a key in a store, once ":" is
// written another way (storage.Store).
func keySafe(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:[]"
	return len(name) <= 512 && !slices.ContainsFunc(strings.Split(name, "/"), func(element string) bool {
		return element == "" || element[0] == '.' || strings.Trim(element, allowed) != ""
	})
}

// FuzzParseReference: what is parsed can be printed and parsed again and means
// the same, and cannot leave the place in a store that its name gives it.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"myapp", "docker.io/library/myapp:1", "host:5000/a/b:c@sha256:" + helloHex, "docker.io/localhost/x", "[::1]:5000/x",
		"docker.io/library/" + helloHex, "a.b/c", "docker.io/A/b", "index.docker.io/library/x", "x@sha512:00", "../x", "docker.io/library/library/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if len(err.Error()) > 4*len(s)+300 {
				t.Errorf("%d bytes of error for %d of input", len(err.Error()), len(s))
			}
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, printed %q, parsed again %+v, %v", s, r, r, again, err)
		}
		if r.Tag == "" && r.Digest.IsZero() {
			t.Errorf("%q has neither tag nor digest", s)
		}
		if name, err := ParseRepository(r.Repository); err != nil || name != r.Repository {
			t.Errorf("%q has the repository %q, parsed again %q, %v", s, r.Repository, name, err)
		}
		if !keySafe(r.Repository) || r.Tag != "" && !keySafe(r.Tag) || strings.ContainsAny(r.Tag, "/:") {
			t.Errorf("%q is unfit for a key: %+v", s, r)
		}
	})
}
