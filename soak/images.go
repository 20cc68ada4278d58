package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
)

// shape says how many images of which kind there are. They are made of few layers,
// so that what one command writes another relies on.
type shape struct {
	pool     int // of layers
	largest  int // bytes of the first of them
	others   int // at most, of the others
	classics int // images of a config and layers
	blobs    int // of a manifest, its layers compressed
	indexes  int // of two platforms
}

var (
	// many are for the soak. The first layer is more than a part of an upload.
	many = shape{pool: 40, largest: 6 << 20, others: 200 << 10, classics: 20, blobs: 6, indexes: 3}
	few  = shape{pool: 6, largest: 3 << 10, others: 3 << 10, classics: 3, blobs: 2, indexes: 1}
)

// platforms are those of the indexes.
var platforms = []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// catalogue is all images that there are, in a directory remote and in memory.
type catalogue struct {
	source string     // the remote's name
	at     *repo.Repo // the same, open
	ids    map[string]image.ID
	// content has the bytes of every document, blob and tar by their digests.
	content map[image.Digest][]byte

	classic, multi, all []string // tags in the source
}

// makeCatalogue makes images that follow from the seed, in an empty remote.
func makeCatalogue(ctx context.Context, r *repo.Repo, sh shape, seed uint64) (*catalogue, error) {
	c := &catalogue{at: r, ids: map[string]image.ID{}, content: map[image.Digest][]byte{}}
	random := rand.New(rand.NewPCG(seed, 0))
	pool := make([]*enginetest.Layer, sh.pool)
	for i := range pool {
		size := 1<<10 + random.IntN(sh.others)
		if i == 0 {
			size = sh.largest
		}
		pool[i] = enginetest.NewLayer(enginetest.File(fmt.Sprint("file", i), 0o644, string(remotetest.Noise(fmt.Sprint(seed, i), size))))
		c.add(pool[i].Bytes())
	}
	draw := func(name string) *enginetest.Image { // layers that others have too, and one that none has
		m := enginetest.NewImage()
		for _, i := range random.Perm(sh.pool)[:2+random.IntN(3)] {
			m.Add(pool[i])
		}
		own := enginetest.NewLayer(enginetest.File("own", 0o644, name+strings.Repeat(" ", random.IntN(2<<10))))
		c.add(own.Bytes())
		m.Add(own)
		return m.Step("ENV name=" + name)
	}
	for i := range sh.classics {
		name := fmt.Sprintf("classic:%d", i)
		if err := c.addClassic(ctx, r, name, draw(name)); err != nil {
			return nil, err
		}
	}
	var l enginetest.Layout
	for i := range sh.blobs {
		name := fmt.Sprintf("blobs:%d", i)
		node := l.Image(draw(name), enginetest.Gzip, enginetest.Zstd, enginetest.Raw)
		if err := c.addNode(ctx, r, &l, name, node, nil); err != nil {
			return nil, err
		}
	}
	for i := range sh.indexes {
		name := fmt.Sprintf("multi:%d", i)
		var children []enginetest.Node
		for _, p := range platforms {
			children = append(children, l.Image(draw(name+p.Architecture), enginetest.Gzip).For(p.OS, p.Architecture))
		}
		if err := c.addNode(ctx, r, &l, name, l.Index(children...), children); err != nil {
			return nil, err
		}
		c.multi = append(c.multi, name)
	}
	return c, nil
}

func (c *catalogue) add(b []byte) { c.content[image.DigestOf(b)] = b }

func (c *catalogue) addClassic(ctx context.Context, to *repo.Repo, name string, m *enginetest.Image) error {
	img := remotetest.Image{Config: m.Config(), ID: image.DigestOf(m.Config())}
	for _, l := range m.Layers() {
		img.Layers = append(img.Layers, l.Bytes())
	}
	ref, err := image.ParseReference(name)
	if err != nil {
		return err
	}
	c.add(img.Config)
	c.ids[name] = img.ID
	c.classic, c.all = append(c.classic, name), append(c.all, name)
	_, err = remotetest.Push(ctx, to, ref, img)
	return err
}

// addNode stores a manifest, or an index and its children.
func (c *catalogue) addNode(ctx context.Context, to *repo.Repo, l *enginetest.Layout, name string, n enginetest.Node, children []enginetest.Node) error {
	ref, err := image.ParseReference(name)
	if err != nil {
		return err
	}
	var held []image.Digest
	for _, child := range append(slices.Clone(children), n) {
		id, err := c.putDocument(ctx, to, l, child.Digest)
		if err != nil {
			return err
		}
		held = append(held, id)
	}
	id := held[len(children)]
	if len(children) > 0 {
		if err := to.Hold(ctx, id, held[:len(children)]); err != nil {
			return err
		}
	}
	c.ids[name], c.all = id, append(c.all, name)
	return to.Tag(ctx, ref, id)
}

// putDocument stores a manifest or an index, a manifest with all that it names.
func (c *catalogue) putDocument(ctx context.Context, to *repo.Repo, l *enginetest.Layout, digest string) (image.Digest, error) {
	var doc struct {
		Config *image.Descriptor
		Layers []image.Descriptor
	}
	b := l.Blob(digest)
	if err := json.Unmarshal(b, &doc); err != nil {
		return image.Digest{}, err
	}
	for _, d := range doc.Layers {
		blob := l.Blob(d.Digest.String())
		c.add(blob)
		if _, err := to.PutLayer(ctx, d, bytes.NewReader(blob)); err != nil {
			return image.Digest{}, err
		}
	}
	if doc.Config != nil {
		config := l.Blob(doc.Config.Digest.String())
		c.add(config)
		if err := to.PutDocument(ctx, config); err != nil {
			return image.Digest{}, err
		}
	}
	c.add(b)
	return image.DigestOf(b), to.PutDocument(ctx, b)
}

// whole reads all of what a tag names, and compares every byte with what was
// made. Its error says what is wrong; absent is NotFound.
func (c *catalogue) whole(ctx context.Context, from remote.Source, tag string) (image.ID, error) {
	ref, err := image.ParseReference(tag)
	if err != nil {
		return image.ID{}, err
	}
	id, err := from.Resolve(ctx, ref)
	if err != nil {
		return id, err
	}
	tree, err := remote.ReadTree(ctx, from, id, nil)
	if err != nil {
		return id, err
	}
	ids, docs := tree.Documents()
	for i, doc := range docs {
		if !bytes.Equal(doc, c.content[ids[i]]) {
			return id, fmt.Errorf("the document %s has other bytes", ids[i])
		}
	}
	if tree.Kind == image.IndexKind && len(tree.Children) == 0 {
		return id, fmt.Errorf("the index %s has none of its platforms", id)
	}
	closure, err := remote.ClosureOf(tree)
	if err != nil {
		return id, err
	}
	layers, err := remote.Layers(ctx, from, closure.Layers)
	if err != nil {
		return id, err
	}
	for _, l := range layers {
		if err := c.sameLayer(ctx, from, l); err != nil {
			return id, err
		}
	}
	return id, ctx.Err()
}

func (c *catalogue) sameLayer(ctx context.Context, from remote.Source, l remote.Layer) error {
	r, err := from.Open(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if want, ok := c.content[l.Digest]; !ok || !bytes.Equal(got, want) {
		return fmt.Errorf("the layer %s has other bytes", l.Digest)
	}
	return nil
}
