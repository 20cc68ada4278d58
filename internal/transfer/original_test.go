package transfer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/repo"
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

var (
	_ = tar.NewReader
	_ = io.EOF
	_ = os.Open
	_ = slices.Sort[[]int]
	_ = engine.Classic
	_ = repo.Open
)
