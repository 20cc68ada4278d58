package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// verify measures the proof of every byte of 5 GB.
func (b *bench) verify() error {
	remote := filepath.Join(b.dir, "verified")
	defer os.RemoveAll(remote)
	if err := b.pushMade(remote, enginetest.BigImage(10, 512<<20)); err != nil {
		return err
	}
	proof := func(args ...string) command {
		return command{args: append([]string{b.dogestry, "verify", "--quiet", remote}, args...)}
	}
	b.compare(figure{name: "verify of 5 GB in a directory", most: 0.6, peer: "itself with --parallel 1"},
		proof(), proof("--parallel", "1"))
	return b.err
}

// copies measures a copy into a bucket: about 2,000 objects and 2 GB as stored.
func (b *bench) copies(server *s3test.Server, bucket string) error {
	const (
		images = 6
		layers = 110 // of three objects each; an engine takes no more than 125
		size   = 6 << 20
	)
	dir := filepath.Join(b.dir, "copied")
	defer os.RemoveAll(dir)
	for i := range int64(images) {
		if err := b.pushMade(dir, enginetest.BigImage(layers, size+i<<10)); err != nil {
			return err
		}
	}
	remote := func(prefix string) (name string, empty func() error) {
		return "s3://" + bucket + "/" + prefix, func() error { return os.RemoveAll(filepath.Join(server.Dir(bucket), prefix)) }
	}
	ours, noneOfOurs := remote("ours")
	peers, noneOfPeers := remote("peers")
	b.compare(figure{name: "copy of a directory into a bucket, 2,000 objects and 2 GB", most: 1.0, peer: "aws s3 sync"},
		command{args: []string{b.dogestry, "copy", "--quiet", "--all", dir, ours + "?endpoint=" + url.QueryEscape(server.Endpoint)}, before: noneOfOurs},
		command{args: []string{"aws", "--endpoint-url", server.Endpoint, "s3", "sync", "--quiet", dir, peers}, before: noneOfPeers})
	return b.err
}

// pushMade brings an image that is made up into a remote, by the engine.
func (b *bench) pushMade(remote string, image *enginetest.Image) error {
	if err := b.engine.Empty(b.ctx); err != nil {
		return err
	}
	ref := image.Tags()[0]
	fmt.Fprintf(os.Stderr, "bench: pushing %s\n", ref)
	if err := b.engine.LoadImage(b.ctx, image); err != nil {
		return err
	}
	b.once(command{args: []string{b.dogestry, "push", "--quiet", remote, ref}})
	return b.err
}
