package front

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// bounds are those of the histogram, in seconds: a tag takes milliseconds, a layer minutes.
var bounds = [...]float64{0.005, 0.025, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900}

// Metrics counts what a registry does, and shows it as Prometheus reads it (text
// exposition format 0.0.4). It is safe for concurrent use. Labels have few values, whatever is asked for.
type Metrics struct {
	mu       sync.Mutex
	requests map[requestLabels]uint64
	routes   map[route]*routeMetrics
	flying   int
	aborted  uint64
	damaged  uint64
	logins   map[string]uint64
	refusals map[string]uint64
	reloads  map[string]uint64
	expires  time.Time
	more     func(io.Writer)
}

type requestLabels struct {
	method string
	route  route
	code   int
}

type routeMetrics struct {
	received, sent int64
	buckets        [len(bounds) + 1]uint64
	seconds        float64
}

// NewMetrics returns one that has counted nothing.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: map[requestLabels]uint64{},
		routes:   map[route]*routeMetrics{},
		logins:   map[string]uint64{"token": 0, "password": 0, "remembered": 0, "failed": 0},
		refusals: map[string]uint64{"requests": 0, "uploads": 0, "logins": 0, "size": 0, "stalled": 0, "origin": 0},
		reloads:  map[string]uint64{"certificate": 0, "htpasswd": 0, "tokens": 0},
	}
}

// Damaged counts a document or layer of the remote that was asked for and does not
// match its digest, or is missing.
func (m *Metrics) Damaged() { m.count(func() { m.damaged++ }) }

// Also shows behind all else what write writes, in the same format. It is called before
// anything is shown.
func (m *Metrics) Also(write func(io.Writer)) { m.count(func() { m.more = write }) }

func (m *Metrics) count(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *Metrics) begin()                 { m.count(func() { m.flying++ }) }
func (m *Metrics) loggedIn(how string)    { m.count(func() { m.logins[how]++ }) }
func (m *Metrics) refused(why string)     { m.count(func() { m.refusals[why]++ }) }
func (m *Metrics) reloadFailed(of string) { m.count(func() { m.reloads[of]++ }) }
func (m *Metrics) inFlight() (n int)      { m.count(func() { n = m.flying }); return n }
func (m *Metrics) certificateExpires(t time.Time) {
	m.count(func() { m.expires = t })
}

func (m *Metrics) end(x *exchange, aborted bool) {
	seconds := time.Since(x.began).Seconds()
	labels := requestLabels{methodLabel(x.request.Method), x.route, x.code}
	m.count(func() {
		m.flying--
		m.requests[labels]++
		if aborted {
			m.aborted++
		}
		r := m.routes[x.route]
		if r == nil {
			r = &routeMetrics{}
			m.routes[x.route] = r
		}
		r.received += x.got
		r.sent += x.sent
		r.seconds += seconds
		i, _ := slices.BinarySearch(bounds[:], seconds)
		r.buckets[i]++
	})
}

// methodLabel keeps methods that somebody has thought of out of the labels.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return method
	}
	return "other"
}

// ServeHTTP shows all.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !onlyReads(w, r) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(m.text())
}

func (m *Metrics) text() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	family("dogestry_requests_total", "counter", "Requests that have ended; code 0 is of those broken off before it was told.")
	labels := slices.SortedFunc(maps.Keys(m.requests), func(a, b requestLabels) int {
		return cmp.Or(cmp.Compare(a.route, b.route), strings.Compare(a.method, b.method), cmp.Compare(a.code, b.code))
	})
	for _, l := range labels {
		fmt.Fprintf(&b, "dogestry_requests_total{method=%q,route=%q,code=\"%d\"} %d\n", l.method, l.route, l.code, m.requests[l])
	}
	family("dogestry_requests_aborted_total", "counter", "Requests whose connection was broken off, so that nobody takes half an answer for whole.")
	fmt.Fprintf(&b, "dogestry_requests_aborted_total %d\n", m.aborted)
	family("dogestry_requests_in_flight", "gauge", "Requests on their way.")
	fmt.Fprintf(&b, "dogestry_requests_in_flight %d\n", m.flying)
	family("dogestry_damaged_reads_total", "counter", "Documents and layers of the remote that were asked for and do not match their digest, or are missing.")
	fmt.Fprintf(&b, "dogestry_damaged_reads_total %d\n", m.damaged)

	routes := slices.Sorted(maps.Keys(m.routes))
	family("dogestry_received_bytes_total", "counter", "Bytes of bodies that came.")
	for _, r := range routes {
		fmt.Fprintf(&b, "dogestry_received_bytes_total{route=%q} %d\n", r, m.routes[r].received)
	}
	family("dogestry_sent_bytes_total", "counter", "Bytes of bodies that were sent.")
	for _, r := range routes {
		fmt.Fprintf(&b, "dogestry_sent_bytes_total{route=%q} %d\n", r, m.routes[r].sent)
	}
	family("dogestry_request_duration_seconds", "histogram", "How long requests took, bodies included.")
	for _, r := range routes {
		m.routes[r].histogram(&b, r)
	}
	byLabel(&b, "dogestry_logins_total", "result", m.logins, family, "Logins, by what they were proved with.")
	byLabel(&b, "dogestry_refused_total", "reason", m.refusals, family, "What limits have refused.")
	byLabel(&b, "dogestry_reload_failures_total", "file", m.reloads, family, "Files that have changed and were of no use; what they said before stays in force.")
	if !m.expires.IsZero() {
		family("dogestry_certificate_expires_seconds", "gauge", "When the certificate expires, in seconds since 1970.")
		fmt.Fprintf(&b, "dogestry_certificate_expires_seconds %d\n", m.expires.Unix())
	}
	if m.more != nil {
		m.more(&b)
	}
	return b.Bytes()
}

func byLabel(b *bytes.Buffer, name, label string, counts map[string]uint64, family func(name, kind, help string), help string) {
	family(name, "counter", help)
	for _, v := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(b, "%s{%s=%q} %d\n", name, label, v, counts[v])
	}
}

func (r *routeMetrics) histogram(b *bytes.Buffer, of route) {
	var total uint64
	for i, n := range r.buckets {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		fmt.Fprintf(b, "dogestry_request_duration_seconds_bucket{route=%q,le=%q} %d\n", of, le, total)
	}
	fmt.Fprintf(b, "dogestry_request_duration_seconds_sum{route=%q} %g\n", of, r.seconds)
	fmt.Fprintf(b, "dogestry_request_duration_seconds_count{route=%q} %d\n", of, total)
}
