package enginetest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Pair names two releases of one layer, as two builds leave it: little of what is in the files has changed, and all that a
// build writes anew has. They are made once, and kept in the cache.
type Pair string

// The pairs. All but AptPair are of files of Debian packages, which script/bootstrap test fetches, and take seconds to make.
const (
	// AptPair is what apt-get leaves of a Rails application's packages, some 300 MB of tar, and of one package more: two builds by
	// an engine, for figures. Files keep their mtimes, but dpkg's lists, logs, the cache of ldconfig and bytecode are new. It is made as the real
	// images are, which takes minutes.
	AptPair Pair = "apt"
	// TreePair is a node_modules of more than 5,000 files, 20 MB of tar, installed again: all mtimes are new, and one file is another.
	TreePair Pair = "tree"
	// NpmPair is the same with some 190 files, 3 MB of tar.
	NpmPair Pair = "npm"
	// PipPair is a site-packages, 30 MB of tar with numpy in it, installed again: all mtimes are new, and so is bytecode, which
	// names the mtime of its source; one file is another.
	PipPair Pair = "pip"
	// GemPair is a folder of gems installed again: all mtimes are new, and one file is another.
	GemPair Pair = "gem"
	// JarPair is one jar of 3 MB, packed again with other times inside, and one file is another.
	JarPair Pair = "jar"
	// BinaryPair is one static binary of 8 MB of which a constant is another.
	BinaryPair Pair = "binary"
)

// SmallPairs are those that are small enough for each run of the tests.
func SmallPairs() []Pair { return []Pair{NpmPair, PipPair, GemPair, JarPair, BinaryPair} }

// Layers returns both layers. It makes them first if the cache lacks them: ctx should allow ten minutes for AptPair, and one
// for the others. Several processes may ask at once.
func (p Pair) Layers(ctx context.Context) (first, second *Layer, err error) {
	made := map[Pair]maker{
		AptPair:    aptReleases,
		TreePair:   nodeReleases("node-acorn", "node-babel7", "node-lodash", "node-postcss", "node-terser", "webpack"),
		NpmPair:    nodeReleases("node-acorn", "node-postcss", "node-terser"),
		PipPair:    pipReleases("python3-jinja2", "python3-numpy", "python3-requests", "python3-yaml"),
		GemPair:    gemReleases("puma", "ruby-actionpack", "ruby-activerecord", "ruby-activesupport", "ruby-addressable", "ruby-i18n", "ruby-nokogiri", "ruby-tzinfo"),
		JarPair:    jarReleases("libguava-java"),
		BinaryPair: binaryReleases(),
	}
	m, ok := made[p]
	if !ok {
		return nil, nil, fmt.Errorf("no pair of releases %q", p)
	}
	dir, err := once(ctx, "releases-"+string(p), m.recipe+runtime.GOARCH, func(ctx context.Context, dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return m.make(ctx, filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar"))
	})
	if err != nil {
		return nil, nil, fmt.Errorf("releases %s: %w", p, err)
	}
	if first, err = fileLayer(filepath.Join(dir, "1.tar")); err == nil {
		second, err = fileLayer(filepath.Join(dir, "2.tar"))
	}
	return first, second, err
}

// For is [Pair.Layers] for tests.
func (p Pair) For(tb testing.TB) (first, second *Layer) {
	tb.Helper()
	first, second, err := p.Layers(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return first, second
}

// maker makes the tars of a pair at two paths. What it makes is another when its recipe is.
type maker struct {
	recipe string
	make   func(ctx context.Context, first, second string) error
}

// The packages of AptPair. Both releases come out of one download, so that they differ in nothing that a mirror changes.
const (
	aptPackages = "gcc libpq-dev make ruby-dev ruby-rails"
	aptMore     = "puma"
	aptFetched  = Repository + "/releases-apt:fetched"
	aptInstall  = "apt-get install -y --no-install-recommends -o Dir::Cache::Archives=/srv/debs "
	aptFetch    = "FROM " + string(Debian) + "\nENV DEBIAN_FRONTEND=noninteractive\nRUN mkdir -p /srv/debs/partial && apt-get update && " +
		aptInstall + "--download-only " + aptPackages + " " + aptMore + " && rm -f /var/cache/apt/*.bin\n"
	aptRelease = "FROM " + aptFetched + "\nRUN " + aptInstall + "--no-download %s && rm -f /var/cache/apt/*.bin\n"
)

var aptReleases = maker{aptFetch + aptRelease, buildAptReleases}

func buildAptReleases(ctx context.Context, first, second string) (err error) {
	e, err := Start(ctx, Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	if _, err := e.Load(ctx, Debian); err != nil {
		return err
	}
	if err := e.build(ctx, aptFetched, aptFetch, nil); err != nil {
		return err
	}
	for _, release := range []struct{ path, packages string }{{first, aptPackages}, {second, aptPackages + " " + aptMore}} {
		const name = Repository + "/releases-apt:built"
		if err := e.build(ctx, name, fmt.Sprintf(aptRelease, release.packages), nil); err != nil {
			return err
		}
		archive := release.path + ".saved"
		if err := writeFile(archive, func(w io.Writer) error { return e.Save(ctx, w, name) }); err != nil {
			return err
		}
		if err := writeFile(release.path, func(w io.Writer) error { return topLayer(w, archive) }); err != nil {
			return err
		}
		if err := os.Remove(archive); err != nil {
			return err
		}
	}
	return nil
}

// topLayer writes the last layer of the one image in a docker-archive.
func topLayer(w io.Writer, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	find := func(name string) (io.Reader, error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		t := tar.NewReader(f)
		for {
			h, err := t.Next()
			if err != nil {
				return nil, fmt.Errorf("%s in the archive: %w", name, err)
			}
			if path.Clean(h.Name) == name && h.Typeflag == tar.TypeReg {
				return t, nil
			}
		}
	}
	r, err := find("manifest.json")
	if err != nil {
		return err
	}
	var manifests []archiveManifest
	if err := json.NewDecoder(r).Decode(&manifests); err != nil {
		return err
	}
	if len(manifests) != 1 || len(manifests[0].Layers) == 0 {
		return errors.New("not an archive of one image")
	}
	layers := manifests[0].Layers
	if r, err = find(strings.TrimPrefix(layers[len(layers)-1], "./")); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}
