package client

import (
	"net/http"
	"net/url"
	"testing"
)

// TestRedirectStaysEncrypted: from TLS nothing leads to what is read on the way.
func TestRedirectStaysEncrypted(t *testing.T) {
	request := func(to string) *http.Request {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: u}
	}
	for _, test := range []struct {
		from, to string
		fine     bool
	}{
		{"https://a", "https://b", true},
		{"https://a", "http://a", false},
		{"http://a", "http://b", true},
		{"http://a", "https://a", true},
	} {
		if err := redirect(request(test.to), []*http.Request{request(test.from)}); (err == nil) != test.fine {
			t.Errorf("%s to %s: %v", test.from, test.to, err)
		}
		answer := &http.Response{Request: request(test.from), Header: http.Header{"Location": {test.to + "/upload"}}}
		if at := location(answer); (at != "") != test.fine {
			t.Errorf("an upload from %s goes on at %q", test.from, at)
		}
	}
}
