package rsync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
)

// program is the system's rsync.
const program = "rsync"

// ways are the two in which a run goes.
type way int

const (
	up   way = iota // from a directory of the spool to the module
	down            // from the module to a directory of the spool
	look            // from the module, names and no bytes
)

// run is one run of rsync.
type run struct {
	way     way
	local   string   // the directory on this machine
	names   []string // what goes, below the module; never arguments
	options []string
	line    func(string) error // is given each line of its output; may be nil
	most    func() int64       // bytes that may lie in local while it runs; may be nil
}

// maxErrors is how much of what rsync says on stderr is read, in bytes.
const maxErrors = 64 << 10

// run runs rsync and waits until it has ended. Its error is a *failed, or that of ctx.
func (s *Store) run(ctx context.Context, r run) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	list := filepath.Join(dir, "names")
	if err := os.WriteFile(list, []byte(strings.Join(r.names, "\x00")+"\x00"), 0o600); err != nil {
		return spoolFailure(s.spool.place, err)
	}
	if r.local == "" {
		r.local = dir
	}
	args := append([]string{
		"--files-from=" + list, "--from0",
		// A directory above what goes is made where there is none, and is never sent: sent,
		// it would take the place of an object with its name.
		"--no-implied-dirs",
		"--no-motd",
		// Both sides say little and wait for an answer: Nagle's algorithm and delayed
		// acknowledgements would make each wait 40 ms, some three times a run.
		"--sockopts=TCP_NODELAY",
		"--timeout=" + strconv.Itoa(s.timeout()), "--contimeout=" + strconv.Itoa(min(s.timeout(), 30)),
	}, s.options(r.way)...)
	args = append(append(args, r.options...), "--")
	if r.way == up {
		args = append(args, r.local+"/", s.o.module())
	} else {
		args = append(args, s.o.module(), r.local+"/")
	}
	select {
	case s.runs <- struct{}{}:
		defer func() { <-s.runs }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.exec(ctx, r, args)
}

// options are those of a way, with what the user has set.
func (s *Store) options(w way) (options []string) {
	limit := s.o.DownloadLimit
	if w == up {
		limit = s.o.UploadLimit
	}
	if limit > 0 {
		options = append(options, "--bwlimit="+strconv.FormatInt(max(limit>>10, 1), 10)) // KiB
	}
	if s.o.PasswordFile != "" {
		options = append(options, "--password-file="+s.o.PasswordFile)
	}
	return options
}

func (s *Store) timeout() int {
	if s.o.Timeout > 0 {
		return int((s.o.Timeout + time.Second - 1) / time.Second)
	}
	return 120
}

func (s *Store) exec(ctx context.Context, r run, args []string) error {
	// The thread that starts it has to live as long: what ends it with this process
	// (Pdeathsig) goes by the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := ctx.Err(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.path, args...)
	cmd.Env = s.env
	cmd.SysProcAttr = session()
	cmd.Cancel = func() error { return kill(cmd.Process) }
	cmd.WaitDelay = 10 * time.Second
	said := &head{most: maxErrors}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fault.Wrap(fault.Other, err, "cannot run %s", program)
	}
	watched := r.watch(func() { _ = kill(cmd.Process) })
	lineErr := eachLine(out, r.line)
	if lineErr != nil {
		_ = kill(cmd.Process)
	}
	err = cmd.Wait()
	tooMuch := watched()
	s.o.log().Debug("rsync has run", "way", r.way, "names", len(r.names), "state", cmd.ProcessState)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case lineErr != nil:
		return lineErr
	case tooMuch:
		return fault.New(fault.Other, "%s: the server sends more than it has announced", s.o.url()).
			Advise("It is broken, or means harm: nothing of it is used.")
	case err == nil:
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fault.Wrap(fault.Other, err, "cannot run %s", program)
	}
	return &failed{code: exit.ExitCode(), way: r.way, said: said.lines()}
}

// maxLine bounds a line of output, in bytes: a name, each byte of it escaped.
const maxLine = 64 << 10

func eachLine(from io.Reader, do func(string) error) error {
	if do == nil {
		_, err := io.Copy(io.Discard, from)
		return ignoreClosed(err)
	}
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 4<<10), maxLine)
	for lines.Scan() {
		if err := do(lines.Text()); err != nil {
			return err
		}
	}
	return ignoreClosed(lines.Err())
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) { // rsync was ended
		return nil
	}
	return err
}

// head keeps the beginning of what is written to it.
type head struct {
	mu   sync.Mutex
	most int
	kept []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(len(p), h.most-len(h.kept))]...)
	return len(p), nil
}

func (h *head) lines() (lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range strings.Lines(string(h.kept)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// passed are the variables that rsync gets of this process's. No others: some let it
// run a shell (RSYNC_CONNECT_PROG), or take other options (HOME has aliases).
var passed = []string{"PATH", "USER", "LOGNAME", "SYSTEMROOT"}

// noPassword is what rsync is told where the user has set none: else it would ask the terminal.
const noPassword = "-"

// environment makes that of rsync.
func environment(o Options) ([]string, error) {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range passed {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	if o.PasswordFile == "" {
		password := os.Getenv("RSYNC_PASSWORD")
		if password == "" {
			password = noPassword
		}
		env = append(env, "RSYNC_PASSWORD="+password)
	}
	if proxy := os.Getenv("RSYNC_PROXY"); proxy != "" {
		if err := o.Seal.Check("tcp", proxy[strings.LastIndexByte(proxy, '@')+1:]); err != nil {
			return nil, err
		}
		env = append(env, "RSYNC_PROXY="+proxy)
	}
	return env, nil
}

// versionLine is the first of `rsync --version`.
var versionLine = regexp.MustCompile(`^rsync +version v?([0-9]+)\.([0-9]+)`)

// find returns the path of a program that is new enough.
func find(ctx context.Context, env []string) (path string, err error) {
	path, err = exec.LookPath(program)
	if err != nil {
		return "", fault.New(fault.Other, "the program rsync is not installed here, or not in PATH").
			Advise("Install it (apt-get install rsync): rsync:// remotes are reached by way of it.")
	}
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = env
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	v := versionLine.FindStringSubmatch(first)
	if err != nil || v == nil || !enough(v[1], v[2]) {
		return "", fault.New(fault.Other, "%s is not rsync 3.1 or later (%.60q)", path, first).
			Advise("Install a newer rsync; the one of macOS is another program (brew install rsync).")
	}
	return path, nil
}

// enough reports whether a version knows --ignore-missing-args and --delete-missing-args (3.1.0).
func enough(major, minor string) bool {
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a > 3 || a == 3 && b >= 1)
}

// String is for logs.
func (w way) String() string { return [...]string{"up", "down", "look"}[w] }

func (s *Store) name(key string) string { return fmt.Sprintf("%s/%s", s.o.url(), key) }
