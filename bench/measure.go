package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// bench keeps the first error; after one its methods do nothing.
type bench struct {
	ctx    context.Context
	engine *enginetest.Engine

	containerd bool // the engine's image store

	dogestry string
	dir      string
	env      []string // of commands, besides the machine's and the engine
	runs     int

	rows   []row
	shares []share
	peak   map[string]int64 // bytes by kind of remote, the highest of all runs of dogestry
	peaks  []string
	err    error
}

// mostMemory is the most resident memory, in bytes, that dogestry may take at its peak.
var mostMemory = map[string]int64{"directory": 200e6, "bucket": 250e6}

// kind is the kind of remote that is being measured: a bucket has an environment.
func (b *bench) kind() string {
	if b.env != nil {
		return "bucket"
	}
	return "directory"
}

// figure is a line of the table.
type figure struct {
	name     string
	peer     string
	most     float64 // 0: none
	absolute bool    // most is seconds, not a ratio to the peer
}

type row struct {
	figure
	ours, peers []time.Duration
}

// share is a line of the table about bytes.
type share struct {
	name, of    string
	part, whole int64
	most        float64 // 0: none
}

// command is one timed call.
type command struct {
	args   []string
	stdout io.Writer    // nil: nowhere
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

func (b *bench) addShare(s share) {
	fmt.Fprintf(os.Stderr, "bench: %s: %d, %d %s\n", s.name, s.part, s.whole, s.of)
	b.shares = append(b.shares, s)
}

// noteMemory runs a command once for its peak of memory.
func (b *bench) noteMemory(name string, c command) {
	kind := b.kind()
	before := b.peak[kind]
	b.peak[kind] = 0
	took := b.time(c)
	if b.err == nil {
		b.peaks = append(b.peaks, fmt.Sprintf("%s: %d MB, %.1f s", name, b.peak[kind]/1e6, took.Seconds()))
	}
	b.peak[kind] = max(before, b.peak[kind])
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
	flush()
	cmd := exec.CommandContext(b.ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+b.engine.Host, "XDG_CACHE_HOME="+filepath.Join(b.dir, "cache"))
	cmd.Env = append(cmd.Env, b.env...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = c.stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		b.err = fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, stderr.Bytes())
		return 0
	}
	if c.args[0] == b.dogestry {
		b.peak[b.kind()] = max(b.peak[b.kind()], peakMemory(cmd.ProcessState))
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
		if r.most == 0 {
			fmt.Fprintf(t, "%s\t%.2f\t%.2f (%s)\t%.2f\t\t\n", r.name, ours.Seconds(), median(r.peers).Seconds(), r.peer, ours.Seconds()/median(r.peers).Seconds())
			continue
		}
		peer := median(r.peers)
		ratio := ours.Seconds() / peer.Seconds()
		fmt.Fprintf(t, "%s\t%.2f\t%.2f (%s)\t%.2f\t%.2f\t%s\n", r.name, ours.Seconds(), peer.Seconds(), r.peer, ratio, r.most, verdict(ratio <= r.most))
	}
	for _, s := range b.shares {
		ratio := float64(s.part) / float64(s.whole)
		fmt.Fprintf(t, "%s\t%d\t%d (%s)\t%.4f\t", s.name, s.part, s.whole, s.of, ratio)
		if s.most == 0 {
			fmt.Fprintln(t, "\t")
			continue
		}
		fmt.Fprintf(t, "%.2f\t%s\n", s.most, verdict(ratio <= s.most))
	}
	for _, kind := range []string{"directory", "bucket"} {
		if peak, most := b.peak[kind], mostMemory[kind]; peak > 0 {
			fmt.Fprintf(t, "peak memory of dogestry, any of these with a %s\t%d MB\t\t\t%d MB\t%s\n", kind, peak/1e6, most/1e6, verdict(peak <= most))
		}
	}
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

func median[T cmp.Ordered](d []T) T {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// classicOnly returns a limit that is one of engines with the classic image store.
func (b *bench) classicOnly(most float64) float64 {
	if b.containerd {
		return 0
	}
	return most
}
