package front

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestMetrics: every line is one that Prometheus reads, and what was asked for makes no new ones.
func TestMetrics(t *testing.T) {
	s := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.Contains(r.URL.Path, "none") {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, "12345")
	})
	for n := range 20 {
		for _, r := range []*http.Request{
			s.request(t, http.MethodGet, fmt.Sprintf("/v2/app%d/manifests/none%d", n, n), nil),
			s.request(t, http.MethodHead, fmt.Sprintf("/v2/app%d/blobs/sha256:%d", n, n), nil),
			s.request(t, http.MethodPatch, fmt.Sprintf("/v2/app%d/blobs/uploads/%d", n, n), strings.NewReader("123")),
			s.request(t, fmt.Sprintf("M%d", n), fmt.Sprintf("/v2/x%d", n), nil),
			s.request(t, http.MethodGet, fmt.Sprintf("/%%22%d%%0A", n), nil),
		} {
			s.do(t, r)
		}
	}
	s.metrics.Damaged()
	got := s.get(t, "/metrics")
	if ct := got.header.Get("Content-Type"); ct != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("content type %s", ct)
	}
	line := regexp.MustCompile(`^[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+-]+$`)
	comment := regexp.MustCompile(`^# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))$`)
	for l := range strings.Lines(got.body) {
		if l = strings.TrimSuffix(l, "\n"); !line.MatchString(l) && !comment.MatchString(l) {
			t.Errorf("no line of Prometheus: %s", l)
		}
	}
	for _, want := range []string{
		`dogestry_requests_total{method="GET",route="manifests",code="404"} 20`,
		`dogestry_requests_total{method="HEAD",route="blobs",code="200"} 20`,
		`dogestry_requests_total{method="PATCH",route="uploads",code="200"} 20`,
		`dogestry_requests_total{method="other",route="other",code="200"} 20`,
		`dogestry_requests_total{method="GET",route="page",code="404"} 20`,
		`dogestry_received_bytes_total{route="uploads"} 60`,
		`dogestry_sent_bytes_total{route="manifests"} 100`,
		`dogestry_sent_bytes_total{route="blobs"} 0`,
		`dogestry_request_duration_seconds_bucket{route="manifests",le="+Inf"} 20`,
		`dogestry_request_duration_seconds_count{route="manifests"} 20`,
		`dogestry_requests_in_flight 1`,
		`dogestry_damaged_reads_total 1`,
	} {
		if !strings.Contains(got.body, want+"\n") {
			t.Errorf("no line %s in\n%s", want, got.body)
		}
	}
	if n := strings.Count(got.body, "dogestry_requests_total{"); n != 5 {
		t.Errorf("%d kinds of requests:\n%s", n, got.body)
	}
}

// TestLogHasNoSecrets: no query but what is known to be harmless, no headers.
func TestLogHasNoSecrets(t *testing.T) {
	s := start(t, Options{}, echo)
	r := s.request(t, http.MethodGet, "/v2/app/tags/list?n=10&last=1.2&token=s3cret&access_token=s3cret", nil)
	r.Header.Set("Authorization", "Bearer s3cret")
	r.Header.Set("Cookie", "a=s3cret")
	r.Header.Set("User-Agent", "doge/1 "+strings.Repeat("a", 1000))
	s.do(t, r)
	s.do(t, s.request(t, http.MethodGet, "/v2/app/"+strings.Repeat("b", 1000), nil))
	s.do(t, s.request(t, http.MethodGet, "/v2/a%0Alevel=ERROR", nil))
	s.stop()
	if err := s.ended(); err != nil {
		t.Error(err)
	}
	log := s.logged.String()
	if strings.Contains(log, "s3cret") || strings.Contains(log, "token") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	for _, want := range []string{`query="n=10&last=1.2"`, "client=127.0.0.1", "method=GET", "path=/v2/app/tags/list", "code=200", "sent=", "seconds=", "doge/1"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
	for l := range strings.Lines(log) {
		if len(l) > 1000 {
			t.Errorf("a line of %d bytes", len(l))
		}
		if !strings.HasPrefix(l, "time=") {
			t.Errorf("a line that a client has written: %s", l)
		}
	}
}
