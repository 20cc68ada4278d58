package progress

import (
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
)

// human is n bytes as docker shows them: "45.2MB".
func human(n int64) string {
	s := units.HumanSizeWithPrecision(float64(n), 3)
	if strings.Contains(s, "e+") { // 999.6MB would be "1e+03MB"
		s = units.HumanSizeWithPrecision(float64(n)*1.001, 3)
	}
	return s
}

// clean makes one line of text without anything that steers a terminal.
func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, text))
}

// columns is how much of a terminal's line text takes at most.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n += wide(r)
	}
	return n
}

// wide is the columns that r takes at most: what may be two counts as two.
func wide(r rune) int {
	if r >= 0x1100 {
		return 2
	}
	return 1
}

// cut is the beginning of text that takes at most width columns.
func cut(text string, width int) string {
	for i, r := range text {
		if width -= wide(r); width < 0 {
			return text[:i]
		}
	}
	return text
}

// seconds is d in whole seconds: "3s", "1m20s".
func seconds(d time.Duration) string { return d.Truncate(time.Second).String() }
