package progress

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := New(&out, Options{Bars: Never})
		d.Status("a wait that is over soon gets no line")
		pause(statusAfter / 2)
		d.Status("the engine is exporting myapp:1")
		d.Status("the engine is exporting myapp:1")
		pause(3 * time.Second)
		d.Note("the engine keeps\nno layers of its own")
		var bars [6]interface {
			Add(int)
			Present()
			Done()
			Fail()
		}
		for i := range bars {
			bars[i] = d.Layer(fmt.Sprintf("%012x", i), 100*mb)
		}
		d.Status("moving myapp:1")
		bars[0].Present()
		bars[1].Present()
		pause(time.Second)
		for range 210 { // 21 s at 10 MB/s: two reports
			bars[2].Add(mb / 2)
			bars[3].Add(mb / 2)
			pause(interval)
		}
		bars[2].Done()
		bars[2].Fail() // too late
		bars[3].Fail()
		d.Status("")
		pause(time.Minute) // nothing runs: silence
		bars[4].Done()
		d.Note("the last words")
		d.Close()
		expect(t, "lines", out.String(), `
the engine is exporting myapp:1 …
the engine keeps no layers of its own
000000000000: already there
000000000001: already there
moving myapp:1 …
moved 100MB of 400MB, 0 of 4 layers, 10MB/s
moved 200MB of 400MB, 0 of 4 layers, 10MB/s
000000000002: done 100MB
000000000003: failed
000000000004: done 100MB
the last words
`)
	})
}

func TestLinesWithoutSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := New(&out, Options{Bars: Never})
		pause(interval / 2)
		b := d.Layer("4f5e6d7c8b9a", -1)
		b.Add(45_230_000)
		pause(10 * time.Second)
		b.Done()
		d.Close()
		expect(t, "lines", out.String(), `
moved 45.2MB, 0 of 1 layers, 4.52MB/s
4f5e6d7c8b9a: done 45.2MB
`)
	})
}

func TestLinesFoldPresent(t *testing.T) {
	announce := func(d *Display, n int) {
		for i := range n {
			d.Layer(fmt.Sprintf("%012x", i), mb).Present()
		}
	}
	for _, c := range []struct {
		name string
		run  func(d *Display)
		want string
	}{
		{"a burst over several ticks", func(d *Display) {
			for range 10 {
				announce(d, 10)
				pause(interval)
			}
			pause(2 * interval)
			d.Note("after")
		}, "100 layers: already there\nafter\n"},
		{"at once, then the end", func(d *Display) { announce(d, 21) }, "21 layers: already there\n"},
		{"one by one", func(d *Display) {
			for range 43 {
				announce(d, 1)
				pause(time.Second)
			}
		}, repeat("000000000000: already there\n", 20) + "21 layers: already there\n2 layers: already there\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				d := New(&out, Options{Bars: Never})
				c.run(d)
				d.Close()
				expect(t, "lines", out.String(), c.want)
			})
		})
	}
}

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }

// TestVerb is about what moves no layers, and shows many things as one bar.
func TestVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := New(&out, Options{Bars: Never, Verb: "verified"})
		bar := d.Layer("layers", 300*mb)
		for range 210 { // 21 s at 10 MB/s: two reports
			bar.Add(mb)
			pause(interval)
		}
		bar.Done()
		d.Close()
		expect(t, "lines", out.String(), `
verified 100MB of 300MB, 10MB/s
verified 200MB of 300MB, 10MB/s
layers: done 300MB
`)
	})
}
