package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// What figures about rebuilt layers may be at most.
const (
	mostIndex  = 0.02 // the index, of the layer as stored
	deltaRate  = "100mbit"
	mostLinked = 0.35
)

// released is a pair of releases as images of that one layer each.
type released struct {
	pair   enginetest.Pair
	refs   [2]string
	layers [2]string // entries of the layers
}

// release brings both releases of a pair into the engine.
func (b *bench) release(pair enginetest.Pair) (r released, err error) {
	fmt.Fprintf(os.Stderr, "bench: releases %s\n", pair)
	first, second, err := pair.Layers(b.ctx)
	if err != nil {
		return r, err
	}
	r.pair = pair
	for i, l := range []*enginetest.Layer{first, second} {
		r.refs[i] = fmt.Sprintf("%s/release-%s:%d", enginetest.Repository, pair, i+1)
		r.layers[i] = l.DiffID()[len("sha256:"):]
		if b.containerd { // as what is built there: in gzip
			tar := l.Open()
			_, err = b.engine.Docker(b.ctx, tar, "import", "-", r.refs[i])
			err = errors.Join(err, tar.Close())
		} else {
			err = b.engine.LoadImage(b.ctx, enginetest.NewImage().Add(l).Tag(r.refs[i]))
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// pushRelease pushes a release so that parts of its layer can be fetched.
func (b *bench) pushRelease(remote, ref string) {
	push := []string{b.dogestry, "push", "--quiet", remote, ref}
	if b.containerd {
		push = append(push, "--recompress")
	}
	b.once(command{args: push})
}

// forget takes all images, and what dogestry remembers of remotes, away from here.
func (b *bench) forget() error {
	return errors.Join(b.engine.Empty(b.ctx), os.RemoveAll(filepath.Join(b.dir, "cache")))
}

// onlyFirst leaves an engine with the first release of a pair, as a pull leaves it.
func (b *bench) onlyFirst(pull []string) func() error {
	return func() error {
		if err := b.forget(); err != nil {
			return err
		}
		b.once(command{args: pull})
		return b.err
	}
}

// deltas measures what pulls of second releases fetch from a bucket, against what they fetch whole, which of an engine with
// the containerd image store is the layer in gzip; how large indexes are, and how much of a second release's object a store
// could copy from the first one.
func (b *bench) deltas(server *s3test.Server, bucket string) error {
	proxy, err := s3test.NewProxy(server)
	if err != nil {
		return err
	}
	defer proxy.Close()
	most := map[enginetest.Pair]float64{enginetest.AptPair: 0.04, enginetest.TreePair: 0.05}
	for _, pair := range append([]enginetest.Pair{enginetest.AptPair, enginetest.TreePair}, enginetest.SmallPairs()...) {
		r, err := b.release(pair)
		if err != nil {
			return err
		}
		prefix := "releases/" + string(pair)
		remote := func(prefix, endpoint string) string {
			return "s3://" + bucket + "/" + prefix + "?endpoint=" + url.QueryEscape(endpoint)
		}
		kept := prefix
		if b.containerd {
			kept += "-as-they-are"
		}
		for _, ref := range r.refs {
			if b.pushRelease(remote(prefix, server.Endpoint), ref); kept != prefix {
				b.once(command{args: []string{b.dogestry, "push", "--quiet", remote(kept, server.Endpoint), ref}})
			}
		}
		pull := func(prefix, when string) command {
			return command{
				args:   []string{b.dogestry, "pull", "--quiet", "--json", remote(prefix, proxy.Endpoint), r.refs[1], "--delta", when},
				before: b.onlyFirst([]string{b.dogestry, "pull", "--quiet", remote(prefix, proxy.Endpoint), r.refs[0]}),
			}
		}
		var parts, wholes []int64
		var said int64
		for range b.runs {
			var part, whole int64
			whole, _ = b.fetched(proxy, pull(kept, "never"))
			part, said = b.fetched(proxy, pull(prefix, "always"))
			parts, wholes = append(parts, part), append(wholes, whole)
		}
		if b.err != nil {
			return b.err
		}
		b.addShare(share{
			name: fmt.Sprintf("pull of the %s pair's second release, the first is there: bytes", pair), of: "of it whole",
			part: median(parts), whole: median(wholes), most: most[pair],
		})
		b.peaks = append(b.peaks, fmt.Sprintf("%s pair: dogestry says that it fetched %d bytes of layers in the last of these runs", pair, said))

		var files [2]string
		for i, layer := range r.layers {
			if files[i], err = layerFile(filepath.Join(server.Dir(bucket), prefix), layer); err != nil {
				return err
			}
		}
		if err := b.inspect(pair, files[0], files[1]); err != nil {
			return err
		}
	}
	return b.err
}

// fetched runs a pull through a proxy, and returns how many bytes of answers have passed there, whatever they were of,
// and what dogestry says of its layers.
func (b *bench) fetched(proxy *s3test.Proxy, c command) (counted, said int64) {
	var out bytes.Buffer
	c.stdout = &out
	before := c.before
	c.before = func() error {
		err := before()
		proxy.Reset()
		return err
	}
	if b.time(c); b.err != nil {
		return 0, 0
	}
	for _, r := range proxy.Requests() {
		counted += r.Received
	}
	var result struct {
		Images []struct {
			Layers []struct {
				Stored, Fetched int64
				Moved           bool
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		b.err = fmt.Errorf("%q: %w", out.Bytes(), err)
		return 0, 0
	}
	for _, image := range result.Images {
		for _, l := range image.Layers {
			switch {
			case l.Fetched > 0: // put together
				said += l.Fetched
			case l.Moved:
				said += l.Stored
			}
		}
	}
	if said == 0 || said > counted {
		b.err = fmt.Errorf("dogestry says that it fetched %d bytes; %d passed the proxy", said, counted)
	}
	return counted, said
}

// layerFile is where a bucket or a directory keeps the file of a layer.
func layerFile(remote, layer string) (string, error) {
	found, err := filepath.Glob(filepath.Join(remote, "images", layer, "layer.tar*"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("the layer %s in %s: %q", layer, remote, found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// inspect tells about the files of two releases, as stored.
func (b *bench) inspect(pair enginetest.Pair, first, second string) error {
	info, err := os.Stat(second)
	if err != nil {
		return err
	}
	index, err := indexSize(second)
	if err == nil && index == 0 {
		err = fmt.Errorf("%s has no index", second)
	}
	if err != nil {
		return err
	}
	b.addShare(share{
		name: fmt.Sprintf("index of the %s pair's second release: bytes", pair), of: "of its layer as stored",
		part: index, whole: info.Size(), most: mostIndex,
	})
	all, parts, blocks, err := copyable(first, second)
	if err != nil {
		return err
	}
	of := func(n int64) float64 { return 100 * float64(n) / float64(info.Size()) }
	b.peaks = append(b.peaks, fmt.Sprintf("%s pair: of the second release's %d stored bytes are in runs of frames that the first one has %.1f %%, in such runs of 5 MiB or more %.1f %%, in blocks that a file system could share %.1f %%",
		pair, info.Size(), of(all), of(parts), of(blocks)))
	return nil
}

// indexing measures what an index costs where it is of no use: pushes, and pulls into an empty engine.
func (b *bench) indexing() error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	indexed, plain := filepath.Join(b.dir, "indexed"), filepath.Join(b.dir, "plain")
	push := func(remote string, args ...string) command {
		return command{
			args:   append([]string{b.dogestry, "push", "--quiet", remote, image}, args...),
			before: func() error { return os.RemoveAll(remote) },
		}
	}
	pull := func(remote string, args ...string) command {
		return command{args: append([]string{b.dogestry, "pull", "--quiet", remote, image}, args...), before: b.forget}
	}
	b.compare(figure{name: "push into an empty directory", most: 1.15, peer: "itself with --no-index"},
		push(indexed), push(plain, "--no-index"))
	b.compare(figure{name: "pull from a directory, nothing in common", most: 1.05, peer: "itself without indexes, --delta never"},
		pull(indexed), pull(plain, "--delta", "never"))
	return b.err
}

// deltaPulls measures pulls of second releases over a link: from a bucket, and with docker from a stock registry.
func (b *bench) deltaPulls(near, far string, server *s3test.Server, bucket, endpoint string) error {
	for _, pair := range []enginetest.Pair{enginetest.AptPair, enginetest.TreePair} {
		r, err := b.release(pair)
		if err != nil {
			return err
		}
		there := func(registry string, release int) string {
			return fmt.Sprintf("%s/bench/%s:%d", registry, pair, release+1)
		}
		for i, ref := range r.refs {
			if err := b.tag(ref, there(near, i)); err != nil {
				return err
			}
			b.once(command{args: []string{"docker", "push", "--quiet", there(near, i)}})
			b.pushRelease(bucket+url.QueryEscape(server.Endpoint), ref)
		}
		pull := []string{b.dogestry, "pull", "--quiet", bucket + url.QueryEscape(endpoint)}
		b.compare(figure{name: fmt.Sprintf("pull of the %s pair's second release over 100 Mbit/s, the first is there", pair), most: mostLinked, peer: "docker pull of it"},
			command{args: append(slices.Clone(pull), r.refs[1]), before: b.onlyFirst(append(slices.Clone(pull), r.refs[0]))},
			command{args: []string{"docker", "pull", "--quiet", there(far, 1)}, before: b.onlyFirst([]string{"docker", "pull", "--quiet", there(near, 0)})})
	}
	return b.err
}
