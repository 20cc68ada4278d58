// Command soak lets pushers, pullers, removers, taggers and garbage collections work
// on one remote at once, some of them as processes that are killed, and proves that
// nothing was lost and nothing torn. Run it with `make soak`. With -crash it kills
// commands at each of their operations instead: `make crash`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// options of a soak.
type options struct {
	self      string // this program
	commands  int
	duration  time.Duration
	seed      uint64
	workers   int
	processes int
}

func main() {
	var o options
	stores := flag.String("stores", "directory,s3", "on which kinds of stores")
	flag.IntVar(&o.commands, "commands", 3000, "commands to complete on each store")
	flag.DurationVar(&o.duration, "duration", 10*time.Minute, "at most, on each store; fewer commands than -commands are then a failure")
	flag.Uint64Var(&o.seed, "seed", 1, "of images and commands; what meets what follows from time too")
	flag.IntVar(&o.workers, "workers", 5, "that do commands in this process")
	flag.IntVar(&o.processes, "processes", 3, "that do each command by a process of its own, some of which are killed")
	crash := flag.Bool("crash", false, "kill pushes, copies, tags, removals, prunes and collections at each of their operations instead")
	worker := flag.Bool("worker", false, "used by the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *worker:
		err = work(ctx, os.Stdin, os.Stdout)
	case *crash:
		err = crashAll(ctx, os.Stdout, o)
	default:
		err = soakAll(ctx, o, strings.Split(*stores, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		stop()
		os.Exit(1)
	}
}

// soakAll soaks the kinds of stores one after the other, and prints what came of it.
func soakAll(ctx context.Context, o options, stores []string) (err error) {
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dogestry-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	source, err := scratch(dir, "source")
	if err != nil {
		return err
	}
	at, err := openNew(ctx, source, codec.LZ4, 0)
	if err != nil {
		return err
	}
	catalogue, err := makeCatalogue(ctx, at, many, o.seed)
	if err != nil {
		return err
	}
	catalogue.source = source
	var runs []*run
	for _, name := range stores {
		r := &run{o: o, name: name, catalogue: catalogue}
		if r.dir, err = scratch(dir, "pulled-from-"+name); err != nil {
			return err
		}
		if err := r.on(ctx, dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		runs = append(runs, r)
	}
	return report(os.Stdout, runs, o)
}

// on makes the store, and soaks it.
func (r *run) on(ctx context.Context, dir string) (err error) {
	fmt.Fprintf(os.Stderr, "soak: %s, %d commands, seed %d\n", r.name, r.o.commands, r.o.seed)
	switch r.name {
	case "directory":
		r.remote, err = scratch(dir, "remote")
		if err != nil {
			return err
		}
		return r.soak(ctx)
	case "s3":
		server, err := s3test.Start(ctx, s3test.Options{Parent: dir})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		if err := become(server); err != nil {
			return err
		}
		bucket, err := server.NewBucket()
		if err != nil {
			return err
		}
		r.remote = "s3://" + bucket + "/images?part-size=5MiB&endpoint=" + url.QueryEscape(server.Endpoint)
		return r.soak(ctx)
	}
	return fmt.Errorf("there is no store of this kind: directory, s3")
}

// become gives this process, and those that it starts, the account of a server.
func become(server *s3test.Server) error {
	for _, v := range server.Environment() {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// most is how many violations of a kind are told of.
const most = 10

// report prints the table, and what was wrong. Its error says that something was.
func report(w io.Writer, runs []*run, o options) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "store\tcompleted")
	for _, k := range kinds {
		fmt.Fprintf(t, "\t%s", k)
	}
	fmt.Fprintln(t, "\tkilled\twaited\tfreed\tlost\ttorn\twrong\tseconds")
	completed, bad := 0, 0
	for _, r := range runs {
		n := 0
		for _, k := range kinds {
			n += r.results.completed[k]
		}
		fmt.Fprintf(t, "%s\t%d", r.name, n)
		for _, k := range kinds {
			fmt.Fprintf(t, "\t%d", r.results.completed[k])
		}
		res := &r.results
		fmt.Fprintf(t, "\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\n", res.killed, res.waited, res.freed, len(res.lost), len(res.torn), len(res.wrong), res.took.Seconds())
		completed += n
		bad += len(res.lost) + len(res.torn) + len(res.wrong)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range runs {
		r.results.tell(w, r.name)
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%d violations (seed %d)", bad, o.seed)
	case completed < o.commands*len(runs):
		return fmt.Errorf("only %d of %d commands were completed in %s each: that proves too little", completed, o.commands*len(runs), o.duration)
	}
	return nil
}

// tell prints what was told no, and the first violations of each kind.
func (r *result) tell(w io.Writer, name string) {
	fmt.Fprintf(w, "%s: told no: %v\n", name, r.refused)
	for what, list := range map[string][]string{"lost": r.lost, "torn": r.torn, "wrong": r.wrong} {
		for _, line := range list[:min(most, len(list))] {
			fmt.Fprintf(w, "%s: %s: %s\n", name, what, line)
		}
	}
}
