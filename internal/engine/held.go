package engine

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
)

// inspections bounds how many images are inspected at once.
const inspections = 8

// Held returns how many of the lowest layers of diffIDs the engine has, as part
// of any of its images. A classic store matches layers as a chain from the
// bottom, so nothing above the first one it lacks counts. Below are the images
// that have some or all of these layers and no other.
//
// The layer list of an image ID never changes, so it is asked for once and then
// remembered: an engine with thousands of images answers one list request.
func (c *Client) Held(ctx context.Context, diffIDs []image.DiffID) (held int, below []image.ID, err error) {
	list, err := c.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return 0, nil, c.failure(ctx, err, "cannot list images")
	}
	var ids []image.ID
	for _, item := range list.Items {
		if id, err := image.ParseDigest(item.ID); err == nil {
			ids = append(ids, id)
		}
	}
	lists, err := c.listsOf(ctx, ids)
	if err != nil {
		return 0, nil, err
	}
	for id, layers := range lists {
		n := commonPrefix(layers, diffIDs)
		held = max(held, n)
		if n > 0 && n == len(layers) {
			below = append(below, id)
		}
	}
	return held, below, nil
}

// listsOf returns the layer lists of images: those that are remembered, and of the
// others what the engine says. One that has gone meanwhile is left out.
func (c *Client) listsOf(ctx context.Context, ids []image.ID) (map[image.ID][]image.DiffID, error) {
	known := c.layers.load()
	lists := make(map[image.ID][]image.DiffID, len(ids))
	var unknown []image.ID
	for _, id := range ids {
		if layers, ok := known[id]; ok {
			lists[id] = layers
		} else {
			unknown = append(unknown, id)
		}
	}
	learned, err := c.layerLists(ctx, unknown)
	if err != nil {
		return nil, err
	}
	c.layers.add(learned)
	maps.Copy(lists, learned)
	return lists, nil
}

// layerLists inspects images, several at once. One that has gone meanwhile is left out.
func (c *Client) layerLists(ctx context.Context, ids []image.ID) (map[image.ID][]image.DiffID, error) {
	var mu sync.Mutex
	lists := make(map[image.ID][]image.DiffID, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inspections)
	for _, id := range ids {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			r, err := c.api.ImageInspect(gctx, id.String())
			if errdefs.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return c.failure(ctx, err, "cannot inspect %s", id.Short())
			}
			if len(r.RootFS.Layers) > image.MaxLayers {
				return nil // no engine makes such images: not worth remembering
			}
			layers := make([]image.DiffID, len(r.RootFS.Layers))
			for i, l := range r.RootFS.Layers {
				if layers[i], err = image.ParseDigest(l); err != nil {
					return nil // not a layer list that we could compare
				}
			}
			mu.Lock()
			defer mu.Unlock()
			lists[id] = layers
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return lists, ctx.Err()
}

func commonPrefix(a, b []image.DiffID) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// maxLayerCache is the size in bytes at which the remembered layer lists are
// thrown away: enough for some 20,000 images.
const maxLayerCache = 16 << 20

// layerCache remembers the layer lists of images in one file: a line an image,
// its ID and then its diffIDs, in hex, or of a manifest its digest and those of
// its layers. Lines are appended with one write each;
// what does not parse is ignored. A wrong line costs one needless full load.
type layerCache struct {
	path string // empty: nothing is remembered
	log  *slog.Logger
}

func openLayerCache(dir string, log *slog.Logger) *layerCache {
	if dir == "" {
		return &layerCache{log: log}
	}
	return &layerCache{path: filepath.Join(dir, "image-layers"), log: log}
}

// load returns what is remembered; nothing where the file cannot be read.
func (c *layerCache) load() map[image.ID][]image.DiffID {
	lists := map[image.ID][]image.DiffID{}
	if c.path == "" {
		return lists
	}
	f, err := os.Open(c.path)
	if err != nil {
		return lists
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 65*(image.MaxLayers+2))
	for lines.Scan() {
		if id, layers, ok := parseLayerLine(lines.Text()); ok {
			lists[id] = layers
		}
	}
	return lists
}

func parseLayerLine(line string) (image.ID, []image.DiffID, bool) {
	fields := strings.Split(line, " ")
	if fields[len(fields)-1] != "." { // the end mark: the line is whole
		return image.ID{}, nil, false
	}
	id, err := image.ParseHex(fields[0])
	if err != nil {
		return image.ID{}, nil, false
	}
	layers := make([]image.DiffID, len(fields)-2)
	for i, f := range fields[1 : len(fields)-1] {
		if layers[i], err = image.ParseHex(f); err != nil {
			return image.ID{}, nil, false
		}
	}
	return id, layers, true
}

// add remembers lists. Not being able to is told in the log alone: it costs time, nothing else.
func (c *layerCache) add(lists map[image.ID][]image.DiffID) {
	if c.path == "" || len(lists) == 0 {
		return
	}
	if err := c.write(lists); err != nil {
		c.log.Debug("cannot remember the layers of images", "file", c.path, "error", err)
	}
}

func (c *layerCache) write(lists map[image.ID][]image.DiffID) error {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	mode := os.O_APPEND
	if info, err := os.Stat(c.path); err == nil && info.Size() > maxLayerCache {
		mode = os.O_TRUNC
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|mode, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for id, layers := range lists {
		// The leading line feed ends what a killed writer left unfinished.
		line := "\n" + id.Hex()
		for _, l := range layers {
			line += " " + l.Hex()
		}
		if _, err := fmt.Fprint(f, line+" .\n"); err != nil {
			return err
		}
	}
	return nil
}
