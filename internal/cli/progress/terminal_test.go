package progress

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/transfer"
)

// onScreen runs test with a Display on a screen of that size, and closes it.
func onScreen(t *testing.T, width, height int, test func(t *testing.T, d *Display, s *screen)) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(t, width, height)
		d := New(s, Options{Bars: Always, Color: Never, size: s.size})
		defer d.Close()
		test(t, d, s)
	})
}

// six announces a layer of each state.
func six(d *Display) []transfer.Bar {
	var bars []transfer.Bar
	for i, size := range []int64{476 * mb, 45_200_000, 45_200_000, 45_200_000, 45_200_000, -1} {
		bars = append(bars, d.Layer(fmt.Sprintf("4f5e6d7c8b%02x", i), size))
	}
	bars[0].Add(210 * mb)
	bars[1].Add(45_200_000)
	bars[1].Done()
	bars[2].Present()
	bars[3].Add(20_000_000)
	bars[3].Fail()
	bars[5].Add(3 * mb)
	return bars
}

func TestTerminal(t *testing.T) {
	onScreen(t, 80, 24, func(t *testing.T, d *Display, s *screen) {
		d.Status("the engine is exporting myapp:1")
		pause(500 * time.Millisecond)
		expect(t, "nobody waits in silence", s.String(), `
/ the engine is exporting myapp:1  0s
`)
		pause(2600 * time.Millisecond)
		six(d)
		pause(900 * time.Millisecond)
		d.Note("the engine keeps no layers of its own")
		pause(interval)
		expect(t, "80 columns", s.String(), `
the engine keeps no layers of its own
/ the engine is exporting myapp:1  4s
4f5e6d7c8b00 [===============>                   ]  210MB/476MB    166MB/s
4f5e6d7c8b01 [===================================] 45.2MB         done
4f5e6d7c8b02                                       45.2MB         already there
4f5e6d7c8b03 [===============>                   ] 45.2MB         failed
4f5e6d7c8b04                                       45.2MB         waiting
4f5e6d7c8b05 [                 <=>               ]    3MB         2.37MB/s
`)
		d.Status("")
		d.Note("another")
		d.Close()
		expect(t, "closed", s.String(), `
the engine keeps no layers of its own
another
`)
		if s.hidden {
			t.Error("the cursor stays hidden")
		}
	})
}

func TestTerminalNarrow(t *testing.T) {
	for width, want := range map[int]string{
		40: `
- the engine is exporting a-very-lo  1s
4f5e6d7c8b00  210MB/476MB   166MB/s
4f5e6d7c8b01 45.2MB done
4f5e6d7c8b02 45.2MB already there
4f5e6d7c8b03 45.2MB failed
4f5e6d7c8b04 45.2MB waiting
4f5e6d7c8b05    3MB        2.37MB/s
`,
		20: `
- the engine is  1s
4f5e6d7c8b00  210MB
4f5e6d7c8b01 45.2MB
4f5e6d7c8b02 45.2MB
4f5e6d7c8b03 45.2MB
4f5e6d7c8b04 45.2MB
4f5e6d7c8b05    3MB
`,
		2: "-\n4\n4\n4\n4\n4\n4\n",
	} {
		onScreen(t, width, 24, func(t *testing.T, d *Display, s *screen) {
			d.Status("the engine is exporting a-very-long-name/of/an/image:1")
			six(d)
			pause(time.Second)
			expect(t, fmt.Sprint(width, " columns"), s.String(), want)
		})
	}
}

func TestTerminalFolds(t *testing.T) {
	onScreen(t, 80, 24, func(t *testing.T, d *Display, s *screen) {
		d.Status("moving myapp:1")
		var bars []transfer.Bar
		for i := range 120 {
			bars = append(bars, d.Layer(fmt.Sprintf("%012x", i), mb))
		}
		for _, b := range bars[:87] {
			b.Add(mb)
			b.Done()
		}
		for _, b := range bars[87:107] {
			b.Present()
		}
		for _, b := range bars[108:111] {
			b.Add(mb / 2)
		}
		bars[111].Fail()
		pause(time.Second)
		expect(t, "folded", s.String(), `
- moving myapp:1  1s
87 done, 20 already there, 9 waiting: 88.5MB of 100MB, 69.9MB/s
00000000006c [=================>                 ]  500kB/1MB      395kB/s
00000000006d [=================>                 ]  500kB/1MB      395kB/s
00000000006e [=================>                 ]  500kB/1MB      395kB/s
00000000006f [>                                  ]    1MB         failed
`)
		d.Status("")
		pause(time.Second)
		if got := s.String(); !strings.HasPrefix(got, "87 done, ") {
			t.Errorf("the status stays:\n%s", got)
		}
	})
}

// However many run, and however small the screen is, a frame fits above the cursor's line.
func TestTerminalFitsHeight(t *testing.T) {
	for _, height := range []int{1, 2, 3, 4, 10, 24} {
		onScreen(t, 80, height, func(t *testing.T, d *Display, s *screen) {
			d.Status("moving myapp:1")
			for i := range 120 {
				b := d.Layer(fmt.Sprintf("%012x", i), mb)
				if i >= 60 {
					b.Add(1)
				}
				if i%3 == 0 {
					b.Fail()
				}
			}
			for range 3 {
				pause(interval)
			}
			lines := strings.Count(s.String(), "\n")
			if want := height - 1; lines != want {
				t.Errorf("%d rows: %d lines, want %d:\n%s", height, lines, want, s)
			}
			if height >= 4 && !strings.Contains(s.String(), "more running, 40 failed, 40 waiting") {
				t.Errorf("%d rows: no summary:\n%s", height, s)
			}
		})
	}
}

func TestTerminalResize(t *testing.T) {
	onScreen(t, 80, 24, func(t *testing.T, d *Display, s *screen) {
		d.Note("a note")
		d.Status("the engine is exporting myapp:1")
		six(d)
		pause(interval)
		for _, width := range []int{40, 30, 100, 33, 80} {
			s.resize(width, 24)
			pause(interval)
			if got := s.String(); !strings.HasPrefix(got, "a note\n") || strings.Count(got, "\n") != 8 {
				t.Errorf("%d columns:\n%s", width, got)
			}
		}
		s.resize(50, 24)
		d.Close()
		expect(t, "closed", s.String(), "a note\n")
	})
}

// A frame is one write, and none where nothing changed.
func TestTerminalWritesLittle(t *testing.T) {
	onScreen(t, 80, 24, func(t *testing.T, d *Display, s *screen) {
		pause(time.Second)
		if s.writes != 0 {
			t.Errorf("%d writes of nothing", s.writes)
		}
		b := d.Layer("4f5e6d7c8b9a", mb)
		pause(time.Minute)
		b.Done()
		pause(time.Minute)
		d.Close()
		if s.writes != 3 { // waiting, done, cleared
			t.Errorf("%d writes:\n%q", s.writes, s.seen)
		}
	})
}

// A layer that is tried again moves more bytes than it has.
func TestTerminalTriedAgain(t *testing.T) {
	onScreen(t, 80, 24, func(t *testing.T, d *Display, s *screen) {
		b := d.Layer("4f5e6d7c8b9a", mb)
		b.Add(3 * mb)
		pause(time.Second)
		expect(t, "more than its size", s.String(), `
4f5e6d7c8b9a [===================================]    1MB/1MB     2.37MB/s
`)
	})
}

func TestTerminalLongNote(t *testing.T) {
	onScreen(t, 20, 24, func(t *testing.T, d *Display, s *screen) {
		s.wraps = true
		note := strings.Repeat("0123456789", 5)
		d.Note(note)
		d.Status("waiting")
		pause(interval)
		expect(t, "a long note is whole", s.String(), note+"\n/ waiting  0s\n")
	})
}
