package s3test

import (
	"net/http"
	"net/url"
	"strings"
)

// Record is what a proxy remembers of a request: neither its signature nor its body.
type Record struct {
	Op     string // as the function Op calls it
	Method string
	Path   string     // decoded
	Query  url.Values // without what signs
	Header http.Header
	Status int // of the answer that the client got; 0 as long as it got none

	Sent     int64 // bytes of the request's body that the proxy has read
	Received int64 // bytes of the answer's body that the proxy has passed on
	Faulty   bool  // a fault was chosen for it
}

// secret reports whether a header or a parameter is part of what proves who somebody is.
func secret(name string) bool {
	switch strings.ToLower(name) {
	case "authorization", "cookie", "x-amz-security-token", "x-amz-signature", "x-amz-credential":
		return true
	}
	return false
}

// begin remembers a request that has just come.
func (p *Proxy) begin(r *http.Request) *Record {
	record := &Record{Op: Op(r), Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}
	for name := range record.Query {
		if secret(name) {
			delete(record.Query, name)
		}
	}
	for name := range record.Header {
		if secret(name) {
			delete(record.Header, name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, record)
	return record
}

// note changes the record of the exchange.
func (x *exchange) note(change func(*Record)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change(x.record)
}

// Requests returns all requests that came since the start or the last Reset, in that order, also those that still run. Who
// has got an answer finds it here.
func (p *Proxy) Requests() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	records := make([]Record, len(p.records))
	for i, r := range p.records {
		records[i] = *r // its maps do not change any more
	}
	return records
}

// Count returns how many requests that came since the start or the last Reset were of one of these operations, or of any if
// none is given.
func (p *Proxy) Count(ops ...string) int {
	n := 0
	for _, r := range p.Requests() {
		found := len(ops) == 0
		for _, op := range ops {
			found = found || op == r.Op
		}
		if found {
			n++
		}
	}
	return n
}

// Reset forgets the requests. Faults and latency stay.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = nil
}
