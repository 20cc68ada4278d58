package retention_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/retention"
)

const day = 24 * time.Hour

// tags reads "name age": how long before some instant each was written.
func tags(t *testing.T, list ...string) []retention.Tag {
	t.Helper()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var all []retention.Tag
	for _, item := range list {
		name, age, _ := strings.Cut(item, " ")
		d, err := time.ParseDuration(age)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, retention.Tag{Name: name, Written: now.Add(-d)})
	}
	return all
}

func TestKeep(t *testing.T) {
	for name, test := range map[string]struct {
		rules retention.Rules
		tags  []string // name and age
		want  []string // name: the rules that keep it
	}{
		"no tags":             {retention.Rules{Last: 3, Within: day, Names: []string{"*"}}, nil, nil},
		"no rule keeps none":  {retention.Rules{}, []string{"a 1h", "b 0h"}, []string{"a:", "b:"}},
		"the newest two":      {retention.Rules{Last: 2}, []string{"a 3h", "b 1h", "c 2h", "d 9h"}, []string{"a:", "b: keep-last 2", "c: keep-last 2", "d:"}},
		"more than there are": {retention.Rules{Last: 9}, []string{"a 3h", "b 1h"}, []string{"a: keep-last 9", "b: keep-last 9"}},
		"the same instant": {
			retention.Rules{Last: 2},
			[]string{"a 1h", "b 2h", "c 2h", "d 2h", "e 3h"},
			[]string{"a: keep-last 2", "b: keep-last 2", "c: keep-last 2", "d: keep-last 2", "e:"},
		},
		"one, of three at once": {retention.Rules{Last: 1}, []string{"a 1h", "b 1h", "c 1h1ns"}, []string{"a: keep-last 1", "b: keep-last 1", "c:"}},
		"within": {
			retention.Rules{Within: 30 * day},
			[]string{"a 0h", "b 719h59m59s", "c 720h", "d 721h"},
			[]string{"a: keep-within 30d", "b: keep-within 30d", "c:", "d:"},
		},
		"within counts from the newest": {
			retention.Rules{Within: day},
			[]string{"a 1000h", "b 1010h", "c 1030h"},
			[]string{"a: keep-within 1d", "b: keep-within 1d", "c:"},
		},
		"names": {
			retention.Rules{Names: []string{"v*", "live", "v1.?"}},
			[]string{"v1.2 9h", "v 8h", "live 7h", "alive 6h", "V1 5h", "v1.23 4h"},
			[]string{"v1.2: keep v*, keep v1.?", "v: keep v*", "live: keep live", "alive:", "V1:", "v1.23: keep v*"},
		},
		"any rule is enough, and all are told": {
			retention.Rules{Last: 1, Within: 2 * day, Names: []string{"[ab]"}},
			[]string{"a 0h", "b 100h", "c 47h", "d 48h"},
			[]string{"a: keep-last 1, keep-within 2d, keep [ab]", "b: keep [ab]", "c: keep-within 2d", "d:"},
		},
	} {
		all := tags(t, test.tags...)
		var got []string
		for i, by := range test.rules.Keep(all) {
			got = append(got, strings.TrimSpace(all[i].Name+": "+strings.Join(by, ", ")))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		rules                retention.Rules
		wrong, empty, byTime bool
	}{
		"none":              {retention.Rules{}, false, true, false},
		"last":              {retention.Rules{Last: 1}, false, false, true},
		"within":            {retention.Rules{Within: 1}, false, false, true},
		"names":             {retention.Rules{Names: []string{"v*", "[a-z]?"}}, false, false, false},
		"negative last":     {retention.Rules{Last: -1}, true, false, false},
		"negative within":   {retention.Rules{Within: -1}, true, false, false},
		"malformed pattern": {retention.Rules{Names: []string{"v*", "[a"}}, true, false, false},
		"empty pattern":     {retention.Rules{Names: []string{""}}, true, false, false},
	} {
		if err := test.rules.Check(); (err != nil) != test.wrong {
			t.Errorf("%s: %v", name, err)
		}
		if got := test.rules.Empty(); got != test.empty {
			t.Errorf("%s: empty: %t", name, got)
		}
		if got := test.rules.ByTime(); got != test.byTime {
			t.Errorf("%s: by time: %t", name, got)
		}
	}
}

func TestPeriods(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"12h": 12 * time.Hour, "1h": time.Hour, "30d": 30 * day, "2w": 14 * day, "1w3d12h": 10*day + 12*time.Hour, "036h": 36 * time.Hour,
		"18250d": 18250 * day,
	} {
		got, err := retention.ParsePeriod(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0d", "0h", "30", "d", "-1d", "+1d", "1.5d", "1m", "1y", "1s", "1D", "30 d", " 30d", "30d ", "1h1d", "1d1d", "٣d", "1dé",
		"18251d", "99999999999999999999d", "2608w", "9223372036854775807h",
	} {
		if got, err := retention.ParsePeriod(text); err == nil || !strings.Contains(err.Error(), `"`+text+`"`) {
			t.Errorf("%q: %v, %v, want an error that names it", text, got, err)
		}
	}
	for period, want := range map[time.Duration]string{time.Hour: "1h", 14 * day: "14d", 36 * time.Hour: "1d12h", 0: "0h"} {
		if got := retention.FormatPeriod(period); got != want {
			t.Errorf("%v: %s, want %s", period, got, want)
		}
	}
}

// FuzzParsePeriod: what is read is positive and bounded, and what it is written as means the same.
func FuzzParsePeriod(f *testing.F) {
	for _, s := range []string{"30d", "1w3d12h", "0", "99999999999999999999w", "1m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := retention.ParsePeriod(s)
		if err != nil {
			return
		}
		if p <= 0 || p > 151*365*day {
			t.Fatalf("%q is %v", s, p)
		}
		if again, err := retention.ParsePeriod(retention.FormatPeriod(p)); p <= 18250*day && (err != nil || again != p) {
			t.Fatalf("%q is %v, written %s, read %v, %v", s, p, retention.FormatPeriod(p), again, err)
		}
	})
}
