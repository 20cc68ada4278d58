package delta

import (
	"errors"
	"sort"

	"github.com/dogestry/dogestry/internal/chunk"
)

// literals gives the literals of frames that are not fetched, in their order.
type literals struct {
	assembly *assembly
	come     chan blocks
	stored   blocks
	number   int    // of the block that is decoded
	block    []byte // its literals
}

// blocks are literal blocks as they are stored, by their numbers.
type blocks struct {
	end    int // number behind the last one
	stored map[int][]byte
	err    error
}

// newLiterals reads blocks ahead, one read.
func (a *assembly) newLiterals() *literals {
	l := &literals{assembly: a, come: make(chan blocks), number: none}
	a.running.Go(func() {
		defer close(l.come)
		for _, r := range a.plan.literals {
			got := blocks{end: r[len(r)-1].number + 1, stored: map[int][]byte{}}
			got.err = a.read(r, func(i int, b []byte) { got.stored[r[i].number] = b })
			select {
			case l.come <- got:
			case <-a.ctx.Done():
				return
			}
			if got.err != nil {
				return
			}
		}
	})
	return l
}

// fill puts a frame's literals where they belong in it. The frame begins at tar.
func (l *literals) fill(raw []byte, f part, tar int64) error {
	x := l.assembly.plan.index
	at, end := f.literalAt, f.literalAt+f.literal
	for at < end {
		i := sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].LiteralAt+x.Blocks[i].Size > at })
		if err := l.decode(i); err != nil {
			return err
		}
		b := x.Blocks[i]
		n := min(end, b.LiteralAt+b.Size) - at
		from := l.block[at-b.LiteralAt:]
		for r := range x.Literals(at, n) {
			from = from[copy(raw[r.Tar-tar:][:r.Size], from):]
		}
		at += n
	}
	return nil
}

// decode makes a block the current one. Blocks are asked for in their order.
func (l *literals) decode(number int) error {
	if l.number == number {
		return nil
	}
	for number >= l.stored.end {
		got, ok := <-l.come
		if !ok {
			if err := l.assembly.ctx.Err(); err != nil {
				return err
			}
			return errors.New("literals that were not planned") // cannot be
		}
		if got.err != nil {
			return got.err
		}
		l.stored = got
	}
	stored := l.stored.stored[number]
	delete(l.stored.stored, number)
	x := l.assembly.plan.index
	block, err := x.Block(stored, chunk.Block{Size: x.Blocks[number].Size, Stored: int64(len(stored))})
	if err != nil {
		return err
	}
	l.number, l.block = number, block
	return nil
}
