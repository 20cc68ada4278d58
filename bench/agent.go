package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// agentPatience is how long a followed tag may take to be here, before a measurement fails.
const agentPatience = 5 * time.Minute

// following measures how long it takes, besides the pull itself, until an image is in the
// engine of an agent that looks each second at a tag that has moved in a bucket.
func (b *bench) following(server *s3test.Server, bucket string) error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	small := enginetest.NewImage().Tag("bench/agent:small").Layer(enginetest.File("small", 0o644, "small"))
	if err := b.engine.LoadImage(b.ctx, small); err != nil {
		return err
	}
	remote := "s3://" + bucket + "/followed?endpoint=" + url.QueryEscape(server.Endpoint)
	const live = "bench/agent:live"
	names := map[string]string{"apt": image, "small": "bench/agent:small"}
	ids := map[string]string{}
	for tag, name := range names {
		if ids[tag], _, err = b.engine.ImageID(b.ctx, name); err != nil {
			return err
		}
		b.once(command{args: []string{b.dogestry, "push", "--quiet", remote, name, "--as", "bench/agent:" + tag}})
	}
	b.once(command{args: []string{b.dogestry, "tag", "--quiet", remote, "bench/agent:small", live}})
	if b.err != nil {
		return b.err
	}
	agent := exec.CommandContext(b.ctx, b.dogestry, "agent", "--quiet", "--listen", "none", "--interval", "1s", "--state-dir", filepath.Join(b.dir, "followed"), "--follow", remote, live)
	agent.Env = append(append(os.Environ(), "DOCKER_HOST="+b.engine.Host, "XDG_CACHE_HOME="+filepath.Join(b.dir, "cache")), b.env...)
	var said bytes.Buffer
	agent.Stderr = &said
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait()
	}()
	r := row{figure: figure{name: "agent: a tag moved in a bucket, until its image is here, besides the pull", most: 3, absolute: true}}
	for run := range b.runs + 1 {
		pull := b.time(command{args: []string{b.dogestry, "pull", "--quiet", remote, "bench/agent:apt"}, before: func() error { return b.engine.Empty(b.ctx) }})
		if b.err == nil {
			b.err = b.engine.Empty(b.ctx)
		}
		var took time.Duration
		for _, tag := range []string{"apt", "small"} {
			b.once(command{args: []string{b.dogestry, "tag", "--quiet", remote, "bench/agent:" + tag, live}})
			start := time.Now()
			for b.err == nil {
				id, there, err := b.engine.ImageID(b.ctx, live)
				switch {
				case err != nil:
					b.err = err
				case time.Since(start) > agentPatience:
					b.err = fmt.Errorf("%s is not here after %s: %s", live, agentPatience, said.Bytes())
				}
				if there && id == ids[tag] {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if tag == "apt" {
				took = time.Since(start)
			}
		}
		if b.err != nil {
			return b.err
		}
		if run > 0 {
			r.ours = append(r.ours, max(0, took-pull))
		}
	}
	b.add(r)
	return b.err
}
