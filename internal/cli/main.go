// Package cli is dogestry's commands: each parses, makes one call, and prints.
// It is the one place that names concrete transports and engines.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/cli/progress"
	"github.com/dogestry/dogestry/internal/fault"
)

// Exit codes of a command that a signal ended; the others are fault.Kinds.
const (
	exitInterrupted = 130
	exitTerminated  = 143
)

// Main runs the command line args and returns the exit code. SIGINT and SIGTERM
// stop it at once; a second one kills it.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, caught, stop := signals(context.Background())
	defer stop()
	a := &app{out: stdout, errOut: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := int(kindOf(err))
	switch sig := caught(); {
	case sig == syscall.SIGTERM:
		code, err = exitTerminated, errors.New("terminated")
	case sig != nil:
		code, err = exitInterrupted, errors.New("interrupted")
	}
	a.printError(err)
	return code
}

// signals returns a context that ends at the first SIGINT or SIGTERM, and what
// tells which it was.
func signals(parent context.Context) (ctx context.Context, caught func() os.Signal, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	incoming := make(chan os.Signal, 1)
	signal.Notify(incoming, os.Interrupt, syscall.SIGTERM)
	var first atomic.Value
	go func() {
		select {
		case s := <-incoming:
			first.Store(s)
			signal.Stop(incoming) // the next one has its default effect
			cancel()
		case <-ctx.Done():
		}
	}()
	caught = func() os.Signal {
		s, _ := first.Load().(os.Signal)
		return s
	}
	return ctx, caught, func() {
		signal.Stop(incoming)
		cancel()
	}
}

// app holds what all commands share.
type app struct {
	out, errOut io.Writer

	display atomic.Pointer[progress.Display] // nil while none is open

	json   bool
	quiet  bool
	debug  bool
	engine string
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dogestry COMMAND",
		Short: "Store and ship Docker images with nothing but a directory or a bucket",
		Long: `dogestry moves self-consistent Docker images between engines and remotes.
A remote is a directory: nothing has to run there, and nothing else has to be up.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err) })
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result, or the error, as one JSON document on stdout")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	root.PersistentFlags().BoolVar(&a.debug, "debug", false, "log what happens inside, on stderr")
	root.AddCommand(a.pushCommand(), a.pullCommand(), a.listCommand(), a.inspectCommand(), a.versionCommand())
	for _, c := range root.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return root
}

// usageArgs makes errors about the number of arguments usage faults.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return usageError(c, err)
		}
		return nil
	}
}

func usageError(c *cobra.Command, err error) error {
	return fault.New(fault.Usage, "%s", err).Advise("Usage: %s\nSee `%s --help`.", c.UseLine(), c.CommandPath())
}

// kindOf returns an error's kind; what cobra itself refuses is usage.
func kindOf(err error) fault.Kind {
	if strings.HasPrefix(err.Error(), "unknown command ") {
		return fault.Usage
	}
	return fault.KindOf(err)
}

// printError tells of a failure: on stderr for people, with --json on stdout.
func (a *app) printError(err error) {
	advice := fault.AdviceOf(err)
	var told printed
	if a.json && !errors.As(err, &told) {
		type failure struct {
			Kind    string `json:"kind"`
			Message string `json:"message"`
			Advice  string `json:"advice,omitempty"`
		}
		a.printJSON(map[string]failure{"error": {kindOf(err).String(), err.Error(), advice}})
	}
	fmt.Fprintln(a.errOut, "dogestry: "+printable(err.Error()))
	if advice != "" {
		fmt.Fprintln(a.errOut, "  "+strings.ReplaceAll(printable(advice), "\n", "\n  "))
	}
}

// printed is an error whose details are on stdout already.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

func (a *app) printJSON(v any) {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	e.Encode(v) //nolint:errcheck // nothing is left to tell it to
}

// log returns the logger that --debug asks for.
func (a *app) log() *slog.Logger {
	if !a.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(logWriter{a}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// logWriter writes log lines to stderr, by way of the display while there is one.
type logWriter struct{ a *app }

func (w logWriter) Write(line []byte) (int, error) {
	if d := w.a.display.Load(); d != nil {
		d.Note(strings.TrimSuffix(string(line), "\n"))
		return len(line), nil
	}
	return w.a.errOut.Write(line)
}

// show opens the display for a command that takes time. Nothing else may write
// to stderr until hide, which may be called again.
func (a *app) show() (d *progress.Display, hide func()) {
	d = progress.New(a.errOut, progress.Options{Quiet: a.quiet})
	if !a.quiet {
		a.display.Store(d)
	}
	return d, func() {
		a.display.Store(nil)
		d.Close()
	}
}

// printable keeps control characters in names and errors, which others wrote,
// from reaching the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) {
			return '�'
		}
		return r
	}, s)
}
