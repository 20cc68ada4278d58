package transfer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// These tests run on Podman, by its API for Docker's clients.

func eachPodman(t *testing.T, test func(t *testing.T, e *enginetest.Engine, client *counted)) {
	t.Helper()
	enginetest.EachPodman(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, &counted{Client: connect(t, e.Host)}) })
}

// podmanUnsaved are trouble images that Podman cannot export, and why: part of its own words.
var podmanUnsaved = map[string]string{"sparse": "archive/tar: write too long"}

// TestPodmanRoundTrip: each trouble image is pulled, pushed, and pulled elsewhere: the same ID, and the same bytes.
func TestPodmanRoundTrip(t *testing.T) { eachPodman(t, testPodmanRoundTrip) }

func testPodmanRoundTrip(t *testing.T, e *enginetest.Engine, client *counted) {
	for _, tr := range enginetest.Trouble() {
		if takesLong(tr) {
			continue
		}
		t.Run(tr.Name, func(t *testing.T) {
			tr.Tag("much:podman") // in this copy alone
			docker := newClassic(tr.Image)
			r := remoteIn(t, t.TempDir())
			if tr.Name == "no-layers" { // no engine exports it
				must(t, r.PutDocument(t.Context(), tr.Config()))
				must(t, r.Tag(t.Context(), reference(t, "much:podman"), mustParse(t, tr.ID())))
			} else {
				mustPush(t, docker.connect(t), r, "much:podman")
			}
			defer removeAll(t, e, "much:podman")
			results, err := Pull(t.Context(), r, client, pulls(t, "much:podman"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if id, _, err := e.ImageID(t.Context(), "much:podman"); err != nil || id != tr.ID() || results[0].ID.String() != id {
				t.Errorf("pulled %+v, the engine has %s, want %s, error %v", results[0].ID, id, tr.ID(), err)
			}
			back := remoteIn(t, t.TempDir())
			if why := podmanUnsaved[tr.Name]; why != "" {
				_, err := Push(t.Context(), client, back, pushes(t, "much:podman"), Options{})
				if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), why) || len(tagsOf(t, back)) > 0 {
					t.Errorf("pushed with error %v, want %q", err, why)
				}
				return
			}
			mustPush(t, client, back, "much:podman")
			checkWhole(t, back, "much:podman", tr.Image)
			if again := mustPush(t, client, back, "much:podman"); len(moved(again[0])) > 0 {
				t.Errorf("pushed again, %q move", moved(again[0]))
			}
		})
	}
}

// TestPodmanTakesWholeArchives: Podman gets all layers, or, where it has the image, none.
func TestPodmanTakesWholeArchives(t *testing.T) { eachPodman(t, testPodmanTakesWholeArchives) }

func testPodmanTakesWholeArchives(t *testing.T, e *enginetest.Engine, client *counted) {
	base, derived := layered("base", "pod-a", "pod-b"), layered("derived", "pod-a", "pod-b", "pod-c")
	r := stocked(t, base, derived)
	mustPull(t, r, client, "much:base")
	defer removeAll(t, e, "much:base")
	client.loads = 0
	results, err := Pull(t.Context(), r, client, pulls(t, "much:derived"), inParts)
	if err != nil || len(moved(results[0])) != 3 || client.loads != 1 {
		t.Errorf("%+v by %d loads, error %v", results, client.loads, err)
	}
	defer removeAll(t, e, "much:derived")
	for _, name := range []string{"much:derived", "much:live"} {
		results, err = Pull(t.Context(), r, client, []PullImage{{reference(t, "much:derived"), reference(t, name)}}, Options{})
		if err != nil || len(moved(results[0])) > 0 || client.loads != 1 {
			t.Errorf("%s again: %+v by %d loads, error %v", name, results, client.loads, err)
		}
	}
	if got, want := tagsIn(t, e, "much:derived"), []string{"docker.io/library/much:derived", "docker.io/library/much:live"}; !slices.Equal(got, want) {
		t.Errorf("it is named %q, want %q", got, want)
	}
}

// TestPodmanFailures: damage in the remote and an interrupt leave nothing in the engine.
func TestPodmanFailures(t *testing.T) { eachPodman(t, testPodmanFailures) }

func testPodmanFailures(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("failing", "pod-fail-a", "pod-fail-b")
	dir := t.TempDir()
	r := remoteIn(t, dir)
	mustPush(t, newClassic(m).connect(t), r, "much:failing")
	before := listed(t, e)
	file := filepath.Join(entryDir(dir, m.Layers()[1].DiffID()), "layer.tar.lz4")
	must(t, flipByte(file))
	_, err := Pull(t.Context(), r, client, pulls(t, "much:failing"), Options{})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), image.DigestOf(m.Layers()[1].Bytes()).Short()) {
		t.Errorf("damage: error %v", err)
	}
	if after := listed(t, e); after != before {
		t.Errorf("damage: the engine has\n%s, had\n%s", after, before)
	}
	must(t, flipByte(file)) // back
	ctx, cancel := context.WithCancel(t.Context())
	client.load = func() error { cancel(); return nil }
	if _, err = Pull(ctx, r, client, pulls(t, "much:failing"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupt: error %v", err)
	}
	client.load = nil
	if after := listed(t, e); after != before {
		t.Errorf("interrupt: the engine has\n%s, had\n%s", after, before)
	}
	if _, err := Push(t.Context(), client, r, pushes(t, "much:absent"), Options{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("push of an image that is not there: %v", err)
	}
}

func TestPodmanRuns(t *testing.T) { eachPodman(t, testPodmanRuns) }

func testPodmanRuns(t *testing.T, e *enginetest.Engine, client *counted) {
	name := enginetest.For(t).LoadFor(t, enginetest.Hello)
	r := remoteIn(t, t.TempDir())
	mustPush(t, connect(t, enginetest.For(t).Host), r, name)
	mustPull(t, r, client, name)
	// Not by the API, which takes no limits: podman's own are more than this process may raise.
	run := append(e.PodmanArgs(), "run", "--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "docker.io/"+name, "much")
	cmd := exec.Command("podman", run...)
	cmd.Stderr = os.Stderr
	if out, err := cmd.Output(); err != nil || string(out) != "hello from dogestry\nmuch\n" {
		t.Errorf("it printed %q, error %v", out, err)
	}
}
