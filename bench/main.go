// Command bench measures dogestry against its peers, each in the same run and
// in turn, and prints a table of medians and ratios. It starts a private engine
// and stops it. Run it with `make bench`, which builds bin/dogestry first.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/dogestry/dogestry/internal/enginetest"
)

func main() {
	runs := flag.Int("runs", 5, "counted runs of each command")
	big := flag.Bool("big", true, "also move an image of 4 GB, for the peak of memory")
	binary := flag.String("dogestry", "bin/dogestry", "the program to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, *runs, *big)
	stop()
	if stopErr := enginetest.StopAll(); err == nil {
		err = stopErr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, runs int, big bool) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dogestry-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e, err := enginetest.Start(ctx, enginetest.Options{})
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, engine: e, dogestry: binary, dir: dir, runs: runs}
	version, err := e.Version(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("Docker Engine %s, medians of %d runs, seconds of wall time\n\n", version, runs)
	if err := b.journeys(); err != nil {
		return err
	}
	if big {
		if err := b.memory(); err != nil {
			return err
		}
	}
	b.print(os.Stdout)
	return nil
}
