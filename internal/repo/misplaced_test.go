package repo_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
)

// TestMisplaced puts files where a repository has directories, and directories
// where it has files. That is an error that names the place, never a panic and
// never a wrong image; and when it is gone, a push completes what there is.
func TestMisplaced(t *testing.T) {
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"))
	other := remotetest.NewImage(t, "other", remotetest.FileLayer(t, "b", "b"))
	config, layer := "images/"+img.ID.Hex(), "images/"+img.DiffIDs()[0].Hex()
	const (
		file      = "file"
		directory = "directory"
		link      = "link"
		dangling  = "dangling"
	)
	for _, test := range []struct {
		path, what string
		pushes     bool // a push gets around it
	}{
		{"images", file, false},
		{config, file, false},
		{layer, file, false},
		{"repositories", file, false},
		{"repositories/app", file, false},
		{"repositories/app/1", directory, false},
		{config + "/json", directory, false},
		{config + "/manifest", directory, false},
		{layer + "/json", directory, false},
		{layer + "/layer.tar.lz4", directory, false},
		{layer + "/layer.tar.zst", directory, true}, // not the one that is written
		{layer + "/layer.tar.zst", file, true},      // metadata does not name it
		{layer + "/VERSION", directory, false},
		{"VERSION", directory, false},
		{"run", file, false}, // leases are to lie there
		{"images", link, false},
		{"repositories", link, false},
		{"repositories/app", link, false},
		{"repositories/app/1", dangling, true},
		{layer + "/layer.tar.lz4", dangling, true},
		{layer + "/json", dangling, true},
	} {
		t.Run(test.what+" "+strings.NewReplacer(config, "config", layer, "layer").Replace(test.path), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			err := map[string]func() error{
				file:      func() error { return os.WriteFile(path, []byte("stranger"), 0o644) },
				directory: func() error { return os.MkdirAll(filepath.Join(path, "stranger", "deep"), 0o755) },
				link:      func() error { return os.Symlink(t.TempDir(), path) },
				dangling:  func() error { return os.Symlink("nowhere", path) },
			}[test.what]()
			if err == nil && test.what == directory {
				err = os.WriteFile(filepath.Join(path, "stranger", "deep", "file"), nil, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			s := openDir(t, dir)
			r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", Codec: codec.LZ4})
			if err != nil {
				t.Fatal(err)
			}
			ref := remotetest.Ref(t, "app:1")
			if _, err := remotetest.Pull(t.Context(), r, ref); !fault.Is(err, fault.NotFound) {
				t.Errorf("pull: %v, want a not-found fault", err)
			}
			_, err = remotetest.Push(t.Context(), r, ref, img)
			var known *fault.Error
			switch {
			case test.pushes && err != nil:
				t.Errorf("push: %v", err)
			case !test.pushes && (!errors.As(err, &known) || known.Advice == "" || !strings.Contains(err.Error(), test.path) || !strings.Contains(err.Error(), "the-remote")):
				t.Errorf("push: %v, want a fault that names %s and the remote", err, test.path)
			case !test.pushes:
				if _, err := r.Resolve(t.Context(), ref); !fault.Is(err, fault.NotFound) {
					t.Errorf("the push failed, and resolve says: %v", err)
				}
			}
			for _, err := range r.References(t.Context(), "") {
				if err != nil {
					t.Errorf("references: %v", err)
				}
			}
			if !test.pushes {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := remotetest.Push(t.Context(), r, ref, img); err != nil {
				t.Errorf("push when it is gone: %v", err)
			}
			if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:2"), other); err != nil {
				t.Errorf("push of another image: %v", err)
			}
			if tags, err := (plain{s}).check(); err != nil || len(tags) != 2 {
				t.Errorf("%v, %v", tags, err)
			}
			got, err := remotetest.Pull(t.Context(), r, ref)
			if err != nil || img.Diff(got) != "" {
				t.Errorf("pull: %v, %s", err, img.Diff(got))
			}
		})
	}
}
