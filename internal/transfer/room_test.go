package transfer

import (
	"strings"
	"testing"
)

type noted struct {
	NoProgress
	notes []string
}

func (n *noted) Note(text string) { n.notes = append(n.notes, text) }

type roomOf int64

func (r roomOf) Room() (int64, bool) { return int64(r), r >= 0 }

func TestWarnRoom(t *testing.T) {
	for _, c := range []struct {
		engine any
		want   string
	}{
		{roomOf(999), "has 999B left, and the engine needs about 1kB"},
		{roomOf(1000), ""},
		{roomOf(-1), ""}, // not known
		{nil, ""},
	} {
		var n noted
		warnRoom(Options{Progress: &n}, c.engine, 1000)
		if got := strings.Join(n.notes, "\n"); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: said %q, want %q", c.engine, got, c.want)
		}
	}
}
