package cli

import (
	"context"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
)

// fromEngine is the value of --repair-from that means the engine and no remote.
const fromEngine = "engine"

// openBeside opens a remote beside another one. Limits are for those of them that
// are on a network; where neither is, they are refused as always.
func (a *app) openBeside(ctx context.Context, other, name string, c codec.Codec) (*repo.Repo, error) {
	if isDirectory(name) && other != "" && !isDirectory(other) {
		up, down := a.uploadLimit, a.downloadLimit
		a.uploadLimit, a.downloadLimit = 0, 0
		defer func() { a.uploadLimit, a.downloadLimit = up, down }()
	}
	return a.openRemote(ctx, name, toRead, c)
}

func isDirectory(name string) bool {
	_, err := directory(name)
	return err == nil
}

// checkRepair refuses a source that makes no sense.
func checkRepair(v verification) error {
	if v.repairFrom == "" || v.repairFrom == fromEngine {
		return nil
	}
	if err := checkRemote(v.repairFrom); err != nil {
		return err
	}
	if canonical(v.repairFrom) == canonical(v.name) {
		return fault.New(fault.Usage, "--repair-from %s is the remote that is verified", v.repairFrom).
			Advise("Name another one that has the images, or \"engine\".")
	}
	return nil
}
