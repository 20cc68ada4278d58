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
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/cli/progress"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// Exit codes of a command that a signal ended; the others are fault.Kinds.
const (
	exitInterrupted = 130
	exitTerminated  = 143
)

// Main runs the command line args and returns the exit code. SIGINT and SIGTERM
// stop it at once; a second one kills it.
func Main(args []string, stdout, stderr io.Writer) int {
	return mainWith(args, stdout, stderr, config.SystemFile)
}

// mainWith is Main with the name of the administrator's configuration.
func mainWith(args []string, stdout, stderr io.Writer, systemFile string) int {
	plugin := isPlugin(os.Args[0])
	ctx, caught, stop := signals(context.Background(), plugin)
	defer stop()
	out := &results{w: stdout}
	a := &app{in: os.Stdin, out: out, errOut: stderr, caught: caught, systemFile: systemFile}
	defer a.unlock()
	err := a.run(ctx, args, plugin)
	if err == nil && out.err != nil {
		err = fault.Wrap(fault.Other, out.err, "cannot write the result")
	}
	if err == nil {
		return 0
	}
	a.json = a.json || slices.Contains(args, "--json") // flags behind a wrong one are not parsed
	code := int(fault.KindOf(err))
	if ended, by := a.bySignal(); by != nil {
		var told printed
		if code = ended; errors.As(err, &told) {
			by = printed{by} // stdout has its one document
		}
		err = by
	}
	a.printError(a.inNames(err))
	return code
}

// run runs a command line, of docker's if the program is its plugin.
func (a *app) run(ctx context.Context, args []string, plugin bool) error {
	root := a.root()
	if plugin {
		if slices.Equal(args, []string{pluginMetadata}) {
			a.printMetadata()
			return nil
		}
		var err error
		if args, err = asPlugin(args); err != nil {
			return err
		}
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "docker " + pluginWord}
	}
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	return root.ExecuteContext(ctx)
}

// bySignal returns the exit code and the error of a command that a signal ends,
// and a nil error where none came.
func (a *app) bySignal() (code int, err error) {
	switch sig := a.caught(); sig {
	case nil:
		return 0, nil
	case syscall.SIGTERM:
		return exitTerminated, errors.New("terminated")
	default:
		return exitInterrupted, errors.New("interrupted")
	}
}

// orSignal is the error of a command that failed with err: what a signal brought
// about is told as that.
func (a *app) orSignal(err error) error {
	if _, by := a.bySignal(); err != nil && by != nil {
		return by
	}
	return err
}

// results is stdout: what could not be written there is told at the end.
type results struct {
	w   io.Writer
	err error
}

func (r *results) Write(p []byte) (n int, err error) {
	if r.err == nil {
		n, r.err = r.w.Write(p)
	}
	return n, r.err
}

// signals returns a context that ends at the first SIGINT or SIGTERM, and what
// tells which it was. A plugin of docker's may be told to end by that.
func signals(parent context.Context, plugin bool) (ctx context.Context, caught func() os.Signal, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	incoming := make(chan os.Signal, 1)
	signal.Notify(incoming, os.Interrupt, syscall.SIGTERM)
	if plugin {
		whenDockerEnds(func() {
			select {
			case incoming <- syscall.SIGTERM:
			default: // there is one
			}
		})
	}
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
	in          *os.File
	out, errOut io.Writer
	caught      func() os.Signal // nil until one came
	systemFile  string           // the administrator's configuration
	configFile  string           // instead of the user's

	set   *config.Config // once it is read: what is set for the remotes that the command line names
	named []namedRemote  // those of them that it names by a name

	display atomic.Pointer[progress.Display] // nil while none is open

	json   bool
	quiet  bool
	debug  bool
	engine string

	sealed bool         // once the flags and the configuration are read
	seal   *sealed.Seal // nil where it is not

	engineStore engine.StoreUse

	uploadLimit, downloadLimit byteRate
	limitTyped                 bool // one of them is on the command line

	completing bool // a shell wants names: nobody is asked, and nothing locked

	noWait  bool // for garbage collections, nor for the lock
	noIndex bool // in layers that are stored

	lockFile string
	lock     io.Closer // nil where none is held
}

// Tree returns the commands and their flags, for who writes about them: manual pages, completions.
// It is new with each call, and not there to be executed; [Main] does that.
func Tree() *cobra.Command { return (&app{}).root() }

func (a *app) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "dogestry COMMAND",
		Short: "Store and ship Docker images with nothing but a directory or a bucket",
		Long: `dogestry moves self-consistent Docker images between engines and remotes.
A remote is a directory or a bucket: nothing has to run there, and nothing else
has to be up. A registry can be one, too.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			if version {
				return a.printVersion()
			}
			return c.Help()
		},

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err) })
	root.Flags().BoolVar(&version, "version", false, "show the version")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result, or the error, as one JSON document on stdout")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	root.PersistentFlags().BoolVar(&a.debug, "debug", false, "log what happens inside, on stderr")
	root.PersistentFlags().BoolVar(&a.sealed, sealedFlag, false, "contact the remotes and the engine that are named, and nothing else (docs/sealed.md)")
	root.PersistentFlags().StringVar(&a.configFile, "config-file", "", "read this `FILE` instead of the user's configuration")
	root.PersistentFlags().StringVar(&a.lockFile, lockFlag, "", "one dogestry at a time that names this `FILE`: wait until the others have ended")
	root.PersistentFlags().BoolVar(&a.noWait, "no-wait", false, "fail (exit code 7) instead of waiting for that, or for a gc that is about to delete what is needed")
	root.PersistentPreRunE = a.prepare
	root.AddCommand(a.pushCommand(), a.pullCommand(), a.copyCommand(), a.listCommand(), a.inspectCommand(), a.verifyCommand(), a.checkCommand(), a.gcCommand(), a.keygenCommand(), a.versionCommand())
	root.AddCommand(a.tagCommand(), a.rmCommand(), a.pruneCommand(), a.duCommand(), a.upgradeCommand(), a.indexCommand())
	root.AddCommand(a.exportCommand(), a.importCommand(), a.sealCommand(), a.serveCommand(), a.agentCommand())
	root.AddCommand(a.remoteCommand(), a.loginCommand(), a.logoutCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				_, rest, _ := root.Find(args)
				return noSuchCommand(root, rest)
			}
		case "completion":
			c.Args, c.RunE = noSuchCommand, root.RunE
			for _, shell := range c.Commands() {
				shell.Args = usageArgs(shell.Args)
			}
		default:
			c.Args = usageArgs(c.Args)
			a.completeArgs(c)
		}
	}
	return root
}

// noSuchCommand refuses what is left of a command line that no command was found for.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	f := fault.New(fault.Usage, "unknown command %q", args[0])
	near := slices.DeleteFunc(c.SuggestionsFor(args[0]), func(name string) bool {
		// Any short word is two letters away from "rm".
		return len(name) <= c.SuggestionsMinimumDistance && !strings.HasPrefix(args[0], name[:1])
	})
	if len(near) > 0 {
		return f.Advise("Did you mean %s?", strings.Join(near, " or "))
	}
	return f.Advise("See `%s --help`.", c.CommandPath())
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

// failure is an error in --json output.
type failure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{fault.KindOf(err).String(), err.Error(), fault.AdviceOf(err)}
}

// printError tells of a failure: on stderr for people, with --json on stdout too.
func (a *app) printError(err error) {
	var told printed
	if a.json && !errors.As(err, &told) {
		a.printJSON(map[string]*failure{"error": failureOf(err)})
	}
	fmt.Fprintln(a.errOut, "dogestry: "+printable(err.Error()))
	a.printAdvice(err)
}

// printAdvice says what to do about err, if anything is to be said.
func (a *app) printAdvice(err error) {
	if advice := fault.AdviceOf(err); advice != "" {
		fmt.Fprintln(a.errOut, "  "+strings.ReplaceAll(printable(advice), "\n", "\n  "))
	}
}

// printDocument prints a result and returns err, of which the document tells.
func (a *app) printDocument(v any, err error) error {
	a.printJSON(v)
	if err != nil {
		return printed{err}
	}
	return nil
}

// printed is an error whose details are on stdout already.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

func (a *app) printJSON(v any) {
	io.WriteString(a.out, indentedJSON(v)) //nolint:errcheck // results keeps it
}

// indentedJSON returns v and a line feed. What JSON allows in its strings and a
// terminal would obey is escaped.
func indentedJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err) // no type that is printed can fail
	}
	var safe strings.Builder
	for _, r := range b.String() {
		if r != '\n' && obeyed(r) {
			fmt.Fprintf(&safe, `\u%04x`, r)
		} else {
			safe.WriteRune(r)
		}
	}
	return safe.String()
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

// note tells something that stays on the screen while a command runs.
func (a *app) note(line string) {
	if d := a.display.Load(); d != nil {
		d.Note(printable(line))
	}
}

// show opens the display for a command that takes time. Nothing else may write
// to stderr until hide, which may be called again.
func (a *app) show() (d *progress.Display, hide func()) { return a.showVerb("") }

// showVerb is show for what does something else than move layers.
func (a *app) showVerb(verb string) (d *progress.Display, hide func()) {
	return a.showWith(progress.Options{Verb: verb})
}

func (a *app) showWith(o progress.Options) (d *progress.Display, hide func()) {
	o.Quiet = a.quiet
	d = progress.New(a.errOut, o)
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
		if r != '\n' && r != '\t' && obeyed(r) {
			return '�'
		}
		return r
	}, s)
}

// obeyed reports whether a terminal does something at r instead of showing it.
func obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

// oneLine is printable for what must not begin a line or a column of its own.
func oneLine(s string) string { return printable(strings.Join(strings.Fields(s), " ")) }
