package enginetest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path"
	"strings"
	"testing"
	"time"
)

// TestReleases looks that two releases differ in what a rebuild changes, and in nothing else.
func TestReleases(t *testing.T) {
	const everything = -1
	for _, want := range []struct {
		pair            Pair
		files           int   // at least
		least, greatest int64 // bytes of tar
		anothers        int   // files whose content is another, besides bytecode
		bytecode        bool
	}{
		{TreePair, 5000, 15e6, 40e6, 1, false},
		{NpmPair, 190, 3e6, 6e6, 1, false},
		{PipPair, 1000, 20e6, 50e6, 1, true},
		{GemPair, 800, 4e6, 12e6, 1, false},
		{JarPair, 1, 2e6, 5e6, everything, false},
		{BinaryPair, 1, 5e6, 15e6, everything, false},
	} {
		t.Run(string(want.pair), func(t *testing.T) {
			first, second := want.pair.For(t)
			a, b := members(t, first), members(t, second)
			if len(a) != len(b) {
				t.Errorf("%d members, then %d", len(a), len(b))
			}
			files, anothers, bytecode := 0, 0, 0
			for name, was := range a {
				is, ok := b[name]
				if !ok {
					t.Errorf("%s is gone", name)
					continue
				}
				if !was.header.ModTime.Before(is.header.ModTime) {
					t.Errorf("%s is of %s, then of %s", name, was.header.ModTime, is.header.ModTime)
				}
				if was.header.Typeflag == tar.TypeReg {
					files++
				}
				switch same := bytes.Equal(was.content, is.content); {
				case path.Ext(name) == ".pyc":
					bytecode++
					if same {
						t.Errorf("bytecode %s is the same, which names the time of its source", name)
					}
				case !same:
					anothers++
				}
			}
			if want.anothers == everything {
				want.anothers = files
			}
			if files < want.files || anothers != want.anothers || bytecode > 0 != want.bytecode {
				t.Errorf("%d files, %d changed, %d of bytecode", files, anothers, bytecode)
			}
			for _, l := range []*Layer{first, second} {
				if l.Size() < want.least || l.Size() > want.greatest {
					t.Errorf("a tar of %d bytes", l.Size())
				}
			}
			t.Logf("%d files, %d and %d bytes of tar", files, first.Size(), second.Size())
		})
	}
}

// TestJarReleases looks into the jars.
func TestJarReleases(t *testing.T) {
	first, second := JarPair.For(t)
	var jars [2]*zip.Reader
	for i, l := range []*Layer{first, second} {
		content := members(t, l)["app/app.jar"].content
		var err error
		if jars[i], err = zip.NewReader(bytes.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
	}
	if len(jars[0].File) != len(jars[1].File) || len(jars[0].File) < 1000 {
		t.Fatalf("%d files, then %d", len(jars[0].File), len(jars[1].File))
	}
	anothers := 0
	for i, was := range jars[0].File {
		is := jars[1].File[i]
		if is.Name != was.Name || !was.Modified.Before(is.Modified) {
			t.Errorf("%s is of %s, then %s of %s", was.Name, was.Modified, is.Name, is.Modified)
		}
		if is.CRC32 != was.CRC32 {
			anothers++
		}
	}
	if anothers != 1 {
		t.Errorf("%d files changed", anothers)
	}
}

type member struct {
	header  *tar.Header
	content []byte
}

// members are what a layer's tar has, by name. It fails when a directory comes after what is in it.
func members(t *testing.T, l *Layer) map[string]member {
	t.Helper()
	all := map[string]member{}
	r := tar.NewReader(bytes.NewReader(l.Bytes()))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if dir := path.Dir(strings.TrimSuffix(h.Name, "/")); dir != "." && all[dir+"/"].header == nil {
			t.Errorf("%s comes before its directory", h.Name)
		}
		all[h.Name] = member{h, content}
	}
}

// every is for `make test-engines`, which has time.
var every = flag.Bool("every", false, "TestRealImages looks at all of them; TestAptReleases builds the pair that apt builds, which takes minutes and a Debian mirror the first time")

func TestAptReleases(t *testing.T) {
	if !*every {
		t.Skip("-every builds this pair: only the bench uses it")
	}
	NeedPrivate(t, os.Getuid() == 0)
	first, second := AptPair.For(t)
	a, b := layerTimes(t, first), layerTimes(t, second)
	for _, name := range []string{"var/lib/dpkg/status", "etc/ld.so.cache", "var/cache/ldconfig/aux-cache"} {
		if a[name].IsZero() || !a[name].Before(b[name]) {
			t.Errorf("%s is of %s, then of %s", name, a[name], b[name])
		}
	}
	same := 0
	for name, was := range a {
		if b[name].Equal(was) {
			same++
		}
	}
	if len(b) <= len(a) || same < len(a)*3/4 {
		t.Errorf("%d members, then %d, and %d as old as they were", len(a), len(b), same)
	}
	if first.Size() < 100e6 || second.Size() < first.Size() {
		t.Errorf("%d bytes of tar, then %d", first.Size(), second.Size())
	}
	t.Logf("%d and %d members, %d as old as they were; %d and %d bytes of tar", len(a), len(b), same, first.Size(), second.Size())
}

func layerTimes(t *testing.T, l *Layer) map[string]time.Time {
	t.Helper()
	content := l.Open()
	defer content.Close()
	all := map[string]time.Time{}
	r := tar.NewReader(content)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(h.Name, "./")] = h.ModTime
	}
}
