package remote

import (
	"context"
	"errors"
	"fmt"
)

type roomKey struct{}

// ErrNoRoom is wrapped where there was no memory for a layer: see WithRoom.
var ErrNoRoom = errors.New("there is no room to decode it")

// WithRoom returns a context in which a Source asks take for memory before it reads a
// layer that is stored so that decoding it takes more than 8 MiB beyond what any takes, and
// calls release when it is read. Where take fails, so does the reader, with that error
// and ErrNoRoom. Take may be called by several goroutines at once.
func WithRoom(ctx context.Context, take func(ctx context.Context, memory int64) (release func(), err error)) context.Context {
	return context.WithValue(ctx, roomKey{}, func(memory int64) (func(), error) {
		release, err := take(ctx, memory)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
		return release, err
	})
}

// RoomOf returns what a Source asks for memory, nil where it need not ask.
func RoomOf(ctx context.Context) func(memory int64) (release func(), err error) {
	take, _ := ctx.Value(roomKey{}).(func(int64) (func(), error))
	return take
}
