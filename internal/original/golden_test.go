package original_test

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pierrec/lz4/v4"

	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

var update = flag.Bool("update", false, "write testdata/golden/1.0 anew, which never has to be: what it is made of is from 2013")

const golden = "../../testdata/golden/1.0"

// goldenIDs are the images of the golden repository: the digests of their configs.
// Docker 20.10 calls them so too, as a test of package transfer proves, but for
// deep:127, which has too many layers for it, and team/deep/nested:V2, one of whose
// entries has none.
var goldenIDs = map[string]string{
	"myapp:1":                          "12d4ac0d0d21fcae9aa2269c9a1e75bfb53200a5d6283629d10c8d9aaf50bc66",
	"localhost:5000/team/myapp:latest": "12d4ac0d0d21fcae9aa2269c9a1e75bfb53200a5d6283629d10c8d9aaf50bc66",
	"myapp:2":                          "c810bce9d8003079d4286dd51a7aeb0a150c6deb1694de45592af48ef4ebc456",
	"team/deep/nested:V2":              "bd615d71a7031b9bea2ad75dba0e25a4e1c1314e2c32fbbcffd3d1f32940b5b2",
	"deep:127":                         "b8a2499af334aa54c7ff2a9549e420212c313d2b197ffafaf8144715ae594474",
}

func openDir(t *testing.T, dir string) *repo.Repo {
	t.Helper()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return open(t, s)
}

func open(t testing.TB, s storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGoldenIsTheGenerators proves that testdata has what originaltest makes, but
// for how it is compressed.
func TestGoldenIsTheGenerators(t *testing.T) {
	want := originaltest.Golden()
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		if err := want.Write(golden); err != nil {
			t.Fatal(err)
		}
	}
	got := originaltest.Repository{}
	err := filepath.WalkDir(golden, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(golden, path)
		if err != nil {
			return err
		}
		got[filepath.ToSlash(key)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []originaltest.Repository{want, got} {
		for key, content := range r {
			if strings.HasSuffix(key, ".lz4") {
				var b bytes.Buffer
				if _, err := b.ReadFrom(lz4.NewReader(bytes.NewReader(content))); err != nil {
					t.Errorf("%s: %v", key, err)
				}
				r[key] = b.Bytes()
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-made +in testdata):\n%s", diff)
	}
}

// TestGoldenIsRead proves what the images are. The IDs are frozen.
func TestGoldenIsRead(t *testing.T) {
	r := openDir(t, golden)
	source := original.New(r, original.Options{Name: "the-remote"})
	for ref, id := range goldenIDs {
		img, err := remotetest.Pull(t.Context(), source, remotetest.Ref(t, ref))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if img.ID.Hex() != id {
			t.Errorf("%s is %s, want %s, with the config\n%s", ref, img.ID.Hex(), id, img.Config)
		}
	}
}
