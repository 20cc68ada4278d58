package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// latency is what the proxy adds to each request: a bucket in another region.
const latency = 40 * time.Millisecond

// writers is how many write a remote at once.
const writers = 8

// onServer runs measure with a new bucket of a real S3 server on loopback, and
// stops that. Commands that are measured meanwhile have its account.
func (b *bench) onServer(measure func(server *s3test.Server, bucket string) error) func() error {
	return func() error {
		server, err := s3test.Start(b.ctx, s3test.Options{Parent: b.dir})
		if err != nil {
			return err
		}
		b.env = server.Environment()
		defer func() { b.env = nil }()
		bucket, err := server.NewBucket()
		if err == nil {
			err = measure(server, bucket)
		}
		return errors.Join(err, server.Stop())
	}
}

// bucket measures push and pull of the apt-built image.
func (b *bench) bucket(server *s3test.Server, bucket string) error {
	proxy, err := s3test.NewProxy(server)
	if err != nil {
		return err
	}
	defer proxy.Close()
	proxy.SetLatency(latency)

	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	archive, err := enginetest.Archive(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	remote := func(endpoint string) string {
		return "s3://" + bucket + "/images?endpoint=" + url.QueryEscape(endpoint)
	}
	object := "s3://" + bucket + "/peer/image.tar.lz4"
	aws := func(endpoint string) string { return "aws --endpoint-url " + endpoint + " s3 cp --quiet " }
	files := filepath.Join(server.Dir(bucket), "images")
	empty := func() error { return b.engine.Empty(b.ctx) }

	b.compare(figure{name: "push to an empty bucket", most: 0.7, peer: "docker save | lz4 | aws s3 cp"},
		command{args: []string{b.dogestry, "push", "--quiet", remote(server.Endpoint), image}, before: func() error { return os.RemoveAll(files) }},
		command{args: []string{"bash", "-o", "pipefail", "-c", fmt.Sprintf("docker save %s | lz4 -q | %s - %s", image, aws(server.Endpoint), object)}})
	b.compare(figure{name: "pull from a bucket into an engine without it", most: 1.15, peer: "docker load"},
		command{args: []string{b.dogestry, "pull", "--quiet", remote(server.Endpoint), image}, before: empty},
		command{args: []string{"docker", "load", "--quiet", "--input", archive}, before: empty, warm: archive})
	b.compare(figure{name: "the same, each request 40 ms slower", most: 0.7, peer: "aws s3 cp | lz4 -d | docker load"},
		command{args: []string{b.dogestry, "pull", "--quiet", remote(proxy.Endpoint), image}, before: empty},
		command{args: []string{"bash", "-o", "pipefail", "-c", fmt.Sprintf("%s %s - | lz4 -dq | docker load --quiet", aws(proxy.Endpoint), object)}, before: empty})
	return b.err
}

// bucketMemory moves an image of 4 GB to a bucket and back.
func (b *bench) bucketMemory(server *s3test.Server, bucket string) error {
	ref, err := b.loadBig()
	if err != nil {
		return err
	}
	remote := "s3://" + bucket + "?endpoint=" + url.QueryEscape(server.Endpoint)
	b.noteMemory("push of 4 GB to a bucket", command{args: []string{b.dogestry, "push", "--quiet", remote, ref}})
	b.noteMemory("pull of 4 GB from a bucket", command{
		args:   []string{b.dogestry, "pull", "--quiet", remote, ref},
		before: func() error { return b.engine.Empty(b.ctx) },
	})
	return b.err
}

// loadBig brings the image of 4 GB into the engine.
func (b *bench) loadBig() (ref string, err error) {
	if err := b.engine.Empty(b.ctx); err != nil {
		return "", err
	}
	image := enginetest.BigImage(8, 512<<20)
	fmt.Fprintln(os.Stderr, "bench: loading an image of 4 GB")
	return image.Tags()[0], b.engine.LoadImage(b.ctx, image)
}

// list measures the list of a bucket with 10,000 tags, without the user's cache
// and with it.
func (b *bench) list(server *s3test.Server, bucket string) error {
	const tags = 10_000
	fmt.Fprintf(os.Stderr, "bench: writing %d tags\n", tags)
	if err := writeTags(b.ctx, server, bucket, tags, 1); err != nil {
		return err
	}
	list := []string{b.dogestry, "list", "--quiet", "s3://" + bucket + "?endpoint=" + url.QueryEscape(server.Endpoint)}
	cache := filepath.Join(b.dir, "cache")
	b.measure(figure{name: "list of 10,000 tags in a bucket, first time", most: 15, absolute: true},
		command{args: list, before: func() error { return os.RemoveAll(cache) }})
	b.measure(figure{name: "the same again", most: 2, absolute: true}, command{args: list})
	return b.err
}

// collect measures a garbage collection that finds nothing to free, which is all
// of the work but the deletions.
func (b *bench) collect(server *s3test.Server, bucket string) error {
	const tags, layers = 10_000, 4
	fmt.Fprintf(os.Stderr, "bench: writing %d tags and %d entries\n", tags, tags*(layers+1)+1)
	if err := writeTags(b.ctx, server, bucket, tags, layers); err != nil {
		return err
	}
	b.measure(figure{name: "gc of a bucket with 10,000 tags and 50,000 entries", most: 90, absolute: true},
		command{args: []string{b.dogestry, "gc", "--quiet", "s3://" + bucket + "?endpoint=" + url.QueryEscape(server.Endpoint)}})
	return b.err
}

// writeTags makes a remote of n tags in a bucket: each names an image of its
// own, of a base layer that all share and some that nobody shares.
func writeTags(ctx context.Context, server *s3test.Server, bucket string, n, own int) error {
	put := func(content string, key string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, server.Endpoint+"/"+bucket+"/"+key, strings.NewReader(content))
		if err != nil {
			return err
		}
		server.Sign(request, []byte(content))
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("put %s: %s", key, answer.Status)
		}
		return nil
	}
	layer := func(content string) (id string, err error) {
		id = fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		json := fmt.Sprintf(`{"diffID":"sha256:%s","size":%d,"file":"layer.tar","storedSize":%d}`, id, len(content), len(content))
		return id, errors.Join(put(content, "images/"+id+"/layer.tar"), put(json, "images/"+id+"/json"))
	}
	base, err := layer("base")
	if err != nil {
		return err
	}
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i := range n {
		g.Go(func() error {
			diffIDs := []string{`"sha256:` + base + `"`}
			for l := range own {
				id, err := layer(fmt.Sprintf("layer %d of %d", l, i))
				if err != nil {
					return err
				}
				diffIDs = append(diffIDs, `"sha256:`+id+`"`)
			}
			config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","created":"2015-03-14T09:26:53Z","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffIDs, ","))
			id := fmt.Sprintf("%x", sha256.Sum256([]byte(config)))
			return errors.Join(put(config, "images/"+id+"/json"), put(id, fmt.Sprintf("repositories/team%d/app%d/%d", i%10, i%100, i)))
		})
	}
	return g.Wait()
}
