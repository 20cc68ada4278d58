package transfer

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TestContainerdPlatforms: of an image for several platforms all that the engine has is pushed, with what attests it, and
// each engine pulls what it can run.
func TestContainerdPlatforms(t *testing.T) { eachContainerd(t, testContainerdPlatforms) }

func testContainerdPlatforms(t *testing.T, e *enginetest.Engine, client *counted) {
	other := map[string]string{"amd64": "arm64"}[runtime.GOARCH]
	if other == "" {
		other = "amd64"
	}
	here := layered("here", "here-a", "here-b")
	there := layered("there", "there-a").EditConfig(func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"`+runtime.GOARCH+`"`), []byte(`"`+other+`"`), 1)
	})
	var l enginetest.Layout
	own := l.Image(here, enginetest.Gzip).For("linux", runtime.GOARCH)
	foreign := l.Image(there).For("linux", other)
	attestation := l.Attestation(own, `{"_type":"https://in-toto.io/Statement/v0.1"}`)
	index := l.Index(own, foreign, attestation)
	foreignOnly := slices.DeleteFunc(slices.Clone(foreign.Blobs), func(d string) bool { return slices.Contains(own.Blobs, d) })
	theirs := image.Platform{OS: "linux", Architecture: other}
	partly := append(append([]string{index.Digest}, own.Blobs...), attestation.Blobs...)

	for _, use := range []engine.StoreUse{engine.StoreAuto, engine.StoreOff} {
		client := connectWith(t, engine.Options{URL: e.Host, Store: use})
		// All of it.
		loadLayout(t, e, &l, index, "much:many")
		r := remoteIn(t, t.TempDir())
		if _, err := Push(t.Context(), client, r, pushes(t, "much:many"), Options{AllPlatforms: true}); err != nil {
			t.Fatal(err)
		}
		removeAll(t, e, "much:many")
		for _, c := range []struct {
			name string
			o    Options
			want []string
		}{
			{"the engine's own", Options{}, partly},
			{"all", Options{AllPlatforms: true}, index.Blobs},
			{"another", Options{Platform: theirs}, nil},
		} {
			results, err := Pull(t.Context(), r, client, pulls(t, "much:many"), c.o)
			if err != nil || results[0].ID.String() != index.Digest {
				t.Fatalf("%s, %s: %+v, error %v", use, c.name, results, err)
			}
			if c.want == nil { // Docker 29 exports no image that lacks its own platform
				if has, err := client.Has(t.Context(), results[0].ID, mustParse(t, foreign.Digest)); !has || err != nil {
					t.Errorf("%s, %s: the engine has it: %v, error %v", use, c.name, has, err)
				}
			} else if got, want := savedBlobs(t, e, "much:many"), sorted(c.want); !slices.Equal(got, want) {
				t.Errorf("%s, %s: the engine exports %q, want %q", use, c.name, got, want)
			}
			removeAll(t, e, "much:many")
		}
		checkWhole(t, r, "much:many", here)
		if _, err := Pull(t.Context(), r, client, pulls(t, "much:many"), Options{Platform: image.Platform{OS: "plan9", Architecture: "mips"}}); !fault.Is(err, fault.NotFound) ||
			!strings.Contains(fault.AdviceOf(err), "linux/"+other) {
			t.Errorf("%s: a platform that is not there: %v", use, err)
		}

		// A part of it: the other platform comes later, from elsewhere.
		loadLayout(t, e, &l, index, "much:many", foreignOnly...)
		r = remoteIn(t, t.TempDir())
		if _, err := Push(t.Context(), client, r, pushes(t, "much:many"), Options{AllPlatforms: true}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: all platforms of one that the engine has in part: %v", use, err)
		}
		if got := mustPush(t, client, r, "much:many")[0]; got.ID.String() != index.Digest || len(moved(got)) != 3 {
			t.Errorf("%s: in part: %+v", use, got)
		}
		if _, err := Pull(t.Context(), r, client, pulls(t, "much:many"), Options{Platform: theirs}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: a platform that was not pushed: %v", use, err)
		}
		removeAll(t, e, "much:many")
		loadLayout(t, e, &l, index, "much:many")
		if _, err := Push(t.Context(), client, r, pushes(t, "much:many"), Options{Platform: theirs}); err != nil {
			t.Fatal(err)
		}
		held, err := r.Held(t.Context(), mustParse(t, index.Digest))
		if err != nil || len(held) != 3 {
			t.Errorf("%s: held are %s, error %v", use, held, err)
		}
		removeAll(t, e, "much:many")
	}
}

func diffIDsOf(t *testing.T, m *enginetest.Image) (ids []image.DiffID) {
	t.Helper()
	for _, d := range m.DiffIDs() {
		ids = append(ids, mustParse(t, d))
	}
	return ids
}

func mustParse(t *testing.T, s string) image.Digest {
	t.Helper()
	d, err := image.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestContainerdInParts: an image that comes in parts is the same as in one, also where a layer occurs again and where a
// killed pull has left parts, and no part is left.
func TestContainerdInParts(t *testing.T) { eachLook(t, testContainerdInParts) }

func testContainerdInParts(t *testing.T, e *enginetest.Engine, client *counted) {
	before := listed(t, e)
	for name, contents := range map[string][]string{"distinct": {"a", "b", "c", "d"}, "again": {"a", "b", "a", "c", "b"}} {
		t.Run(name, func(t *testing.T) {
			for i, c := range contents {
				contents[i] = name + "-" + c
			}
			m := layered("parts", contents...)
			var l enginetest.Layout
			n := l.Image(m, enginetest.Gzip)
			loadLayout(t, e, &l, n, "much:parts")
			r := remoteIn(t, t.TempDir())
			mustPush(t, client, r, "much:parts")
			removeAll(t, e, "much:parts")
			all := len(image.Distinct(diffIDsOf(t, m)))
			for killed := range all {
				client.loads = 0
				p := &pull{from: r, to: client, o: inParts.withDefaults(), image: pulls(t, "much:parts")[0]}
				if err := p.resolve(t.Context()); err != nil {
					t.Fatal(err)
				}
				lacking, err := p.lacking(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				parts := p.parts(lacking)
				if len(parts) != all {
					t.Errorf("%d parts of %d layers", len(parts), all)
				}
				if err := p.send(t.Context(), parts[:killed]); err != nil { // and nothing that cleans up
					t.Fatal(err)
				}
				results, err := Pull(t.Context(), r, client, pulls(t, "much:parts"), inParts)
				if err != nil || results[0].ID.String() != n.Digest || len(moved(results[0])) != all-killed {
					t.Errorf("after %d parts: %+v, error %v", killed, results, err)
				}
				if got, want := savedBlobs(t, e, "much:parts"), sorted(n.Blobs); !slices.Equal(got, want) {
					t.Errorf("after %d parts: the engine exports %q, want %q", killed, got, want)
				}
				removeAll(t, e, "much:parts")
				if after := listed(t, e); after != before {
					t.Errorf("after %d parts: the engine has\n%s, had\n%s", killed, after, before)
				}
			}
		})
	}
}

// TestContainerdDryRun: what would move is told without moving it, also where only an export tells it.
func TestContainerdDryRun(t *testing.T) { eachContainerd(t, testContainerdDryRun) }

func testContainerdDryRun(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("dry", "dry-a", "dry-b")
	var l enginetest.Layout
	loadLayout(t, e, &l, l.Image(m), "much:dry")
	for _, use := range []engine.StoreUse{engine.StoreRequire, engine.StoreOff} {
		dir := t.TempDir()
		client := connectWith(t, engine.Options{URL: e.Host, Store: use})
		results, err := Push(t.Context(), client, remoteIn(t, dir), pushes(t, "much:dry"), Options{DryRun: true})
		if err != nil || len(moved(results[0])) != 2 {
			t.Errorf("%s: %+v, error %v", use, results, err)
		}
		if found := remoteFiles(t, dir); len(found) > 0 {
			t.Errorf("%s: it wrote %d files", use, len(found))
		}
	}
}

func TestContainerdPulledImageRuns(t *testing.T) { eachContainerd(t, testPulledImageRuns) }

func TestContainerdRealImages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: moves 500 MB")
	}
	eachContainerd(t, testRealImages)
}

func TestContainerdPushesAtOnce(t *testing.T) { eachContainerd(t, testRealPushesAtOnce) }
