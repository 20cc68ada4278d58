package repo

import (
	"context"
	"fmt"

	"github.com/dogestry/dogestry/internal/remote"
)

// ObjectVersion returns a text that is another one whenever the object in which a
// layer lies, as Look found it, was written again: as long as it is the same, what
// was proved of its bytes holds. It asks the store.
func (r *Repo) ObjectVersion(ctx context.Context, layer remote.Layer) (string, error) {
	if _, _, err := r.layerObject(layer); err != nil {
		return "", err
	}
	info, err := r.store.Stat(ctx, layer.Object)
	if err != nil {
		return "", r.failure(err, "cannot look for layer %s in %s", layer.Digest.Short(), r.name)
	}
	return fmt.Sprintf("%s %d %d", info.Version, info.Size, info.Modified.UnixNano()), nil
}
