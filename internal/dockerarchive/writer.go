package dockerarchive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// Writer makes a new archive, an image layout and what `docker load` of classic
// image stores wants in one. It appends to a file beside the place of the archive,
// which Commit gives its name. Several layers that are put at once take turns.
type Writer struct {
	*layout.Target
	out  *output
	name string
	temp *temporary // nil in a plan
}

var (
	_ remote.Remote    = (*Writer)(nil)
	_ remote.Committer = (*Writer)(nil)
)

// Create begins an archive at path, which name stands for in messages. It is Refused
// where something is there, NotFound where the directory is missing. The caller
// closes it.
func Create(path, name string) (*Writer, error) {
	w, err := Plan(path, name)
	if err != nil {
		return nil, err
	}
	temp, err := newTemporary(path)
	if err != nil {
		return nil, w.failure(err)
	}
	w.temp = temp
	w.use(newOutput(temp.file))
	return w, nil
}

// Plan is Create that makes nothing, and takes nothing.
func Plan(path, name string) (*Writer, error) {
	w := &Writer{name: name}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return nil, w.exists()
	case !errors.Is(err, os.ErrNotExist):
		return nil, w.failure(err)
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		return nil, fault.Wrap(fault.NotFound, plain(err), "cannot make %s", name).
			Advise("Its directory is missing: mkdir -p %q", dir)
	}
	w.use(newOutput(nil))
	return w, nil
}

func (w *Writer) use(out *output) { w.out, w.Target = out, layout.NewTarget(out, w.name) }

func (w *Writer) exists() error {
	return fault.New(fault.Refused, "%s is there already", w.name).
		Advise("An archive is written anew, not added to: choose another name, or remove the file.")
}

func (w *Writer) failure(err error) error {
	var known *fault.Error
	switch {
	case errors.As(err, &known), fault.Interrupted(err):
		return err
	case errors.Is(err, os.ErrExist):
		return w.exists()
	case errors.Is(err, os.ErrPermission), errors.Is(err, storage.ErrPermission):
		return fault.Wrap(fault.Refused, plain(err), "no permission to write %s", w.name)
	}
	return fault.Wrap(fault.Other, plain(err), "cannot write %s", w.name)
}

// Commit ends the archive and gives it its name, unless something has it by now.
func (w *Writer) Commit(ctx context.Context) error {
	items, err := w.out.Items(ctx)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return fault.New(fault.NotFound, "there is no image to write to %s", w.name)
	}
	images, err := w.saved(ctx, items)
	if err != nil {
		return err
	}
	if err := w.finish(ctx, images); err != nil {
		return w.failure(err)
	}
	return nil
}

func (w *Writer) finish(ctx context.Context, images []saved) error {
	manifest, err := json.Marshal(images)
	if err != nil {
		return err
	}
	index, err := w.out.index.Bytes()
	if err != nil {
		return err
	}
	version, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	end := w.out.end
	for _, file := range []struct {
		name    string
		content []byte
	}{{ocispec.ImageLayoutFile, version}, {ocispec.ImageIndexFile, index}, {manifestFile, manifest}} {
		done, err := w.out.append(ctx, end, file.name, bytes.NewReader(file.content))
		if err != nil {
			return err
		}
		end = padded(done)
	}
	if _, err := w.out.file.WriteAt(make([]byte, 2*block), end); err != nil {
		return writeError(err)
	}
	if err := w.out.file.Truncate(end + 2*block); err != nil { // what has failed may be behind it
		return writeError(err)
	}
	return w.temp.publish(ctx)
}

// saved returns the images of manifest.json, those that have several names once.
func (w *Writer) saved(ctx context.Context, items []layout.Item) ([]saved, error) {
	images, at := []saved{}, map[image.Digest]int{}
	for _, item := range items {
		root := item.Root.Digest
		if n, there := at[root]; there {
			if n >= 0 {
				images[n].RepoTags = append(images[n].RepoTags, item.Name.String())
			}
			continue
		}
		tree, err := remote.ReadTree(ctx, w.Source, root, nil)
		if err != nil {
			return nil, w.failure(err)
		}
		at[root] = -1
		if img := loadable(tree); img != nil { // else it is something else than an image
			s := saved{Config: blobName(img.Manifest.Config.Digest), RepoTags: []string{item.Name.String()}, Layers: []string{}}
			for _, l := range img.Manifest.Layers {
				s.Layers = append(s.Layers, blobName(l.Digest))
			}
			at[root] = len(images)
			images = append(images, s)
		}
	}
	return images, nil
}

// loadable returns the image that a classic image store gets: of several the one for
// the architecture of this machine, or the first. Nil where there is none.
func loadable(tree *image.Tree) *image.Tree {
	if tree.Kind == image.ManifestKind {
		if tree.Image() == nil {
			return nil
		}
		return tree
	}
	var first *image.Tree
	for _, child := range tree.Children {
		config := child.Image()
		attests := slices.ContainsFunc(tree.Index.Manifests, func(c image.Child) bool { return c.Digest == child.ID && !c.Attests.IsZero() })
		if config == nil || attests {
			continue
		}
		if config.Platform.OS == "linux" && config.Platform.Architecture == runtime.GOARCH {
			return child
		}
		if first == nil {
			first = child
		}
	}
	return first
}

// Close gives up what was not committed, and removes it. It may be called again.
func (w *Writer) Close() error {
	if w.temp == nil {
		return nil
	}
	return w.temp.close()
}
