package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/transfer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mb = 1_000_000

// pause lets d draw: it sleeps for t of the bubble's clock, and until all is quiet.
func pause(t time.Duration) {
	time.Sleep(t)
	synctest.Wait()
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(want, "\n")
	if got != want {
		t.Errorf("%s\n--- got\n%s\n--- want\n%s", what, got, want)
	}
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	d := New(&out, Options{Quiet: true, Bars: Always})
	d.Status("the engine is exporting myapp:1")
	d.Note("a note")
	b := d.Layer("4f5e6d7c8b9a", 5)
	b.Add(5)
	b.Done()
	d.Close()
	d.Close()
	expect(t, "quiet", out.String(), "")
}

func TestCloseTwiceFromMany(t *testing.T) {
	d := New(io.Discard, Options{Bars: Always})
	b := d.Layer("4f5e6d7c8b9a", -1) // never ends
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(d.Close)
	}
	wg.Wait()
	b.Add(1)
	b.Done()
	d.Note("too late")
	d.Status("too late")
	d.Layer("0a1b2c3d4e5f", 1).Fail()
}

func TestWhereBarsAreDrawn(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		term string
		o    Options
		w    io.Writer
		want bool
	}{
		{"xterm", Options{}, null, false},
		{"xterm", Options{}, io.Discard, false},
		{"xterm", Options{Bars: Always}, io.Discard, true},
		{"dumb", Options{Bars: Always}, null, true},
		{"dumb", Options{}, null, false},
		{"xterm", Options{Bars: Never}, null, false},
	} {
		t.Setenv("TERM", c.term)
		if got := c.o.bars(c.w); got != c.want {
			t.Errorf("TERM=%s %+v on %T: bars is %v", c.term, c.o, c.w, got)
		}
	}
}

func TestColor(t *testing.T) {
	for _, c := range []struct {
		noColor string
		color   Choice
		want    bool
	}{
		{"", Auto, true},
		{"1", Auto, false},
		{"1", Always, true},
		{"", Never, false},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		synctest.Test(t, func(t *testing.T) {
			s := newScreen(t, 80, 24)
			d := New(s, Options{Bars: Always, Color: c.color, size: s.size})
			d.Layer("4f5e6d7c8b9a", 5).Done()
			pause(interval)
			d.Close()
			if got := strings.Contains(s.seen, green+"done"+plain); got != c.want {
				t.Errorf("NO_COLOR=%q, Color %v: coloured is %v", c.noColor, c.color, got)
			}
		})
	}
}

type failingWriter struct{ calls int }

func (w *failingWriter) Write([]byte) (int, error) {
	w.calls++
	return 0, errors.New("nobody reads")
}

func TestWriterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w failingWriter
		d := New(&w, Options{Bars: Always})
		d.Status("the engine is exporting myapp:1")
		pause(time.Second)
		d.Close()
		if w.calls != 1 {
			t.Errorf("wrote %d times after the failure", w.calls-1)
		}
	})
}

// A writer that stands still holds up nobody but Close.
func TestWriterStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		d := New(w, Options{Bars: Never})
		start := time.Now()
		for i := range 100 {
			d.Note("a note")
			d.Layer("4f5e6d7c8b9a", int64(i)).Present()
			pause(interval)
		}
		if took := time.Since(start); took != 100*interval {
			t.Errorf("calls waited: %v", took)
		}
		r.Close()
		d.Close()
	})
}

func TestRace(t *testing.T) {
	for _, bars := range []Choice{Always, Never} {
		var out bytes.Buffer // without a lock: only the Display's goroutine may write
		d := New(&out, Options{Bars: bars})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				b := d.Layer(fmt.Sprintf("%012x", i), 20_000)
				for range 20_000 {
					b.Add(1)
				}
				d.Status("the engine is loading myapp:1")
				d.Note("a note")
				wg.Go(b.Done)
				wg.Go(b.Fail)
				wg.Go(b.Present)
				b.Add(1)
			})
		}
		time.Sleep(2 * interval)
		wg.Go(d.Close)
		wg.Wait()
	}
}

func BenchmarkAdd(b *testing.B) {
	d := New(io.Discard, Options{Bars: Always})
	defer d.Close()
	bar := d.Layer("4f5e6d7c8b9a", -1)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			bar.Add(1)
		}
	})
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1kB", 45_230_000: "45.2MB", 476 * mb: "476MB",
		999_400_000: "999MB", 999_600_000: "1GB", 999_999_999: "1GB", 1_234_567_890: "1.23GB",
	} {
		if got := human(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"two\nlines":            "two lines",
		"\x1b[2Jgone\a\u202e":   "[2Jgone",
		" façade 画像\r\n":        "façade 画像",
		"\xff is not a letter ": "\ufffd is not a letter",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"abc", 5, "abc"},
		{"abc", 2, "ab"},
		{"abc", 0, ""},
		{"abc", -1, ""},
		{"a画像", 4, "a画"},
	} {
		if got := cut(c.text, c.width); got != c.want {
			t.Errorf("%q cut to %d is %q", c.text, c.width, got)
		}
	}
}

// The first byte starts the clock, and old measurements fade.
func TestMeter(t *testing.T) {
	now := time.Unix(0, 0)
	m := meter{at: now}
	step := func(total int64) string {
		now = now.Add(interval)
		return human(m.rate(now, total))
	}
	for range 100 {
		step(0)
	}
	if got := step(mb); got != "10MB" {
		t.Errorf("the first rate is %s", got)
	}
	for i := range int64(100) {
		step(mb + i*mb/10)
	}
	if got := step(11 * mb); !strings.HasPrefix(got, "1.0") && got != "1MB" {
		t.Errorf("after ten seconds at 1MB/s the rate is %s", got)
	}
	for range 300 {
		step(11 * mb)
	}
	if got := m.rate(now, 11*mb); got > 1 {
		t.Errorf("after 30 seconds of nothing the rate is %s", human(got))
	}
}

var _ transfer.Bar = (*bar)(nil)
