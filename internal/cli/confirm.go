package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// canAsk reports whether somebody sits there who sees a question and can answer it.
func (a *app) canAsk() bool {
	out, ok := a.errOut.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(a.in.Fd()))
}

// confirm asks on stderr and reports whether the answer is yes. No answer is no.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	answer, err := a.ask(ctx, printable(question)+" [y/N] ")
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", err
}

// ask asks on stderr and returns the answer, a line.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(a.errOut, question)
	answers := make(chan string, 1)
	go func() { // nothing interrupts the read of a terminal: after ^C it ends with the process
		line, _ := bufio.NewReader(io.LimitReader(a.in, 1024)).ReadString('\n')
		answers <- line
	}()
	select {
	case answer := <-answers:
		return strings.TrimSpace(answer), ctx.Err()
	case <-ctx.Done():
		fmt.Fprintln(a.errOut)
		return "", ctx.Err()
	}
}
