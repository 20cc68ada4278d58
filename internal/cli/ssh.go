package cli

import (
	"context"
	"errors"
	"path"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/ssh"
)

func identifySSH(name string) (string, error) {
	o, err := ssh.Parse(name)
	if err != nil {
		return "", err
	}
	return o.Canonical(), nil
}

func (a *app) openSSH(ctx context.Context, name string, mode access) (storage.Store, error) {
	o, err := ssh.Parse(name)
	if err != nil {
		return nil, err
	}
	o.UploadLimit, o.DownloadLimit = int64(a.uploadLimit), int64(a.downloadLimit)
	o.Seal, o.Log, o.Notify = a.seal, a.log(), a.note
	o.Ask = isTerminal(a.in) && !a.completing
	var store *ssh.Store
	if mode == toWrite {
		store, err = ssh.Create(ctx, o)
	} else {
		store, err = ssh.Open(ctx, o)
	}
	var known *fault.Error
	switch {
	case err == nil:
		return store, nil
	case errors.As(err, &known), fault.Interrupted(err):
		return nil, err
	case errors.Is(err, storage.ErrNotFound) && mode == toPlan && parentIsThere(ctx, o):
		return mem.New(), nil // an empty remote, as a push would find it
	case errors.Is(err, storage.ErrNotFound) && (mode == toWrite || mode == toPlan):
		return nil, fault.Wrap(fault.NotFound, err, "cannot make the remote %s", name).
			Advise("Its parent directory is missing there: make %q, on %s.", path.Dir(o.Dir), o.Host)
	case errors.Is(err, storage.ErrNotFound):
		return nil, fault.Wrap(fault.NotFound, err, "no remote at %s", name).
			Advise("Check the path on %s; `dogestry push` makes the directory. One in your home directory there is ssh://%s/~/images.", o.Host, o.Host)
	case errors.Is(err, storage.ErrPermission):
		return nil, fault.Wrap(fault.Refused, err, "no permission to use the remote %s", name).
			Advise("The user there needs to read the directory, and to push also to write it.")
	default:
		return nil, fault.Wrap(fault.Other, err, "cannot use the remote %s", name)
	}
}

// parentIsThere reports whether a push could make the directory.
func parentIsThere(ctx context.Context, o ssh.Options) bool {
	o.Dir = path.Dir(o.Dir)
	s, err := ssh.Open(ctx, o)
	if err != nil {
		return false
	}
	return s.Close() == nil
}
