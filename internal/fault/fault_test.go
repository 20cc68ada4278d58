package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestChain(t *testing.T) {
	inner := Wrap(NotFound, io.EOF, "no tag %s", "myapp:1").Advise("push it first")
	outer := Wrap(Partial, inner, "1 of 2 failed")
	wrapped := fmt.Errorf("pull: %w", outer)
	for _, c := range []struct {
		name   string
		err    error
		text   string
		kind   Kind
		is     []Kind
		advice string
	}{
		{"nothing", nil, "", Other, nil, ""},
		{"plain", io.EOF, "EOF", Other, nil, ""},
		{"fault", New(Usage, "no %s", "such flag"), "no such flag", Usage, []Kind{Usage}, ""},
		{"advice", New(Locked, "locked").Advise("wait %ds", 5), "locked", Locked, []Kind{Locked}, "wait 5s"},
		{"cause", inner, "no tag myapp:1: EOF", NotFound, []Kind{NotFound}, "push it first"},
		{"fault in fault", outer, "1 of 2 failed: no tag myapp:1: EOF", Partial, []Kind{Partial, NotFound}, "push it first"},
		{"wrapped", wrapped, "pull: 1 of 2 failed: no tag myapp:1: EOF", Partial, []Kind{Partial, NotFound}, "push it first"},
		{"outer advice first", Wrap(Refused, inner, "refused").Advise("ask"), "refused: no tag myapp:1: EOF", Refused, []Kind{Refused, NotFound}, "ask"},
		{"joined", errors.Join(io.EOF, inner), "EOF\nno tag myapp:1: EOF", NotFound, []Kind{NotFound}, "push it first"},
		{"between", Wrap(Damaged, fmt.Errorf("reading: %w", inner), "damaged"), "damaged: reading: no tag myapp:1: EOF", Damaged, []Kind{Damaged, NotFound}, "push it first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.err != nil && c.err.Error() != c.text {
				t.Errorf("text %q, want %q", c.err, c.text)
			}
			if got := KindOf(c.err); got != c.kind {
				t.Errorf("kind %v, want %v", got, c.kind)
			}
			if got := AdviceOf(c.err); got != c.advice {
				t.Errorf("advice %q, want %q", got, c.advice)
			}
			want := map[Kind]bool{}
			for _, k := range c.is {
				want[k] = true
			}
			for k := Other; k <= Locked; k++ {
				if got := Is(c.err, k); got != want[k] {
					t.Errorf("Is %v: %v", k, got)
				}
			}
		})
	}
	if !errors.Is(wrapped, io.EOF) {
		t.Error("the cause is lost")
	}
}

// TestKinds: names and numbers are what scripts see.
func TestKinds(t *testing.T) {
	for i, want := range []string{1: "other", "usage", "not-found", "refused", "damaged", "partial", "locked"} {
		if i > 0 && Kind(i).String() != want {
			t.Errorf("kind %d is %q, want %q", i, Kind(i), want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	for err, want := range map[error]bool{
		nil: false, io.EOF: false, context.Canceled: true, context.DeadlineExceeded: true,
		Wrap(Other, fmt.Errorf("x: %w", context.Canceled), "y"): true,
		New(Other, "context canceled"):                          false,
	} {
		if got := Interrupted(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// TestDistance: letters added, taken away and replaced.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 2}, {"same", "same", 0}} {
		if got := Distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
