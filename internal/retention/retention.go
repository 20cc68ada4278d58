// Package retention says which tags of a repository are kept, by rules as
// restic's forget has them. It knows tags by their names and times alone, and does
// nothing with them.
package retention

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rules keep tags: those that any of them keeps. The zero value keeps none.
type Rules struct {
	// Last keeps that many tags, the newest. Of those that were written at the same
	// instant as the last of them, none is older than another, and all are kept.
	// Zero is no rule.
	Last int

	// Within keeps tags that were written less than so long before the newest tag of
	// the repository, and that one. So no clock but the remote's counts, and a
	// repository to which nobody pushes keeps what it has. Zero is no rule.
	Within time.Duration

	// Names keeps tags whose names match one of these patterns (path.Match).
	Names []string
}

// Tag is a tag of one repository.
type Tag struct {
	Name    string
	Written time.Time
}

// Empty reports whether there is no rule at all.
func (r Rules) Empty() bool { return r.Last == 0 && r.Within == 0 && len(r.Names) == 0 }

// ByTime reports whether a rule needs to know when tags were written.
func (r Rules) ByTime() bool { return r.Last > 0 || r.Within > 0 }

// Check returns why r makes no sense: nothing in it may be negative, nor a
// pattern malformed.
func (r Rules) Check() error {
	switch {
	case r.Last < 0:
		return fmt.Errorf("keep-last %d is negative", r.Last)
	case r.Within < 0:
		return fmt.Errorf("keep-within %s is negative", r.Within)
	}
	for _, pattern := range r.Names {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("keep %q is no pattern: write a tag, or parts of one with * ? [a-z]", pattern)
		}
	}
	return nil
}

// Keep returns for each of a repository's tags, in their order, the rules that
// keep it. It goes where there are none. Tags may come in any order.
func (r Rules) Keep(tags []Tag) [][]string {
	times := make([]time.Time, len(tags))
	for i, t := range tags {
		times[i] = t.Written
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) }) // newest first
	kept := make([][]string, len(tags))
	for i, t := range tags {
		// The oldest time that is among the last: who is as new as that is kept.
		if r.Last > 0 && !t.Written.Before(times[min(r.Last, len(times))-1]) {
			kept[i] = append(kept[i], fmt.Sprintf("keep-last %d", r.Last))
		}
		if r.Within > 0 && times[0].Sub(t.Written) < r.Within {
			kept[i] = append(kept[i], "keep-within "+FormatPeriod(r.Within))
		}
		for _, pattern := range r.Names {
			if ok, err := path.Match(pattern, t.Name); ok && err == nil {
				kept[i] = append(kept[i], "keep "+pattern)
			}
		}
	}
	return kept
}

// unit is one that periods are written in.
type unit struct {
	letter byte
	length time.Duration
}

// units are all of them, longest first.
func units() []unit {
	return []unit{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}}
}

var errPeriod = errors.New("is no period: write 12h, 30d, 2w, or 1w3d12h")

// ParsePeriod reads hours, days and weeks: "12h", "30d", "2w", "1w3d12h". A day
// has 24 hours. There are no minutes, months and years: "m" could be either of the
// first two, and they have no one length.
func ParsePeriod(s string) (time.Duration, error) {
	const most = 50 * 365 * 24 * time.Hour // three of them do not overflow
	var period time.Duration
	for rest, may := s, units(); rest != ""; {
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 1 {
			return 0, fmt.Errorf("%q %w", s, errPeriod)
		}
		n, err := strconv.ParseInt(rest[:end], 10, 64)
		at := slices.IndexFunc(may, func(u unit) bool { return u.letter == rest[end] })
		if err != nil && !errors.Is(err, strconv.ErrRange) || at < 0 {
			return 0, fmt.Errorf("%q %w", s, errPeriod)
		}
		if n > int64(most/may[at].length) {
			return 0, fmt.Errorf("%q is longer than 50 years", s)
		}
		period += time.Duration(n) * may[at].length
		rest, may = rest[end+1:], may[at+1:]
	}
	if period == 0 {
		return 0, fmt.Errorf("%q %w", s, errPeriod)
	}
	return period, nil
}

// FormatPeriod writes a period of whole hours in days and hours: "14d", "1d12h".
func FormatPeriod(p time.Duration) string {
	const day = 24 * time.Hour
	var b strings.Builder
	if days := p / day; days > 0 {
		fmt.Fprintf(&b, "%dd", days)
	}
	if hours := p % day / time.Hour; hours > 0 || b.Len() == 0 {
		fmt.Fprintf(&b, "%dh", hours)
	}
	return b.String()
}
