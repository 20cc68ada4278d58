package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Media types of the OCI image specification.
const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar"
	inToto      = "application/vnd.in-toto+json"
)

// Layout is an OCI image layout in the making (image-spec, image-layout.md), for engines with the containerd image store.
// Its methods must not run beside one another.
type Layout struct {
	blobs map[string][]byte // by digest
	order []string
}

// Node is a manifest or index of a layout.
type Node struct {
	Digest string   // "sha256:…"
	Blobs  []string // digests of all that it needs, itself included

	json map[string]any
}

// Add puts a blob into the layout and returns its digest.
func (l *Layout) Add(b []byte) string {
	sum := sha256.Sum256(b)
	d := "sha256:" + hex.EncodeToString(sum[:])
	if l.blobs == nil {
		l.blobs = map[string][]byte{}
	}
	if l.blobs[d] == nil {
		l.blobs[d] = b
		l.order = append(l.order, d)
	}
	return d
}

// Blob returns a blob's bytes.
func (l *Layout) Blob(digest string) []byte { return l.blobs[digest] }

// Compression is how a manifest has the layers of an image.
type Compression string

// The compressions of layers.
const (
	Raw  Compression = ""
	Gzip Compression = "+gzip"
	Zstd Compression = "+zstd"
)

// Pack compresses b.
func (c Compression) Pack(b []byte) []byte {
	var to bytes.Buffer
	var w io.WriteCloser
	switch c {
	case Gzip:
		w = gzip.NewWriter(&to)
	case Zstd:
		w, _ = zstd.NewWriter(&to) // no option, no error
	default:
		return b
	}
	_, err := w.Write(b)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // memory takes all
	}
	return to.Bytes()
}

// Image adds an image, its layers compressed, all by one compression or each by its own.
func (l *Layout) Image(m *Image, compressions ...Compression) Node {
	if len(compressions) == 0 {
		compressions = []Compression{Raw}
	}
	var packed [][]byte
	for i, layer := range m.Layers() {
		packed = append(packed, compressions[min(i, len(compressions)-1)].Pack(layer.Bytes()))
	}
	return l.image(m.Config(), compressions, packed)
}

// ImageOf adds an image of such layers as they are in it, whatever its config says of them.
func (l *Layout) ImageOf(config []byte, c Compression, packed ...[]byte) Node {
	return l.image(config, []Compression{c}, packed)
}

func (l *Layout) image(config []byte, compressions []Compression, packed [][]byte) Node {
	var layers []any
	var blobs []string
	for i, b := range packed {
		d := l.Add(b)
		blobs = append(blobs, d)
		layers = append(layers, descriptor(ociLayer+string(compressions[min(i, len(compressions)-1)]), d, len(b)))
	}
	return l.manifest(config, layers, blobs)
}

// Elsewhere adds an image whose manifest says that its top layer is to be had at a URL too.
func (l *Layout) Elsewhere(m *Image, url string) Node {
	var layers []any
	var blobs []string
	for _, layer := range m.Layers() {
		d := l.Add(layer.Bytes())
		blobs = append(blobs, d)
		layers = append(layers, descriptor(ociLayer, d, len(layer.Bytes())))
	}
	layers[len(layers)-1].(map[string]any)["urls"] = []string{url}
	return l.manifest(m.Config(), layers, blobs)
}

// Attestation adds an attestation of an image, as BuildKit makes them.
func (l *Layout) Attestation(of Node, statement string) Node {
	d := l.Add([]byte(statement))
	config := `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + d + `"]}}`
	n := l.manifest([]byte(config), []any{descriptor(inToto, d, len(statement))}, []string{d})
	n.json["annotations"] = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest}
	return n.For("unknown", "unknown")
}

func (l *Layout) manifest(config []byte, layers []any, blobs []string) Node {
	id := l.Add(config)
	return l.node(ociManifest, map[string]any{"config": descriptor(ociConfig, id, len(config)), "layers": layers}, append(blobs, id))
}

// Index adds an index.
func (l *Layout) Index(children ...Node) Node {
	var manifests []any
	var blobs []string
	for _, c := range children {
		manifests = append(manifests, c.json)
		blobs = append(blobs, c.Blobs...)
	}
	return l.node(ociIndex, map[string]any{"manifests": manifests}, blobs)
}

func (l *Layout) node(mediaType string, doc map[string]any, blobs []string) Node {
	doc["schemaVersion"], doc["mediaType"] = 2, mediaType
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // none of this can fail
	}
	d := l.Add(b)
	return Node{Digest: d, Blobs: append(blobs, d), json: descriptor(mediaType, d, len(b))}
}

func descriptor(mediaType, digest string, size int) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest, "size": size}
}

// For is the node as an index names it, with its platform.
func (n Node) For(os, architecture string) Node {
	n.json["platform"] = map[string]string{"os": os, "architecture": architecture}
	return n
}

// Archive returns the layout as a tar, under a name of the kind that docker shows ("" for none), without these blobs.
func (l *Layout) Archive(root Node, name string, without ...string) []byte {
	var to bytes.Buffer
	t := tar.NewWriter(&to)
	write := func(name string, content []byte) {
		err := t.WriteHeader(archiveHeader(name, int64(len(content))))
		if err == nil {
			_, err = t.Write(content)
		}
		if err != nil {
			panic(err) // memory takes all
		}
	}
	named := map[string]any{"mediaType": root.json["mediaType"], "digest": root.Digest, "size": root.json["size"]}
	if name != "" {
		named["annotations"] = map[string]string{"io.containerd.image.name": "docker.io/library/" + name}
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{named}})
	if err != nil {
		panic(err) // none of this can fail
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write("index.json", index)
	for _, d := range l.order {
		if slices.Contains(root.Blobs, d) && !slices.Contains(without, d) {
			write("blobs/sha256/"+d[len("sha256:"):], l.blobs[d])
		}
	}
	if err := t.Close(); err != nil {
		panic(err) // memory takes all
	}
	return to.Bytes()
}
