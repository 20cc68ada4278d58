package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// These tests run on each kind of real engine that this machine has, with a directory as the remote.

func eachEngine(t *testing.T, test func(t *testing.T, e *enginetest.Engine, client *counted)) {
	t.Helper()
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, &counted{Client: connect(t, e.Host)}) })
}

// oneEngine runs a test on the first of these kinds alone, but with -every.
func oneEngine(t *testing.T, test func(t *testing.T, e *enginetest.Engine, client *counted)) {
	t.Helper()
	enginetest.First(t, *every, func(t *testing.T, e *enginetest.Engine) { test(t, e, &counted{Client: connect(t, e.Host)}) })
}

// takesLong tells whether Docker 20 and Podman are spared a trouble image but with -every: others take a fifth of the
// time for so many layers.
func takesLong(tr enginetest.TroubleImage) bool { return tr.Name == "layers-120" && !*every }

func loadImage(t *testing.T, e *enginetest.Engine, m *enginetest.Image) {
	t.Helper()
	if err := e.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// remove takes an image from the engine, with all its tags.
func remove(t *testing.T, e *enginetest.Engine, ref string) {
	t.Helper()
	id, ok, err := e.ImageID(t.Context(), ref)
	if err == nil && ok {
		_, err = e.Docker(t.Context(), nil, "rmi", "-f", id)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tagsIn are the names that an image has in the engine.
func tagsIn(t *testing.T, e *enginetest.Engine, ref string) []string {
	t.Helper()
	out, err := e.Docker(t.Context(), nil, "image", "inspect", "--format", `{{join .RepoTags "\n"}}`, ref)
	if err != nil {
		t.Fatal(err)
	}
	tags := strings.Fields(string(out))
	slices.Sort(tags)
	return tags
}

// TestRoundTrip pushes each trouble image, removes it from the engine, and pulls it again: the same ID, the same names, and
// the same bytes, as another export tells.
func TestRoundTrip(t *testing.T) { eachEngine(t, testRoundTrip) }

func testRoundTrip(t *testing.T, e *enginetest.Engine, client *counted) {
	version, err := e.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range enginetest.Trouble() {
		if takesLong(tr) && (testing.Short() || strings.HasPrefix(version, "20.")) {
			continue
		}
		t.Run(tr.Name, func(t *testing.T) {
			loadImage(t, e, tr.Image)
			defer remove(t, e, tr.ID())
			dir := t.TempDir()
			r := remoteIn(t, dir)
			tags := tr.Tags()
			slices.Sort(tags)
			name := tr.Ref
			if len(tags) == 0 { // the user gives an image without a name one
				name = "much:untagged"
			}
			images := []PushImage{{Source: tr.Ref, Target: reference(t, name)}}
			for _, tag := range tags {
				if tag != tr.Ref {
					images = append(images, PushImage{Source: tag, Target: reference(t, tag)})
				}
			}
			_, err := Push(t.Context(), client, r, images, Options{})
			if tr.NotSaved != "" {
				want := fault.Other
				if tr.Name == "no-layers" {
					want = fault.Refused
				}
				if !fault.Is(err, want) || !strings.Contains(err.Error(), tr.Ref) || len(tagsOf(t, r)) > 0 {
					t.Errorf("error %v, tags %q", err, tagsOf(t, r))
				}
				noTemporary(t, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			client.exports = 0
			again, err := Push(t.Context(), client, r, images, Options{})
			if err != nil || client.exports > 0 || len(moved(again[0])) > 0 {
				t.Errorf("again: %+v, %d exports, error %v", again, client.exports, err)
			}
			remove(t, e, tr.ID())
			var back []PullImage
			for _, i := range images {
				back = append(back, PullImage{i.Target, i.Target})
			}
			results, err := Pull(t.Context(), r, client, back, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if results[0].ID.String() != tr.ID() {
				t.Errorf("pulled %s, want %s", results[0].ID, tr.ID())
			}
			want := tags
			if len(want) == 0 {
				want = []string{name}
			}
			if got := tagsIn(t, e, tr.ID()); !slices.Equal(got, want) {
				t.Errorf("named %q, want %q", got, want)
			}
			saved, err := e.Saved(t.Context(), name)
			if err == nil {
				err = saved.Check(tr.Image)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPulledImageRuns(t *testing.T) { eachEngine(t, testPulledImageRuns) }

func testPulledImageRuns(t *testing.T, e *enginetest.Engine, client *counted) {
	name := e.LoadFor(t, enginetest.Hello)
	r := remoteIn(t, t.TempDir())
	mustPush(t, client, r, name)
	remove(t, e, name)
	if _, err := Pull(t.Context(), r, client, []PullImage{{reference(t, name), reference(t, "dogestry-test/very:hello")}}, Options{}); err != nil {
		t.Fatal(err)
	}
	defer remove(t, e, "dogestry-test/very:hello")
	out, err := e.Docker(t.Context(), nil, "run", "--rm", "--network=none", "dogestry-test/very:hello", "wow")
	if err != nil || string(out) != "hello from dogestry\nwow\n" {
		t.Errorf("it says %q, error %v", out, err)
	}
}

// TestRealPartialPull: with a real engine a wrong guess ends in a full load, and a right one sends little.
func TestRealPartialPull(t *testing.T) { eachEngine(t, testRealPartialPull) }

func testRealPartialPull(t *testing.T, e *enginetest.Engine, client *counted) {
	base, derived := layered("base", "a", "b"), layered("derived", "a", "b", "c")
	for _, m := range []*enginetest.Image{base, derived} {
		loadImage(t, e, m)
		defer remove(t, e, m.ID())
	}
	r := remoteIn(t, t.TempDir())
	mustPush(t, client, r, "much:base", "much:derived")
	remove(t, e, derived.ID())
	client.bytes = 0
	result := mustPull(t, r, client, "much:derived")[0]
	if most := derived.Layers()[2].Size() + 16<<10; len(moved(result)) != 1 || client.bytes > most {
		t.Errorf("moved %q, %d bytes, want at most %d", moved(result), client.bytes, most)
	}
	remove(t, e, derived.ID())
	remove(t, e, base.ID())
	for held := 1; held <= 3; held++ {
		client.loads, client.held = 0, func(_, _ int) int { return held }
		result = mustPull(t, r, client, "much:derived")[0]
		if result.ID.String() != derived.ID() || client.loads != 2 || len(moved(result)) != 3 {
			t.Errorf("%d layers said to be held: %+v, %d loads", held, result, client.loads)
		}
		remove(t, e, derived.ID())
	}
}

// TestRealDamage: a layer damaged in the remote leaves nothing in a real engine.
func TestRealDamage(t *testing.T) { eachEngine(t, testRealDamage) }

func testRealDamage(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("damaged", "a", "b", "c")
	loadImage(t, e, m)
	dir := t.TempDir()
	r := remoteIn(t, dir)
	mustPush(t, client, r, "much:damaged")
	remove(t, e, m.ID())
	before := listed(t, e)
	bad := image.DigestOf(m.Layers()[1].Bytes())
	if err := flipByte(dir + "/images/" + bad.Hex() + "/layer.tar.lz4"); err != nil {
		t.Fatal(err)
	}
	_, err := Pull(t.Context(), r, client, pulls(t, "much:damaged"), Options{})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), bad.Short()) {
		t.Errorf("error %v", err)
	}
	if after := listed(t, e); after != before {
		t.Errorf("the engine has\n%s, had\n%s", after, before)
	}
}

// listed is every image and every layer of the engine.
func listed(t *testing.T, e *enginetest.Engine) string {
	t.Helper()
	out, err := e.Docker(t.Context(), nil, "images", "-a", "--no-trunc")
	if err != nil {
		t.Fatal(err)
	}
	if e.Private() {
		layers, err := os.ReadDir(e.DataRoot() + "/image/overlay2/layerdb/sha256")
		if err != nil && !os.IsNotExist(err) { // an engine that never had an image
			t.Fatal(err)
		}
		for _, l := range layers {
			out = fmt.Appendln(out, l.Name())
		}
	}
	// How long ago an image was made is said in words, which change.
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		lines = append(lines, strings.Join(f[:min(3, len(f))], " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestRealPushesAtOnce(t *testing.T) { eachEngine(t, testRealPushesAtOnce) }

func testRealPushesAtOnce(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("at-once", "a", "b", "c")
	loadImage(t, e, m)
	defer remove(t, e, m.ID())
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 2 {
		r := remoteIn(t, dir)
		wg.Go(func() {
			if _, err := Push(t.Context(), client.Client, r, pushes(t, "much:at-once"), Options{}); err != nil {
				t.Errorf("push %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	noTemporary(t, dir)
	checkWhole(t, remoteIn(t, dir), "much:at-once", m)
}

// TestRealImages: a Debian, and the same with one small layer more; with -every 450 MB in six layers instead.
func TestRealImages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: moves 500 MB")
	}
	oneEngine(t, testRealImages)
}

// realPair brings a real image of so many layers into the engine, and one with 1 MB more.
func realPair(t *testing.T, e *enginetest.Engine) (one, two string, layers int) {
	t.Helper()
	if *every {
		return e.LoadFor(t, enginetest.Apt), e.LoadFor(t, enginetest.AptChanged), 6
	}
	one, two = e.LoadFor(t, enginetest.Debian), "dogestry-test/debian:changed"
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM "+one+"\nCOPY app /srv/app\nCMD [\"/bin/ls\", \"-l\", \"/srv/app\"]\n"), 0o600))
	must(t, os.WriteFile(dir+"/app", bytes.Repeat([]byte("wow, such"), 1_000_000)[:1_000_000], 0o600))
	if _, err := e.Docker(t.Context(), nil, "build", "--tag", two, dir); err != nil {
		t.Fatal(err)
	}
	return one, two, 1
}

func testRealImages(t *testing.T, e *enginetest.Engine, client *counted) {
	one, two, layers := realPair(t, e)
	ids := map[string]string{}
	for _, name := range []string{one, two} {
		id, _, err := e.ImageID(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = id
	}
	r := remoteIn(t, t.TempDir())
	if first := mustPush(t, client, r, one)[0]; len(moved(first)) != layers {
		t.Errorf("first push: %+v", first)
	}
	second := mustPush(t, client, r, two)[0]
	if n, size, _ := second.Moved(); n != 1 || size > 2<<20 {
		t.Errorf("second push: %d layers of %d bytes moved", n, size)
	}
	remove(t, e, two)
	remove(t, e, one)
	mustPull(t, r, client, one)
	client.bytes = 0
	mustPull(t, r, client, two)
	if client.bytes > 2<<20 {
		t.Errorf("second pull: sent %d bytes", client.bytes)
	}
	for name, want := range ids {
		if id, ok, err := e.ImageID(t.Context(), name); id != want || !ok || err != nil {
			t.Errorf("%s is %s, want %s, error %v", name, id, want, err)
		}
	}
	out, err := e.Docker(t.Context(), nil, "run", "--rm", "--network=none", two)
	if err != nil || !strings.Contains(string(out), " 1000000 ") {
		t.Errorf("%s says %q, error %v", two, out, err)
	}
	remove(t, e, two)
	remove(t, e, one)
}

// TestEngineKilledInMidPush, and in mid pull: a clear error, and after a restart a rerun does the rest.
func TestEngineKilled(t *testing.T) { enginetest.EachKind(t, testEngineKilled) }

func testEngineKilled(t *testing.T, k enginetest.Kind) {
	e := enginetest.StartFor(t, k.Options)
	m := enginetest.BigImage(3, 8<<20)
	loadImage(t, e, m)
	client := connect(t, e.Host)
	dir := t.TempDir()
	name := m.Tags()[0]
	clear := func(what string, err error) {
		t.Helper()
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), e.Host) {
			t.Errorf("%s: error %v", what, err)
		}
		if err := e.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Push(t.Context(), client, wired(t, dir, e.Kill, 0, 1<<20), pushes(t, name), Options{Parallel: 1})
	clear("push", err)
	noTemporary(t, dir)
	r := remoteIn(t, dir)
	if tags := tagsOf(t, r); len(tags) > 0 {
		t.Errorf("tags %q", tags)
	}
	mustPush(t, client, r, name)
	checkWhole(t, r, name, m)

	if err := e.Empty(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = Pull(t.Context(), r, &killed{Client: client, after: 12 << 20, kill: e.Kill}, pulls(t, name), Options{})
	clear("pull", err)
	if has, err := client.Inspect(t.Context(), m.ID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("after the kill: %v, error %v", has, err)
	}
	mustPull(t, r, client, name)
	if id, ok, err := e.ImageID(t.Context(), name); id != m.ID() || !ok || err != nil {
		t.Errorf("%s is %s, error %v", name, id, err)
	}
}

// killed is a Loader whose engine dies when so many bytes of an archive have passed.
type killed struct {
	*engine.Client
	after int64
	kill  func()
}

func (k *killed) Load(ctx context.Context, archive io.Reader) ([]image.ID, error) {
	return k.Client.Load(ctx, io.MultiReader(io.LimitReader(archive, k.after), calling{k.kill}, archive))
}
