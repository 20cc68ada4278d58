package progress

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// screen is a terminal that knows what Display writes. It fails the test when a
// line would wrap, or the cursor would leave the screen.
type screen struct {
	t     *testing.T
	wraps bool // long lines are expected

	mu            sync.Mutex
	width, height int
	rows          []string // from the top of the scrollback
	row, col      int      // of the cursor, in rows
	hidden        bool     // the cursor
	writes        int
	seen          string // all bytes
}

func newScreen(t *testing.T, width, height int) *screen {
	return &screen{t: t, width: width, height: height, rows: []string{""}}
}

func (s *screen) size() (int, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width, s.height
}

// resize makes the screen narrower as terminals do: what is too long wraps, with the cursor on its line.
func (s *screen) resize(width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []string
	row := 0
	for i, r := range s.rows {
		if i == s.row {
			row = len(rows)
		}
		for len(r) > width {
			rows = append(rows, r[:width])
			r = r[width:]
		}
		rows = append(rows, r)
	}
	s.rows, s.row, s.width, s.height = rows, row, width, height
}

// String is all rows to the cursor's, and those below that are not empty.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := s.rows
	for len(rows) > s.row+1 && rows[len(rows)-1] == "" {
		rows = rows[:len(rows)-1]
	}
	return strings.Join(rows, "\n")
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	s.seen += string(p)
	for text := []rune(string(p)); len(text) > 0; {
		switch r := text[0]; r {
		case '\r':
			s.col = 0
		case '\n':
			s.row, s.col = s.row+1, 0
			if s.row == len(s.rows) {
				s.rows = append(s.rows, "")
			}
		case '\x1b':
			end := 2
			for text[end] < '@' || text[end] > '~' {
				end++
			}
			s.control(string(text[2 : end+1]))
			text = text[end:]
		default:
			s.put(r)
		}
		text = text[1:]
	}
	return len(p), nil
}

func (s *screen) put(r rune) {
	line := []rune(s.rows[s.row])
	for len(line) <= s.col {
		line = append(line, ' ')
	}
	line[s.col] = r
	s.rows[s.row] = string(line)
	if s.col++; s.col >= s.width && !s.wraps {
		s.t.Errorf("a line touches the right edge: %q", s.rows[s.row])
	}
}

func (s *screen) control(seq string) {
	n := 0
	switch seq {
	case "?25l":
		s.hidden = true
	case "?25h":
		s.hidden = false
	case "K":
		s.rows[s.row] = string([]rune(s.rows[s.row])[:min(s.col, len([]rune(s.rows[s.row])))])
	case "J":
		if s.col == 0 && s.row == max(0, len(s.rows)-s.height) {
			s.t.Error("the whole screen is cleared: tmux moves it to the history")
		}
		s.control("K")
		s.rows = s.rows[:s.row+1]
	default:
		if strings.HasSuffix(seq, "m") {
			return
		}
		if _, err := fmt.Sscanf(seq, "%dA", &n); err != nil {
			s.t.Errorf("unknown sequence %q", seq)
		}
		top := max(0, len(s.rows)-s.height)
		if s.row-n < top {
			s.t.Errorf("the cursor goes %d rows up from row %d, above the screen's top %d", n, s.row, top)
		}
		s.row = max(s.row-n, 0)
	}
}
