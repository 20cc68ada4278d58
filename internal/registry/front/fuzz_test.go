package front

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzTokens: whatever stands in a file of tokens, it is read or refused, and no line of it is
// in the error: it may be a token that somebody has not hashed.
func FuzzTokens(f *testing.F) {
	f.Add("ci read " + sumOf("x"))
	f.Add("# tokens\n\nci write " + sumOf("x") + "\nci read s3cret")
	f.Add("ci\tread\x00s3cret")
	f.Fuzz(func(t *testing.T, content string) {
		name := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := readTokens(name)
		if err == nil && len(all) > strings.Count(content, "\n")+1 {
			t.Errorf("%d tokens of %q", len(all), content)
		}
		if err == nil {
			return
		}
		for word := range strings.FieldsSeq(content) {
			if len(word) >= 6 && !strings.Contains(name, word) && strings.Contains(err.Error(), word) && !strings.Contains("is neither of three words the right read nor write 64 hex digits sha256 an empty token third name has colon", word) {
				t.Errorf("%q shows %q", err, word)
			}
		}
	})
}

// FuzzRequests: paths and ranges that somebody thinks of have one of few routes, and no size below 0.
func FuzzRequests(f *testing.F) {
	f.Add("/v2/a/blobs/uploads/1", "bytes 0-99/100")
	f.Add("/v2//manifests/", "0-9223372036854775807")
	f.Add("/v2", "")
	f.Add("/healthz", "")
	known := map[route]bool{
		healthRoute: true, metricsRoute: true, pageRoute: true, baseRoute: true, catalogRoute: true, tagsRoute: true,
		manifestRoute: true, referrersRoute: true, blobRoute: true, uploadRoute: true, otherRoute: true,
	}
	f.Fuzz(func(t *testing.T, path, chunk string) {
		own := path == "/v2" || path == "/healthz" || path == "/metrics" || strings.HasPrefix(path, "/v2/") // not the page's
		if r := routeOf(path); !known[r] || own == (r == pageRoute) {
			t.Errorf("%q is %s", path, r)
		}
		if n := rangeEnd(chunk); n < 0 {
			t.Errorf("%q ends at %d", chunk, n)
		}
	})
}
