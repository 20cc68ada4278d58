package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// served is a `dogestry serve` on loopback.
type served struct {
	address string
	cmd     *exec.Cmd
	log     bytes.Buffer
}

func (b *bench) serve(remote string, args ...string) (*served, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &served{address: free.Addr().String()}
	s.cmd = exec.Command(b.dogestry, append([]string{"serve", remote, "--listen", s.address}, args...)...)
	s.cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(b.dir, "cache"))
	s.cmd.Env = append(s.cmd.Env, b.env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	dieWithUs(s.cmd)
	if err := errors.Join(free.Close(), s.cmd.Start()); err != nil {
		return nil, err
	}
	if err := answers(b.ctx, s.address); err != nil {
		return nil, errors.Join(s.stop(), fmt.Errorf("dogestry serve does not answer: %w\n%s", err, s.log.Bytes()))
	}
	return s, nil
}

// answers waits until a registry answers.
func answers(ctx context.Context, address string) error {
	for range 100 {
		if answer, err := http.Get("http://" + address + "/v2/"); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("no answer in five seconds")
}

func (s *served) stop() error {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed is how it ends
	return nil
}

// serving measures what `dogestry serve` gives to an engine, against a stock
// registry with the same image.
func (b *bench) serving(r *registry) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	remote, copied := filepath.Join(b.dir, "remote"), filepath.Join(b.dir, "copied")
	there := r.address + "/bench/apt:1"
	if err := b.tag(image, there); err != nil {
		return err
	}
	push := []string{b.dogestry, "push", "--quiet"}
	plain := "registry://" + r.address + "?plain-http=true"
	emptied := func() error { return errors.Join(os.RemoveAll(r.data), os.RemoveAll(filepath.Join(b.dir, "cache"))) }
	b.compare(figure{name: "push to an empty stock registry", most: b.classicOnly(0.5), peer: "docker push to it"},
		command{args: append(push, "--as", "bench/ours:1", plain, image), before: emptied},
		command{args: []string{"docker", "push", "--quiet", there}, before: emptied})
	b.once(command{args: []string{"docker", "push", "--quiet", there}})
	b.once(command{args: append(push, "--as", "bench/apt:1", remote, image)})
	b.once(command{args: []string{b.dogestry, "copy", "--quiet", plain, copied, "bench/apt:1"}})
	if b.err != nil {
		return b.err
	}
	return b.serveBoth(remote, copied, func(s *served, what string) error {
		b.pulls("docker pull by way of serve, loopback, an image "+what, 1, s.address, r.address)
		return b.err
	})
}

// serveBoth runs measure while a remote is served that dogestry has pushed to, and
// then one that has the same as a registry had it.
func (b *bench) serveBoth(pushed, copied string, measure func(s *served, what string) error) error {
	for _, of := range []struct{ remote, what string }{{pushed, "pushed by dogestry"}, {copied, "that came from a registry"}} {
		s, err := b.serve(of.remote)
		if err != nil {
			return err
		}
		if err := errors.Join(measure(s, of.what), s.stop()); err != nil {
			return err
		}
	}
	return nil
}

// linkServed measures pulls over the link of an image that came from a registry.
func (b *bench) linkServed(reach func(context.Context, string) (string, error), r *registry) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	there, copied := r.address+"/bench/apt:1", filepath.Join(b.dir, "copied")
	if err := b.tag(image, there); err != nil {
		return err
	}
	b.once(command{args: []string{"docker", "push", "--quiet", there}})
	b.once(command{args: []string{b.dogestry, "copy", "--quiet", "registry://" + r.address + "?plain-http=true", copied, "bench/apt:1"}})
	if b.err != nil {
		return b.err
	}
	s, err := b.serve(copied)
	if err != nil {
		return err
	}
	ours, err := reach(b.ctx, s.address)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	peer, err := reach(b.ctx, r.address)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	b.pulls("docker pull by way of serve over 200 Mbit/s, an image that came from a registry", 1, ours, peer)
	return errors.Join(b.err, s.stop())
}

// pulls compares pulls of one image from two registries into an empty engine.
func (b *bench) pulls(name string, most float64, ours, peer string) {
	empty := func() error { return b.engine.Empty(b.ctx) }
	pull := func(address string) command {
		return command{args: []string{"docker", "pull", "--quiet", address + "/bench/apt:1"}, before: empty}
	}
	b.compare(figure{name: name, most: most, peer: "docker pull from a stock registry"}, pull(ours), pull(peer))
}

func (b *bench) tag(image, name string) error {
	_, err := b.engine.Docker(b.ctx, nil, "tag", image, name)
	return err
}

// cachedServing measures the same with the image in a bucket and a warm cache.
func (b *bench) cachedServing(r *registry) error {
	return b.onServer(func(server *s3test.Server, bucket string) error {
		image, err := b.engine.Load(b.ctx, enginetest.Apt)
		if err != nil {
			return err
		}
		there := r.address + "/bench/apt:1"
		if err := b.tag(image, there); err != nil {
			return err
		}
		remote := "s3://" + bucket + "/images?endpoint=" + url.QueryEscape(server.Endpoint)
		b.once(command{args: []string{"docker", "push", "--quiet", there}})
		b.once(command{args: []string{b.dogestry, "push", "--quiet", "--as", "bench/apt:1", remote, image}})
		if b.err != nil {
			return b.err
		}
		s, err := b.serve(remote, "--cache", filepath.Join(b.dir, "layers"), "--cache-size", "20GB")
		if err != nil {
			return err
		}
		b.pulls("docker pull by way of serve on a bucket, with a warm cache", 1.05, s.address, r.address)
		return errors.Join(b.err, s.stop())
	})()
}

const (
	crowdClients = 50
	crowdImages  = 20
)

// crowd measures what many clients at once cost the server: processor time for the
// same image bytes, and memory.
func (b *bench) crowd(r *registry) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	remote, copied := filepath.Join(b.dir, "crowd"), filepath.Join(b.dir, "crowd-copied")
	var names []string
	for i := range crowdImages {
		name := fmt.Sprintf("bench/many:%d", i)
		names = append(names, name)
		b.shell(`export DOCKER_HOST=%s; c=$(docker create %s true); head -c 1000000 /dev/urandom >%s/own; docker cp %s/own "$c":/own; docker commit "$c" %s; docker rm "$c"; docker tag %s %s/%s`,
			b.engine.Host, image, b.dir, b.dir, name, name, r.address, name)
		b.once(command{args: []string{"docker", "push", "--quiet", r.address + "/" + name}})
	}
	b.once(command{args: append([]string{b.dogestry, "push", "--quiet", remote}, names...)})
	b.once(command{args: append([]string{b.dogestry, "copy", "--quiet", "registry://" + r.address + "?plain-http=true", copied}, names...)})
	if b.err != nil {
		return b.err
	}
	return b.serveBoth(remote, copied, func(s *served, what string) error {
		row := row{figure: figure{name: fmt.Sprintf("processor time of serve, %d clients pull %d images %s", crowdClients, crowdImages, what), most: 2, peer: "a stock registry"}}
		for i := range b.runs + 1 {
			ours, err := b.stampede(s.address, s.cmd.Process.Pid)
			if err != nil {
				return err
			}
			peers, err := b.stampede(r.address, r.cmd.Process.Pid)
			if err != nil {
				return err
			}
			if i > 0 {
				row.ours, row.peers = append(row.ours, ours), append(row.peers, peers)
			}
		}
		b.add(row)
		_, peak, err := usage(s.cmd.Process.Pid)
		b.peaks = append(b.peaks, fmt.Sprintf("memory of serve under that load, images %s: %d MB (at most 300)", what, peak/1e6))
		return err
	})
}

// stampede lets the clients pull at once, each another image, and returns the
// processor time that the server took.
func (b *bench) stampede(address string, pid int) (time.Duration, error) {
	before, _, err := usage(pid)
	if err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(b.ctx)
	for i := range crowdClients {
		g.Go(func() error { return fetchImage(ctx, address, "bench/many", fmt.Sprint(i%crowdImages)) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, _, err := usage(pid)
	return after - before, err
}

// fetchImage reads an image as an engine that has nothing does.
func fetchImage(ctx context.Context, address, repository, tag string) error {
	base := "http://" + address + "/v2/" + repository
	type descriptor struct {
		Digest string
		Size   int64
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	doc, err := fetch(ctx, base+"/manifests/"+tag)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(doc)
	if err := errors.Join(err, doc.Close(), json.Unmarshal(b, &manifest)); err != nil {
		return err
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		blob, err := fetch(ctx, base+"/blobs/"+d.Digest)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, blob)
		if err := errors.Join(err, blob.Close()); err != nil || n != d.Size {
			return fmt.Errorf("%s: %d bytes of %d: %w", d.Digest, n, d.Size, err)
		}
	}
	return nil
}

func fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", address, answer.Status), answer.Body.Close())
	}
	return answer.Body, nil
}
