package cli

import (
	"context"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
)

// fromEngine is the value of --repair-from that means the engine and no remote.
const fromEngine = "engine"

// openBeside opens a remote beside another one. Limits are for those of them that
// are on a network; where neither is, they are refused as always.
func (a *app) openBeside(ctx context.Context, other, name string, mode access, c codec.Codec) (*repo.Repo, error) {
	if isDirectory(name) && other != "" && !isDirectory(other) {
		up, down := a.uploadLimit, a.downloadLimit
		a.uploadLimit, a.downloadLimit = 0, 0
		defer func() { a.uploadLimit, a.downloadLimit = up, down }()
	}
	return a.openRemote(ctx, name, mode, c)
}

// openVerified opens the remote that is verified.
func (a *app) openVerified(ctx context.Context, v verification) (remote.Remote, error) {
	if isRegistry(v.name) {
		return a.openRegistry(v.name, toRead, "")
	}
	mode := toRead
	if v.repairFrom != "" {
		mode = toChange
	}
	return a.openBeside(ctx, v.repairFrom, v.name, mode, v.compression)
}

func isDirectory(name string) bool {
	_, err := directory(name)
	return err == nil
}

// checkRepair refuses a source that makes no sense.
func checkRepair(v verification) error {
	switch {
	case v.repairFrom == "":
		return nil
	case isRegistry(v.name):
		return fault.New(fault.Usage, "%s is a registry: it is verified, and not repaired", v.name).
			Advise("Push what is damaged there again, or copy it from where it is whole.")
	case v.repairFrom == fromEngine:
		return nil
	case isRegistry(v.repairFrom):
		return fault.New(fault.Usage, "--repair-from %s: nothing is repaired from a registry", v.repairFrom).
			Advise("Copy the images from there: dogestry copy %s %s IMAGE…", v.repairFrom, v.name)
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
