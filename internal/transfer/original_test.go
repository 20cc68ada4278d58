package transfer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// originalsIn writes a repository of format 1.0 to a directory and opens it.
func originalsIn(t *testing.T, r originaltest.Repository) *original.Source {
	t.Helper()
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return original.New(remoteIn(t, dir), original.Options{Name: remoteName})
}

// TestOriginalIDs proves that an image of format 1.0 has the ID that Docker itself
// gives it: each image of the golden repository, and more, as the `docker save` of
// its time wrote it, is loaded by an engine that still reads that.
func TestOriginalIDs(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) {
		version, err := e.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		archive := originaltest.Golden().Archive(originaltest.ID("RUN one"), "dogestry-test/oracle", "1")
		if err := e.LoadArchive(t.Context(), bytes.NewReader(archive)); err != nil {
			if !strings.HasPrefix(version, "20.") {
				t.Logf("Docker %s reads no such archives: %v", version, err)
				return
			}
			t.Fatal(err)
		}
		defer remove(t, e, "dogestry-test/oracle:1")
		testOriginalIDs(t, e)
	})
}

func testOriginalIDs(t *testing.T, e *enginetest.Engine) {
	r := originaltest.Golden()
	for name, s := range map[string]originaltest.Step{
		"no-version":  {Members: map[string]any{"docker_version": nil}},
		"1.8.2":       {Members: map[string]any{"docker_version": "1.8.2"}},
		"1.8.3":       {Members: map[string]any{"docker_version": "1.8.3"}},
		"1.10.0-rc1":  {Members: map[string]any{"docker_version": "1.10.0-rc1"}},
		"no-created":  {Members: map[string]any{"created": nil}},
		"no-os":       {Members: map[string]any{"os": nil, "architecture": nil}},
		"no-config":   {Members: map[string]any{"config": nil, "container_config": nil, "container": nil}},
		"null-config": {JSON: `{"id":"%s","config":null,"container_config":null,"created":"2014-01-01T00:00:00.1-08:00","Size":0}`},
		"odd-config": {Members: map[string]any{"config": map[string]any{
			"cmd": "one text", "Entrypoint": []string{"/e"}, "ExposedPorts": map[string]any{"80/tcp": struct{}{}, "443/tcp": struct{}{}}, "Volumes": map[string]any{"/b": struct{}{}, "/a": struct{}{}},
			"Labels": map[string]string{"z": "<", "a": "\u2028"}, "MacAddress": "02:42:ac:11:00:02", "NetworkDisabled": true, "StopSignal": "SIGKILL", "OnBuild": []string{"RUN x"},
			"ArgsEscaped": true, "Shell": []string{"/bin/bash"}, "StopTimeout": 7, "Healthcheck": map[string]any{"Test": []string{"NONE"}, "Retries": 3}, "PublishService": "x", "Unknown": 1,
		}}},
		"shouting": {JSON: `{"id":"%s","COMMENT":"loud","Docker_Version":"1.9.0","CREATED":"2014-01-01T00:00:00Z","config":{"CMD":["/x"],"env":["A=1"]}}`},
		"variant":  {Members: map[string]any{"variant": "v7", "architecture": "arm", "rootfs": "gone", "history": 1, "unknown": 1.50}},
		"numbers":  {Members: map[string]any{"docker_version": "1.9.1", "x": json.RawMessage("1.50e+2"), "y": json.RawMessage("12345678901234567890")}},
	} {
		s.Name, s.Layer = name, originaltest.Tar(name+"=x")
		if s.JSON != "" {
			s.JSON = fmt.Sprintf(s.JSON, originaltest.ID(name))
		}
		r.Tag("oracle/"+name, r.Add("", s))
	}
	source := originalsIn(t, r)
	for key, top := range r {
		name, ok := strings.CutPrefix(key, "repositories/")
		if !ok || strings.HasPrefix(name, "baseless/") || strings.HasPrefix(name, "deep/") || strings.HasPrefix(name, "team/") {
			continue // Docker has no answer: no base, too many layers, no layer.tar
		}
		slash := strings.LastIndexByte(name, '/')
		ref := reference(t, strings.ReplaceAll(name[:slash], "%3A", ":")+":"+name[slash+1:])
		id, err := source.Resolve(t.Context(), ref)
		if err != nil {
			t.Error(err)
			continue
		}
		const as = "dogestry-test/oracle:2"
		if err := e.LoadArchive(t.Context(), bytes.NewReader(r.Archive(strings.TrimSpace(string(top)), "dogestry-test/oracle", "2"))); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		docker, ok, err := e.ImageID(t.Context(), as)
		if err != nil || !ok {
			t.Fatalf("%s: %t, %v", name, ok, err)
		}
		if id.String() != docker {
			ours, err := source.Document(t.Context(), id)
			saved, savedErr := e.Saved(t.Context(), as)
			t.Errorf("%s is %s, and Docker says %s\n%s (%v)\n%s (%v)", name, id, docker, ours, err, saved.Config, savedErr)
		}
		remove(t, e, as)
	}
}

// helloLayer is the layer of enginetest.Hello: one static binary, /hello.
func helloLayer(t *testing.T) []byte {
	t.Helper()
	path, err := enginetest.Archive(t.Context(), enginetest.Hello)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for archive := tar.NewReader(f); ; {
		h, err := archive.Next()
		if err != nil {
			t.Fatalf("no layer in %s: %v", path, err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if layer := tar.NewReader(bytes.NewReader(content)); h.Size > 1<<10 {
			if inner, err := layer.Next(); err == nil && inner.Name == "hello" {
				return content
			}
		}
	}
}

// old is a repository of format 1.0 with an image that runs, as dogestry-test/old:1,
// and one on the same base, as :2. The binary is put in place by a layer above one
// that has something else there.
func old(t *testing.T) originaltest.Repository {
	r := originaltest.Repository{}
	config := map[string]any{"config": map[string]any{"Entrypoint": []string{"/hello"}, "Cmd": []string{"much"}, "Env": []string{"OLD=1"}}, "architecture": runtime.GOARCH}
	base := r.Add("", originaltest.Step{Name: "ADD base", Command: "echo wow >/gone", Layer: originaltest.Tar("hello/", "hello/not=this", "gone=wow", "kept=wow")})
	base = r.Add(base, originaltest.Step{Name: "ENV OLD=1", Layer: originaltest.Empty()})
	hello := r.Add(base, originaltest.Step{Name: "ADD hello", Command: "#(nop) ADD hello in /", Layer: helloLayer(t)})
	top := r.Add(hello, originaltest.Step{Name: "RUN rm", Command: "rm /gone", Layer: originaltest.Tar(".wh.gone"), Plain: true, Members: config})
	r.Tag("dogestry-test/old/1", top)
	r.Tag("dogestry-test/old/2", r.Add(hello, originaltest.Step{Name: "RUN two", Command: "echo two >/two", Layer: originaltest.Tar("two=two"), Members: config}))
	early := r.Add(hello, originaltest.Step{Name: "RUN early", Command: "echo early >/early", Layer: originaltest.Tar("early=early"), Members: map[string]any{
		"config": config["config"], "architecture": nil, "os": nil, "docker_version": "0.5.3",
	}})
	r.Tag("dogestry-test/old/early", early)
	return r
}

// TestOriginalRuns pulls images of format 1.0 into each kind of engine: they run, and
// their history has the old commands. What two share is sent once, where the engine can.
func TestOriginalRuns(t *testing.T) { everyEngine(t, testOriginalRuns) }

// everyEngine runs a test on engines of all kinds.
func everyEngine(t *testing.T, test func(*testing.T, *enginetest.Engine, *counted)) {
	t.Helper()
	for kind, each := range map[string]func(*testing.T, func(*testing.T, *enginetest.Engine)){
		"classic": enginetest.Each, "containerd": enginetest.EachContainerd, "podman": enginetest.EachPodman,
	} {
		t.Run(kind, func(t *testing.T) {
			each(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, &counted{Client: connect(t, e.Host)}) })
		})
	}
}

func testOriginalRuns(t *testing.T, e *enginetest.Engine, client *counted) {
	source := originalsIn(t, old(t))
	const name, other = "dogestry-test/old:1", "dogestry-test/old:2"
	results := mustPull(t, source, client, name, other)
	defer remove(t, e, name)
	defer remove(t, e, other)
	if sent := len(moved(results[1])); client.Kind() != engine.Podman && sent != 1 {
		t.Errorf("of the second image %d layers were sent", sent)
	}
	if again := mustPull(t, source, client, name); len(moved(again[0])) != 0 {
		t.Errorf("again: %+v", again)
	}
	out, err := runs(t, e, client.Kind(), name)
	if err != nil || string(out) != "hello from dogestry\nmuch\n" {
		t.Errorf("it says %q, error %v", out, err)
	}
	// An image of the time before images told what they run on.
	const early = "dogestry-test/old:early"
	mustPull(t, source, client, early)
	defer remove(t, e, early)
	out, err = runs(t, e, client.Kind(), early)
	if err != nil || string(out) != "hello from dogestry\nmuch\n" {
		t.Errorf("without a platform it says %q, error %v", out, err)
	}
	out, err = e.Docker(t.Context(), nil, "history", "--no-trunc", "--format", "{{.CreatedBy}}", name)
	want := "/bin/sh -c rm /gone\n/bin/sh -c #(nop) ADD hello in /\n/bin/sh -c #(nop) ENV OLD=1\n/bin/sh -c echo wow >/gone\n"
	if err != nil || string(out) != want {
		t.Errorf("its history is\n%s(%v), want\n%s", out, err, want)
	}
	if got := namesIn(t, e, name); !slices.Contains(got, "kept") || slices.Contains(got, "gone") || slices.Contains(got, "hello/not") {
		t.Errorf("it has the files %q", got)
	}
}

// runs runs an image: with Podman not by the API, as testPodmanRuns.
func runs(t *testing.T, e *enginetest.Engine, kind engine.Kind, name string) ([]byte, error) {
	if kind == engine.Podman {
		args := append(e.PodmanArgs(), "run", "--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "docker.io/"+name)
		return exec.CommandContext(t.Context(), "podman", args...).Output()
	}
	return e.Docker(t.Context(), nil, "run", "--rm", "--network=none", name)
}

// namesIn are the files of an image.
func namesIn(t *testing.T, e *enginetest.Engine, name string) (names []string) {
	t.Helper()
	id, err := e.Docker(t.Context(), nil, "create", name)
	if err != nil {
		t.Fatal(err)
	}
	container := strings.TrimSpace(string(id))
	defer func() { _, _ = e.Docker(t.Context(), nil, "rm", container) }()
	exported, err := e.Docker(t.Context(), nil, "export", container)
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(bytes.NewReader(exported)); ; {
		h, err := files.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimPrefix(h.Name, "./"))
	}
}

// TestOriginalDeep pulls the golden image of 127 entries into engines that take no
// more than 125 layers.
func TestOriginalDeep(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *enginetest.Engine, client *counted) {
		source := originalsIn(t, originaltest.Golden())
		mustPull(t, source, client, "deep:127")
		defer remove(t, e, "deep:127")
		out, err := e.Docker(t.Context(), nil, "history", "-q", "deep:127")
		if n := strings.Count(string(out), "\n"); err != nil || n != 127 {
			t.Errorf("its history has %d entries: %v", n, err)
		}
	})
}

// TestOriginalCopy copies images of format 1.0 to another remote, where they are of
// today: by the IDs with which they would be pulled, so that a second copy moves nothing.
func TestOriginalCopy(t *testing.T) {
	source := originalsIn(t, originaltest.Golden())
	to := remoteIn(t, t.TempDir())
	var images []CopyImage
	for _, name := range []string{"myapp:1", "myapp:2", "team/deep/nested:V2", "baseless:1"} {
		images = append(images, CopyImage{Source: reference(t, name), Target: reference(t, name)})
	}
	o := CopyOptions{All: true, From: "old", To: "new"}
	for i, move := range []int{6, 0} {
		done, err := Copy(t.Context(), source, to, images, o)
		layers := 0
		for _, r := range done.Images {
			layers += len(moved(r))
		}
		if !fault.Is(err, fault.Partial) || len(done.Images) != 3 || len(done.Failed) != 1 || done.Failed[0].Image.Repository != "baseless" || !fault.Is(done.Failed[0].Err, fault.Damaged) {
			t.Errorf("copy %d: %+v, %v", i, done, err)
		}
		if layers != move {
			t.Errorf("copy %d moved %d layers, want %d", i, layers, move)
		}
	}
	for _, img := range images[:3] {
		want, err := source.Resolve(t.Context(), img.Source)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := to.Resolve(t.Context(), img.Target); err != nil || got != want {
			t.Errorf("%s is %s, want %s: %v", img.Target, got.Short(), want.Short(), err)
		}
		if _, err := remote.ReadTree(t.Context(), to, want, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestOriginalForgotten: an export makes the documents again that a source has made
// when it was planned, and, as of many images, does not keep.
func TestOriginalForgotten(t *testing.T) {
	dir := t.TempDir()
	if err := originaltest.Golden().Write(dir); err != nil {
		t.Fatal(err)
	}
	newSource := func() *original.Source {
		return original.New(remoteIn(t, dir), original.Options{Name: remoteName})
	}
	plan, err := PlanExport(t.Context(), newSource(), copies(t, "myapp:1", "myapp:2"), nil, CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var bundle bytes.Buffer
	out, err := repo.NewBundle(&bundle, "out.tar", plan.Bundle, plan.There)
	if err == nil {
		err = Export(t.Context(), newSource(), out, plan, CopyOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	to := remoteOn(t, mem.New(), codec.LZ4)
	if _, err := importFrom(t, &bundle, to); err != nil {
		t.Fatal(err)
	}
	for _, tag := range plan.Bundle.Tags {
		if id, err := to.Resolve(t.Context(), tag.Image); err != nil || id != tag.ID {
			t.Errorf("%s is %s, want %s: %v", tag.Image, id.Short(), tag.ID.Short(), err)
		}
	}
}
