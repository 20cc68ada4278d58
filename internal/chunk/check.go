package chunk

import (
	"context"
	"fmt"
)

// Check reads all of the index of a layer, which has size bytes, or -1 where that is not known, and is stored in so
// many. It returns ErrNone or ErrDamaged where nobody has a use for it, or why it could not be read. That what it says of
// the layer is true it does not prove.
func Check(ctx context.Context, open Reader, stored, size int64) error {
	x, err := Read(ctx, open, stored)
	if err != nil {
		return err
	}
	if size >= 0 && x.Size != size {
		return fmt.Errorf("%w: it is of a layer of %d bytes, and this one has %d", ErrDamaged, x.Size, size)
	}
	blocks, err := x.ReadBlocks(ctx, open)
	if err != nil {
		return err
	}
	for _, b := range x.Blocks {
		if b.Stored == 0 {
			continue
		}
		if _, err := x.Block(blocks, b); err != nil {
			return err
		}
	}
	return nil
}
