package s3test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Fault says what a [Proxy] does with one request. The zero value passes it on as it is. The functions below make the
// others, and the methods add to them; each returns a new one.
type Fault struct {
	kind   kind
	n      int64 // bytes, where kind counts them
	done   bool  // the server does its work first
	status int
	code   string
	reply  string // instead of code's
	header http.Header
	ignore []string
	edit   func(*http.Response)
}

type kind int

const (
	pass kind = iota
	answer
	drop
	stall
	resetRequest
	resetResponse
	truncateResponse
	stallResponse
)

// Answer is an answer with an error as S3 words it, such as 503 SlowDown. The server does not get the request. 200 with an
// error is what CompleteMultipartUpload can answer.
func Answer(status int, code string) Fault { return Fault{kind: answer, status: status, code: code} }

// Reply is an answer with a body that the test has made. The server does not get the request.
func Reply(status int, body string) Fault { return Fault{kind: answer, status: status, reply: body} }

// Redirect is the answer of S3 to a request that came to the wrong region.
func Redirect(region string) Fault {
	return Answer(http.StatusMovedPermanently, "PermanentRedirect").With("X-Amz-Bucket-Region", region)
}

// Drop closes the connection instead of an answer. The server does not get the request.
func Drop() Fault { return Fault{kind: drop} }

// Stall lets the client wait in vain for an answer until it gives up, or the proxy is closed. The server does not get the
// request.
func Stall() Fault { return Fault{kind: stall} }

// Lost is Drop after the server has done what it was asked to: it is done, and the answer is lost.
func Lost() Fault { return Drop().AfterDone() }

// AfterDone lets the server do its work before Answer, Drop or Stall, which then replace its answer.
func (f Fault) AfterDone() Fault {
	f.done = true
	return f
}

// ResetRequest resets the connection when n bytes of the request's body have passed; the server sees it break there. A body
// of fewer bytes passes whole.
func ResetRequest(n int64) Fault { return Fault{kind: resetRequest, n: n} }

// ResetResponse resets the connection (RST) when n bytes of the answer's body have passed, of which a slow client may not
// get the last ones. Where the body ends earlier the connection is reset at its end.
func ResetResponse(n int64) Fault { return Fault{kind: resetResponse, n: n} }

// TruncateResponse closes the connection (FIN) when n bytes of the answer's body have passed: less than Content-Length says.
// A body of at most n bytes passes whole.
func TruncateResponse(n int64) Fault { return Fault{kind: truncateResponse, n: n} }

// StallResponse passes the headers and n bytes of the answer's body, then nothing until the client gives up or the proxy is
// closed. A body of at most n bytes passes whole.
func StallResponse(n int64) Fault { return Fault{kind: stallResponse, n: n} }

// Ignore takes headers from the request, and signs it again without them: a server that does not know them.
func Ignore(headers ...string) Fault { return Fault{}.Ignore(headers...) }

// Ignore is the function of that name, added to another fault.
func (f Fault) Ignore(headers ...string) Fault {
	f.ignore = append(f.ignore[:len(f.ignore):len(f.ignore)], headers...)
	return f
}

// Edit changes the server's answer before it is passed on: its StatusCode, and its Header. The body stays as it is.
func Edit(edit func(*http.Response)) Fault { return Fault{edit: edit} }

// With sets a header of the answer; "" removes it.
func (f Fault) With(header, value string) Fault {
	if f.header = f.header.Clone(); f.header == nil {
		f.header = http.Header{}
	}
	f.header.Set(header, value)
	return f
}

// none reports whether f does nothing.
func (f Fault) none() bool {
	return f.kind == pass && f.header == nil && f.ignore == nil && f.edit == nil
}

// apply sets what With was told.
func (f Fault) apply(h http.Header) {
	for name, values := range f.header {
		if values[0] == "" {
			h.Del(name)
		} else {
			h[name] = values
		}
	}
}

// xml is the error as S3 words it.
func (f Fault) xml() string {
	if f.reply != "" {
		return f.reply
	}
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<Error><Code>%s</Code><Message>Made by the proxy.</Message><RequestId>0</RequestId></Error>`, f.code)
}

// Rule decides what happens to a request. It may be called by several goroutines.
type Rule = func(*http.Request) Fault

// Match chooses requests.
type Match = func(*http.Request) bool

// Always gives the same fault to all requests that match.
func Always(match Match, f Fault) Rule {
	return Between(1, -1, match, f)
}

// Times gives the fault to the first n requests that match.
func Times(n int, match Match, f Fault) Rule { return Between(1, n, match, f) }

// Nth gives the fault to the nth request that matches, counted from 1, and to no other.
func Nth(n int, match Match, f Fault) Rule { return Between(n, n, match, f) }

// Between gives the fault to requests first to last that match, counted from 1; a negative last is no end.
func Between(first, last int, match Match, f Fault) Rule {
	var mu sync.Mutex
	count := 0
	return func(r *http.Request) Fault {
		if !match(r) {
			return Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		count++
		if count < first || last >= 0 && count > last {
			return Fault{}
		}
		return f
	}
}

// Rules asks all of them, in order, and takes the first fault that does something.
func Rules(rules ...Rule) Rule {
	return func(r *http.Request) Fault {
		var chosen Fault
		for _, rule := range rules {
			if f := rule(r); chosen.none() {
				chosen = f
			}
		}
		return chosen
	}
}

// Any matches all requests.
func Any(*http.Request) bool { return true }

// Is matches requests of these operations, as [Op] calls them.
func Is(ops ...string) Match {
	return func(r *http.Request) bool {
		op := Op(r)
		for _, o := range ops {
			if o == op {
				return true
			}
		}
		return false
	}
}

// On matches requests of these operations, or of all if there are none, on keys that begin with prefix.
func On(prefix string, ops ...string) Match {
	is := Is(ops...)
	return func(r *http.Request) bool {
		_, key := bucketAndKey(r)
		return key != "" && strings.HasPrefix(key, prefix) && (len(ops) == 0 || is(r))
	}
}

// bucketAndKey splits the path.
func bucketAndKey(r *http.Request) (bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return bucket, key
}

// Op is the S3 operation of a request with the bucket in its path, such as "PutObject", or method and path where it is none
// of those that stores use.
func Op(r *http.Request) string {
	bucket, key := bucketAndKey(r)
	query := r.URL.Query()
	if key == "" {
		switch {
		case bucket == "" && r.Method == http.MethodGet:
			return "ListBuckets"
		case query.Has("uploads") && r.Method == http.MethodGet:
			return "ListMultipartUploads"
		case query.Has("delete") && r.Method == http.MethodPost:
			return "DeleteObjects"
		case query.Has("location") && r.Method == http.MethodGet:
			return "GetBucketLocation"
		case query.Get("list-type") == "2" && r.Method == http.MethodGet:
			return "ListObjectsV2"
		case r.URL.RawQuery == "" && r.Method == http.MethodHead:
			return "HeadBucket"
		case r.URL.RawQuery == "" && r.Method == http.MethodPut:
			return "CreateBucket"
		}
		return r.Method + " " + r.URL.Path
	}
	switch {
	case query.Has("uploads") && r.Method == http.MethodPost:
		return "CreateMultipartUpload"
	case query.Has("uploadId"):
		switch r.Method {
		case http.MethodPost:
			return "CompleteMultipartUpload"
		case http.MethodDelete:
			return "AbortMultipartUpload"
		case http.MethodGet:
			return "ListParts"
		case http.MethodPut:
			if r.Header.Get("X-Amz-Copy-Source") != "" {
				return "UploadPartCopy"
			}
			return "UploadPart"
		}
	case r.Method == http.MethodGet:
		return "GetObject"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		return "CopyObject"
	case r.Method == http.MethodPut:
		return "PutObject"
	}
	return r.Method + " " + r.URL.Path
}
