package main

import (
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lease"
)

// TestHistory: what was read of a tag has to follow from what was written, in some
// order that time allows.
func TestHistory(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(int64(1000+second), 0) }
	write := func(start, end int, id string) event {
		return event{start: at(start), end: at(end), id: id, written: true, sure: true}
	}
	maybe := func(start, end int, id string) event {
		e := write(start, end, id)
		e.sure = false
		return e
	}
	read := func(start, end int, id string) event {
		return event{start: at(start), end: at(end), id: id, by: "pull"}
	}
	for name, test := range map[string]struct {
		events []event
		wrong  bool
	}{
		"nothing at the beginning":             {[]event{read(0, 1, gone)}, false},
		"something at the beginning":           {[]event{read(0, 1, "a")}, true},
		"what was written":                     {[]event{write(0, 1, "a"), read(2, 3, "a")}, false},
		"nothing behind a write":               {[]event{write(0, 1, "a"), read(2, 3, gone)}, true},
		"nothing beside a write":               {[]event{write(0, 5, "a"), read(2, 3, gone)}, false},
		"removed":                              {[]event{write(0, 1, "a"), write(2, 3, gone), read(4, 5, gone)}, false},
		"there, and was removed":               {[]event{write(0, 1, "a"), write(2, 3, gone), read(4, 5, "a")}, true},
		"beside a removal":                     {[]event{write(0, 1, "a"), write(2, 6, gone), read(4, 5, "a")}, false},
		"rolled back":                          {[]event{write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")}, true},
		"either of two at once":                {[]event{write(0, 2, "a"), write(1, 3, "b"), read(4, 5, "a")}, false},
		"what nobody wrote":                    {[]event{write(0, 1, "a"), read(4, 5, "b")}, true},
		"what comes later":                     {[]event{read(0, 1, "a"), write(2, 3, "a")}, true},
		"killed, and done":                     {[]event{write(0, 1, "a"), maybe(2, 3, "b"), read(4, 5, "b")}, false},
		"killed, and not done":                 {[]event{write(0, 1, "a"), maybe(2, 3, "b"), read(4, 5, "a")}, false},
		"killed does not excuse what is gone":  {[]event{write(0, 1, "a"), maybe(2, 3, "b"), read(4, 5, gone)}, true},
		"killed, and done long after":          {[]event{maybe(0, 1, "b"), write(20, 21, "a"), read(22, 23, "b")}, true},
		"killed, and written by whom one asks": {[]event{maybe(2, 3, anything), read(4, 5, "c")}, false},
	} {
		var h history
		for _, e := range test.events {
			h.add("app:1", e)
		}
		if got := h.violations(); (len(got) > 0) != test.wrong {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestStays: a tag that is being written by somebody does not stay.
func TestStays(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(int64(1000+second), 0) }
	var h history
	h.add("app:1", event{start: at(10), end: at(12), written: true, sure: true})
	h.add("app:1", event{start: at(30), end: at(32), written: true}) // killed
	h.add("app:1", event{start: at(60), end: at(61)})
	for _, test := range []struct {
		start, end int
		want       bool
	}{{0, 9, true}, {9, 11, false}, {13, 14, true}, {33, 34, false}, {50, 62, true}} {
		if got := h.stays("app:1", at(test.start), at(test.end)); got != test.want {
			t.Errorf("from %d to %d: %t", test.start, test.end, got)
		}
	}
}

// TestReport: what was lost or torn, and too little that was done, is a failure.
func TestReport(t *testing.T) {
	for name, test := range map[string]struct {
		completed         int
		lost, torn, wrong []string
		want              string
	}{
		"all":     {completed: 10},
		"too few": {completed: 9, want: "9 of 10"},
		"lost":    {completed: 10, lost: []string{"a layer"}, want: "1 violations"},
		"torn":    {completed: 10, torn: []string{"a pull", "another"}, want: "2 violations"},
		"wrong":   {completed: 10, wrong: []string{"a failure"}, want: "1 violations"},
	} {
		var out strings.Builder
		r := &run{name: "directory"}
		r.results.completed = map[kind]int{push: test.completed}
		r.results.lost, r.results.torn, r.results.wrong = test.lost, test.torn, test.wrong
		err := report(&out, []*run{r}, options{commands: 10})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, list := range [][]string{test.lost, test.torn, test.wrong} {
			for _, line := range list {
				if !strings.Contains(out.String(), line) {
					t.Errorf("%s: %q is not told:\n%s", name, line, out.String())
				}
			}
		}
	}
}

// TestJudge: only a collection may be told that its time is up.
func TestJudge(t *testing.T) {
	late := outcome{Kind: fault.Other.String(), Message: "cannot collect the garbage of s3://b: images/1/json: " + lease.ErrTimeUp.Error()}
	for kind, fine := range map[kind]bool{gc: true, push: false} {
		r := &run{}
		if what := r.judge(command{Kind: kind}, late, time.Time{}, time.Time{}); (what == "") != fine || (len(r.results.wrong) == 0) != fine {
			t.Errorf("%s: %q", kind, what)
		}
	}
}
