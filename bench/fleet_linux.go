package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// fleetSize is how many engines a pull goes onto, and fleetRate what lets the remote
// through to all of them.
const (
	fleetSize = 12
	fleetRate = "50mbit"
)

// fleet is many engines.
type fleet []*enginetest.Engine

// onFleet measures pulls onto twelve engines: once with a cache, and once over a
// narrow link, each in a single run.
func (b *bench) onFleet(o enginetest.Options) func() error {
	return func() (err error) {
		all := fleet{b.engine}
		defer func() { err = errors.Join(err, all[1:].stop()) }()
		for len(all) < fleetSize {
			e, err := enginetest.Start(b.ctx, o)
			if err != nil {
				return err
			}
			all = append(all, e)
		}
		l, err := newLink(b.dir, fleetRate)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		return b.onRegistry(func(r *registry) error {
			return b.onServer(func(server *s3test.Server, bucket string) error { return b.fleetPulls(all, l, r, server, bucket) })()
		})()
	}
}

func (f fleet) stop() error {
	errs := make([]error, len(f))
	var stopping sync.WaitGroup
	for i, e := range f {
		stopping.Go(func() { errs[i] = e.Stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// empty takes all images away.
func (f fleet) empty(ctx context.Context) error {
	for _, e := range f {
		if err := e.Empty(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f fleet) hosts() (urls []string) {
	for _, e := range f {
		urls = append(urls, e.Host)
	}
	return urls
}

func (b *bench) fleetPulls(all fleet, l *link, r *registry, server *s3test.Server, bucket string) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	if _, err := b.engine.Docker(b.ctx, nil, "tag", image, r.address+"/bench/apt:1"); err != nil {
		return err
	}
	remote := func(endpoint string) string {
		return "s3://" + bucket + "/images?endpoint=" + url.QueryEscape(endpoint)
	}
	b.once(command{args: []string{"docker", "push", "--quiet", r.address + "/bench/apt:1"}})
	b.once(command{args: []string{b.dogestry, "push", "--quiet", "--compression", "zstd", remote(server.Endpoint), image}})
	far, err := l.reach(b.ctx, r.address)
	if err != nil {
		return err
	}
	endpoint, err := l.reach(b.ctx, strings.TrimPrefix(server.Endpoint, "http://"))
	if err != nil {
		return err
	}
	empty := func() error { return all.empty(b.ctx) }
	pull := func(remote string, more ...string) command {
		return command{args: append([]string{b.dogestry, "pull", "--quiet", remote, image, "--engine", strings.Join(all.hosts(), ",")}, more...), before: empty}
	}

	stored, err := sizeOf(filepath.Join(server.Dir(bucket), "images"))
	if err != nil {
		return err
	}
	for _, how := range []string{"with a cache", "without"} {
		proxy, err := s3test.NewProxy(server)
		if err != nil {
			return err
		}
		more := []string{"--cache", filepath.Join(b.dir, "fleet-cache")}
		if how == "without" {
			more = nil
		}
		took := b.time(pull(remote(proxy.Endpoint), more...))
		var received int64
		for _, record := range proxy.Requests() {
			if record.Method == "GET" && record.Op == "GetObject" {
				received += record.Received
			}
		}
		proxy.Close()
		if b.err != nil {
			return b.err
		}
		b.peaks = append(b.peaks, fmt.Sprintf("pull onto %d engines %s: %.3f images fetched (%d of %d bytes), %.1f s, %d MB of memory; at most 1.0",
			len(all), how, float64(received)/float64(stored), received, stored, took.Seconds(), b.peak[b.kind()]/1e6))
		b.peak[b.kind()] = 0
	}

	script := "pids=; for h in " + strings.Join(all.hosts(), " ") + "; do docker -H $h pull --quiet " + far + "/bench/apt:1 & pids=\"$pids $!\"; done; for p in $pids; do wait $p || exit 1; done"
	row := row{figure: figure{name: fmt.Sprintf("pull onto %d engines over %s, zstd in a bucket", len(all), fleetRate), most: 0.25, peer: fmt.Sprintf("%d docker pull at once over it", len(all))}}
	row.ours = []time.Duration{b.time(pull(remote("http://" + endpoint)))}
	row.peers = []time.Duration{b.time(command{args: []string{"sh", "-c", script}, before: empty})}
	b.add(row)
	b.peak[b.kind()] = 0
	return b.err
}

// sizeOf adds up the files below a folder, in bytes.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
