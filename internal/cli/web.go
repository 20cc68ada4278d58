package cli

import (
	"context"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/web"
)

// isWeb reports whether a name is that of a directory on a web server, which can only
// be read.
func isWeb(name string) bool {
	return strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://")
}

func identifyWeb(name string) (string, error) {
	o, err := web.Parse(name)
	if err != nil {
		return "", err
	}
	return o.Canonical(), nil
}

// webIsReadOnly is the fault of a command that would write there.
func webIsReadOnly(name string) error {
	return fault.New(fault.Refused, "%s is on a web server, and can only be read", name).
		Advise("It is good for pull and inspect. To write, name the directory that it publishes: its path, or ssh://user@host/path. A registry is named by registry://.")
}

func (a *app) openWeb(_ context.Context, name string, mode access) (storage.Store, error) {
	o, err := web.Parse(name)
	if err != nil {
		return nil, err
	}
	if mode != toRead {
		return nil, webIsReadOnly(name)
	}
	if a.uploadLimit > 0 {
		return nil, fault.New(fault.Usage, "nothing is uploaded to %s: --limit-upload makes no sense", name)
	}
	o.DownloadLimit = int64(a.downloadLimit)
	o.Seal, o.Log, o.Notify = a.seal, a.log(), a.note
	return web.Open(o)
}
