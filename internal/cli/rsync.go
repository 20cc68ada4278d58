package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/rsync"
)

func identifyModule(name string) (string, error) {
	o, err := rsync.Parse(name)
	if err != nil {
		return "", err
	}
	return o.Identity(), nil
}

// openModule opens a directory of an rsync server's module. A push makes it.
func (a *app) openModule(ctx context.Context, name string, _ access) (storage.Store, error) {
	o, err := rsync.Parse(name)
	if err != nil {
		return nil, err
	}
	o.Spool = spoolDir()
	o.UploadLimit, o.DownloadLimit = int64(a.uploadLimit), int64(a.downloadLimit)
	o.Seal, o.Log, o.Notify = a.seal, a.log(), a.note
	return rsync.Open(ctx, o)
}

// spoolDir is where layers lie that go by rsync. /tmp is memory on many systems, so it
// is the last choice.
func spoolDir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	if dir := cacheDir(); dir != "" {
		return filepath.Join(dir, "spool")
	}
	return os.TempDir()
}
