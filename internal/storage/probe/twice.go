package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/dogestry/dogestry/internal/storage"
)

// visits is how often it is tried whether others see a change at once.
const visits = 10

// readAfterWrite proves that b reads what a has just done.
func (p *probe) readAfterWrite(ctx context.Context) (string, error) {
	const name = "seen/object"
	for i := range visits {
		// Asked for before it is there: some stores remember that nothing was.
		if err := p.absent(ctx, p.b, name, "a deleted object is still read by another connection"); err != nil {
			return "", err
		}
		for _, body := range []string{fmt.Sprintf("first %d", i), fmt.Sprintf("second %d", i)} {
			if err := p.put(ctx, p.a, name, []byte(body)); err != nil {
				return "", err
			}
			got, err := p.content(ctx, p.b, name)
			if errors.Is(err, storage.ErrNotFound) {
				return "", fmt.Errorf("a new object is not there yet for another connection: %w", err)
			}
			if err != nil {
				return "", err
			}
			if string(got) != body {
				return "", errors.New("another connection still reads the old content")
			}
		}
		if err := p.a.Delete(ctx, p.prefix+name); err != nil {
			return "", err
		}
	}
	return "another connection sees each change at once", nil
}

// listAfterWrite is readAfterWrite for lists.
func (p *probe) listAfterWrite(ctx context.Context) (string, error) {
	for i := range visits {
		name := fmt.Sprintf("shown/%d", i)
		for _, there := range []bool{false, true, false} {
			var err error
			switch {
			case there:
				err = p.put(ctx, p.a, name, []byte(name))
			default:
				err = p.a.Delete(ctx, p.prefix+name)
			}
			if err != nil {
				return "", err
			}
			infos, err := p.infos(ctx, p.b, "shown/")
			if err != nil {
				return "", err
			}
			if there && len(infos) == 0 {
				return "", errors.New("a new object is not listed yet for another connection")
			}
			if !there && len(infos) > 0 {
				return "", errors.New("a deleted object is still listed for another connection")
			}
		}
	}
	return "another connection lists each change at once", nil
}

const (
	racers = 8
	rounds = 5
)

// race lets racers do the same at once, a few times, and returns an error
// unless one of them, and one only, wins, the others lose with that error, and
// the object is the winner's.
func (p *probe) race(ctx context.Context, name string, lost error, try func(i int, key string, body []byte) error) (string, error) {
	for round := range rounds {
		name := fmt.Sprintf("%s/race-%d", name, round)
		start := make(chan struct{})
		errs := make([]error, racers)
		var group sync.WaitGroup
		for i := range racers {
			group.Go(func() {
				<-start
				errs[i] = p.writing(name, func(key string) error { return try(i, key, racer(i)) })
			})
		}
		close(start)
		group.Wait()
		var winners []int
		for i, err := range errs {
			switch {
			case err == nil:
				winners = append(winners, i)
			case !errors.Is(err, lost):
				return "", fmt.Errorf("of %d at once one gets: %w", racers, err)
			}
		}
		if len(winners) > 1 {
			return "", fmt.Errorf("the store ignores the condition: %d winners of %d at once", len(winners), racers)
		}
		if len(winners) == 0 {
			return "", fmt.Errorf("nobody wins of %d at once: %w", racers, errs[0])
		}
		if err := p.holds(ctx, p.a, name, racer(winners[0])); err != nil {
			return "", fmt.Errorf("after %d at once the object is not the winner's: %w", racers, err)
		}
	}
	return fmt.Sprintf("one winner of %d, %d times", racers, rounds), nil
}

func racer(i int) []byte { return []byte(strings.Repeat(string(rune('0'+i)), 100+i)) }

// able returns both sides as what an optional interface of package storage says.
func able[T any](p *probe) (both [2]T, err error) {
	for i := range both {
		side, ok := p.side(i).(T)
		if !ok {
			return both, missing("dogestry cannot do that on this kind of remote")
		}
		both[i] = side
	}
	return both, nil
}

// create tries storage.Creator.
func (p *probe) create(ctx context.Context) (string, error) {
	both, err := able[storage.Creator](p)
	if err != nil {
		return "", err
	}
	const name = "create/object"
	err = p.writing(name, func(key string) error { return both[0].Create(ctx, key, strings.NewReader(name)) })
	if err != nil {
		return "", err
	}
	for _, c := range both {
		err := c.Create(ctx, p.prefix+name, strings.NewReader("other"))
		if err == nil {
			return "", errors.New("the store ignores the condition: an object that is there is overwritten")
		}
		if !errors.Is(err, storage.ErrExists) {
			return "", fmt.Errorf("creating what is there: %w", err)
		}
	}
	if err := p.holds(ctx, p.a, name, []byte(name)); err != nil {
		return "", fmt.Errorf("refused, and overwritten: %w", err)
	}
	return p.race(ctx, "create", storage.ErrExists, func(i int, key string, body []byte) error {
		return both[i%2].Create(ctx, key, bytes.NewReader(body))
	})
}

// swap tries storage.Swapper.
func (p *probe) swap(ctx context.Context) (string, error) {
	both, err := able[storage.Swapper](p)
	if err != nil {
		return "", err
	}
	const name = "swap/object"
	one, two, three := []byte("one"), []byte("two"), []byte("three")
	if err := p.put(ctx, p.a, name, one); err != nil {
		return "", err
	}
	if err := both[0].Swap(ctx, p.prefix+name, one, two); err != nil {
		return "", err
	}
	if err := p.holds(ctx, p.a, name, two); err != nil {
		return "", fmt.Errorf("after a swap: %w", err)
	}
	for _, w := range both {
		if err := changed(w.Swap(ctx, p.prefix+name, one, three), "overwritten"); err != nil {
			return "", err
		}
	}
	if err := p.holds(ctx, p.a, name, two); err != nil {
		return "", fmt.Errorf("refused, and overwritten: %w", err)
	}
	err = p.writing("swap/other", func(key string) error { return both[0].Swap(ctx, key, one, three) })
	if err := changed(err, "made where nothing was"); err != nil {
		return "", err
	}
	for round := range rounds {
		if err := p.put(ctx, p.a, fmt.Sprintf("swap/race-%d", round), one); err != nil {
			return "", err
		}
	}
	return p.race(ctx, "swap", storage.ErrChanged, func(i int, key string, body []byte) error {
		return both[i%2].Swap(ctx, key, one, body)
	})
}

// changed returns nil for ErrChanged.
func changed(err error, what string) error {
	if err == nil {
		return fmt.Errorf("the store ignores the condition: an object that has changed is %s", what)
	}
	if !errors.Is(err, storage.ErrChanged) {
		return fmt.Errorf("swapping what has changed: %w", err)
	}
	return nil
}
