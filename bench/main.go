// Command bench measures dogestry against its peers, each in the same run and
// in turn, and prints a table of medians and ratios. It starts a private engine
// and stops it. Run it with `make bench`, which builds bin/dogestry first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dogestry/dogestry/internal/enginetest"
)

func main() {
	runs := flag.Int("runs", 5, "counted runs of each command")
	what := flag.String("measure", "directory,bucket,list,gc,verify,copy,memory,registry,link,serve,crowd,rsync,agent,delta", "which figures; memory moves an image of 4 GB, and fleet, which has to be named, takes twelve engines")
	kinds := flag.String("engines", "system", "on which kinds of engines: "+strings.Join(kindNames(), ", "))
	passing := flag.String("relay", "", "used by the program itself")
	binary := flag.String("dogestry", "bin/dogestry", "the program to measure")
	flag.Parse()
	if *passing != "" {
		if err := runRelay(*passing); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	for name := range strings.SplitSeq(*kinds, ",") {
		if err = run(ctx, name, *binary, *runs, strings.Split(*what, ",")); err != nil {
			break
		}
	}
	stop()
	if stopErr := enginetest.StopAll(); err == nil {
		err = stopErr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// kindNames are what -engines takes.
func kindNames() (names []string) {
	for _, k := range dockers() {
		names = append(names, k.Name)
	}
	return names
}

// dockers are the kinds of engines whose own commands are there to compare with.
func dockers() []enginetest.Kind {
	return slices.DeleteFunc(enginetest.Kinds(), func(k enginetest.Kind) bool { return k.Podman })
}

func run(ctx context.Context, name, binary string, runs int, what []string) (err error) {
	all := dockers()
	i := slices.IndexFunc(all, func(k enginetest.Kind) bool { return k.Name == name })
	if i < 0 {
		return fmt.Errorf("no engine %q on this machine; there are %s", name, strings.Join(kindNames(), ", "))
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dogestry-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := all[i].Options
	o.Args = append(o.Args, "--insecure-registry", linkNetwork)
	e, err := enginetest.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	b := &bench{ctx: ctx, engine: e, containerd: o.ContainerdStore, dogestry: binary, dir: dir, runs: runs, peak: map[string]int64{}}
	version, err := e.Version(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nDocker Engine %s (%s), medians of %d runs, seconds of wall time\n\n", version, name, runs)
	measures := map[string][]func() error{
		"directory": {b.journeys},
		"bucket":    {b.onServer(b.bucket)},
		"list":      {b.onServer(b.list)},
		"gc":        {b.onServer(b.collect)},
		"verify":    {b.verify},
		"copy":      {b.onServer(b.copies)},
		"memory":    {b.memory, b.onServer(b.bucketMemory)},
		"registry":  {b.onRegistry(b.registryPeers)},
		"link":      {b.onLink},
		"serve":     {b.onRegistry(b.serving), b.onRegistry(b.cachedServing), b.onServedLink},
		"crowd":     {b.onRegistry(b.crowd)},
		"fleet":     {b.onFleet(o)},
		"agent":     {b.onServer(b.following)},
		"rsync":     {b.onTheWire},
		"delta":     {b.onServer(b.deltas), b.onDeltaLink, b.indexing},
	}
	for _, w := range what {
		if measures[w] == nil {
			return fmt.Errorf("no figures %q", w)
		}
		for _, measure := range measures[w] {
			if err := measure(); err != nil {
				return err
			}
		}
	}
	b.print(os.Stdout)
	return nil
}
