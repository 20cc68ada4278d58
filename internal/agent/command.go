package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// Command is a program that is run when the image of a followed tag is here. It is run
// without a shell. The zero value runs nothing.
type Command struct {
	Args  []string
	Limit time.Duration // for which it may run
	Grace time.Duration // for which it may go on when the agent is to end
	Seal  *sealed.Seal  // which programs may be run; nil seals nothing
}

// SplitCommand splits a line into words at spaces that are not between quotes. Nothing
// else in it means anything.
func SplitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, r := range line {
		switch {
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case strings.ContainsRune(" \t\n", r):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	switch {
	case quote != 0:
		return nil, fault.New(fault.Usage, "--run: a quote has no end")
	case len(words) == 0 || words[0] == "":
		return nil, fault.New(fault.Usage, "--run is empty").Advise("Name a program, or leave --run out.")
	}
	return words, nil
}

// Check refuses a program that is not there, or that may not be run.
func (c Command) Check() error {
	if len(c.Args) == 0 {
		return nil
	}
	if err := c.Seal.Program(c.Args[0]); err != nil {
		return err
	}
	if _, err := exec.LookPath(c.Args[0]); err != nil {
		return fault.Wrap(fault.NotFound, err, "cannot run the command").
			Advise("It is run without a shell. For one, in so many words: --run 'sh -c \"…\"'.")
	}
	return nil
}

// maxOutput bounds what is kept of what a command prints, in bytes: its end.
const maxOutput = 4 << 10

// tail keeps the end of what is written to it.
type tail struct{ kept bytes.Buffer }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	_, _ = t.kept.Write(p[max(0, len(p)-maxOutput):])
	if over := t.kept.Len() - maxOutput; over > 0 {
		t.kept.Next(over)
	}
	return len(p), nil
}

// run runs the command and returns what it printed last. When ctx ends it may go on for
// the grace. Then, and at the limit, it and what it has started get SIGTERM, and a while later SIGKILL.
func (c Command) run(ctx context.Context, env []string) (output string, err error) {
	if err := c.Check(); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Limit)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(c.Grace, cancel)
		context.AfterFunc(limited, func() { t.Stop() })
	})()
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(without(os.Environ()), env...)
	cmd.WaitDelay = killDelay
	asGroup(cmd)
	err = cmd.Run()
	if limited.Err() != nil {
		killGroup(cmd)
	}
	if errors.Is(err, exec.ErrWaitDelay) && limited.Err() == nil {
		err = nil // it has left something behind that goes on
	}
	output = strings.TrimSpace(out.kept.String())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return output, nil
	case ctx.Err() != nil && limited.Err() != nil:
		return output, ctx.Err()
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it did not end within %s", c.Limit)
	case errors.As(err, &exit) && output != "":
		last := strings.Split(output, "\n")
		err = fmt.Errorf("%w: %s", err, last[len(last)-1])
	}
	return output, fault.Wrap(fault.Other, err, "the command %s failed", c.Args[0])
}

// killDelay is what a command has between SIGTERM and SIGKILL, and what it has started
// after its end, to close its output.
const killDelay = 10 * time.Second

// without takes out of an environment what opens remotes: a command has no need for it.
func without(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "AWS_") || strings.HasPrefix(v, "DOGESTRY_")
	})
}
