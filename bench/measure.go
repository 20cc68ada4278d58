package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// bench keeps the first error; after one its methods do nothing.
type bench struct {
	ctx      context.Context
	engine   *enginetest.Engine
	dogestry string
	dir      string
	runs     int

	rows  []row
	peak  int64 // bytes, the highest of all runs of dogestry
	peaks []string
	err   error
}

// figure is a line of the table.
type figure struct {
	name     string
	peer     string
	most     float64
	absolute bool // most is seconds, not a ratio to the peer
}

type row struct {
	figure
	ours, peers []time.Duration
}

// command is one timed call.
type command struct {
	args   []string
	before func() error // not timed
	warm   string       // a file to have in the page cache
}

// compare times ours and the peer in turn, after one round that does not count.
func (b *bench) compare(f figure, ours, peer command) {
	r := row{figure: f}
	for i := range b.runs + 1 {
		p, o := b.time(peer), b.time(ours)
		if i > 0 {
			r.peers, r.ours = append(r.peers, p), append(r.ours, o)
		}
	}
	b.add(r)
}

// measure times one command alone.
func (b *bench) measure(f figure, ours command) {
	r := row{figure: f}
	for i := range b.runs + 1 {
		if o := b.time(ours); i > 0 {
			r.ours = append(r.ours, o)
		}
	}
	b.add(r)
}

func (b *bench) once(c command) { b.time(c) }

func (b *bench) add(r row) {
	if b.err != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "bench: %s: %v, peer %v\n", r.name, r.ours, r.peers)
	b.rows = append(b.rows, r)
}

// noteMemory runs a command once for its peak of memory.
func (b *bench) noteMemory(name string, c command) {
	before := b.peak
	b.peak = 0
	took := b.time(c)
	if b.err == nil {
		b.peaks = append(b.peaks, fmt.Sprintf("%s: %d MB, %.1f s", name, b.peak/1e6, took.Seconds()))
	}
	b.peak = max(before, b.peak)
}

// time runs a command and returns its wall time. What an earlier command left
// to be written to disk is written first, so that nobody pays for another.
func (b *bench) time(c command) time.Duration {
	if b.err != nil {
		return 0
	}
	if c.before != nil {
		if b.err = c.before(); b.err != nil {
			return 0
		}
	}
	if c.warm != "" {
		if b.err = warm(c.warm); b.err != nil {
			return 0
		}
	}
	syscall.Sync()
	cmd := exec.CommandContext(b.ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+b.engine.Host, "XDG_CACHE_HOME="+b.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		b.err = fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, stderr.Bytes())
		return 0
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && c.args[0] == b.dogestry {
		b.peak = max(b.peak, usage.Maxrss*1024)
	}
	return took
}

func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

func (b *bench) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tdogestry\tpeer\tratio\tat most\t")
	for _, r := range b.rows {
		ours := median(r.ours)
		if r.absolute {
			fmt.Fprintf(t, "%s\t%.3f\t\t\t%.1f s\t%s\n", r.name, ours.Seconds(), r.most, verdict(ours.Seconds() <= r.most))
			continue
		}
		peer := median(r.peers)
		ratio := ours.Seconds() / peer.Seconds()
		fmt.Fprintf(t, "%s\t%.2f\t%.2f (%s)\t%.2f\t%.2f\t%s\n", r.name, ours.Seconds(), peer.Seconds(), r.peer, ratio, r.most, verdict(ratio <= r.most))
	}
	fmt.Fprintf(t, "peak memory of dogestry, any of these\t%d MB\t\t\t200 MB\t%s\n", b.peak/1e6, verdict(b.peak <= 200e6))
	t.Flush()
	for _, p := range b.peaks {
		fmt.Fprintln(w, "  "+p)
	}
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}
