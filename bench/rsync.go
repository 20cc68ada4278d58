package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// mostOnTheWire is what a second push by rsync may take, whose top layer of 1 MB is
// another: bytes of all runs, in both directions.
const mostOnTheWire = 1_200_000

// onTheWire counts what pushes of the apt-built image to an rsync server take, and of
// one whose top layer is another.
func (b *bench) onTheWire() error {
	served := filepath.Join(b.dir, "served")
	own := filepath.Join(b.dir, "rsyncd")
	for _, dir := range []string{served, own} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	server, err := rsynctest.Start(own, rsynctest.Module{Name: "module", Path: served})
	if err != nil {
		return err
	}
	defer server.Stop()
	proxy, err := rsynctest.NewProxy(server.Addr)
	if err != nil {
		return err
	}
	defer proxy.Close()
	for _, push := range []struct {
		name string
		of   enginetest.ImageName
		most int64
	}{
		{"push to an rsync server", enginetest.Apt, 0},
		{"push of the same with another top layer of 1 MB", enginetest.AptChanged, mostOnTheWire},
	} {
		image, err := b.engine.Load(b.ctx, push.of)
		if err != nil {
			return err
		}
		proxy.Forget()
		b.once(command{args: []string{b.dogestry, "push", "--quiet", proxy.URL("module/images"), image}})
		if b.err != nil {
			return b.err
		}
		up, down := proxy.Bytes()
		line := fmt.Sprintf("%s: %d bytes up, %d down, %d runs of rsync", push.name, up, down, proxy.Connections())
		if push.most > 0 {
			line += fmt.Sprintf("; at most %d: %s", push.most, verdict(up+down <= push.most))
		}
		b.peaks = append(b.peaks, line)
	}
	return nil
}
