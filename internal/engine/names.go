package engine

import (
	"bytes"
	"encoding/json"
	"io"
	"path"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// names tells what an entry of an export is before its bytes arrive
// (docs/decisions/0003-one-export-per-image-and-self-proving-names.md). Engines use these names:
//
//	blobs/sha256/<digest>   Docker 25 and later, and OCI layouts
//	<diffID>.tar            Podman
//	<image ID>.json         the config, up to Docker 24, and Podman
//	<v1 ID>/layer.tar       up to Docker 24, behind <v1 ID>/json
//
// A v1 ID is the sha256 of a JSON object of which <v1 ID>/json tells all but
// the layer's chainID. So the chainID with which the sum comes out right is the
// layer's: the name proves itself. For the rest, bytes are hashed in a first pass.
type names struct {
	img    Image
	blobs  bool // of a containerd image store: all blobs are named by their digests
	chain  []image.ChainID
	wanted map[image.DiffID]bool
	layer  map[string]image.DiffID // entry name → layer
	hashed bool                    // a layer was named by hashing its bytes
	summed int                     // bytes, see maxV1Sums
}

type nameKind int

const (
	nameless          nameKind = iota // nothing that an image needs
	namedConfig                       // the config
	namedLayer                        // a layer, known
	namedUnknownLayer                 // a layer, but which?
	namedV1JSON                       // what tells about the layer.tar beside it
	namedBlob                         // a document or a layer of a containerd image store
)

// maxV1JSON bounds a v1 json, in bytes; a larger one tells nothing. maxV1Sums
// bounds the bytes of all sums of an export, of which an image of 127 layers needs 10 MB.
const (
	maxV1JSON = 1 << 20
	maxV1Sums = 256 << 20
)

func newNames(img Image) *names {
	n := &names{
		img:    img,
		blobs:  len(img.Manifests) > 0,
		chain:  image.ChainIDs(img.DiffIDs),
		wanted: map[image.DiffID]bool{},
		layer:  map[string]image.DiffID{},
	}
	for _, d := range img.DiffIDs {
		n.wanted[d] = true
	}
	return n
}

func (n *names) identify(name string) (nameKind, image.Digest) {
	dir, base := path.Split(name)
	stem, ext, _ := strings.Cut(base, ".")
	if d, err := image.ParseHex(stem); err == nil {
		inBlobs := dir == "blobs/sha256/" && ext == ""
		switch {
		case n.blobs && inBlobs:
			return namedBlob, d
		case d == n.img.ID && (inBlobs || dir == "" && ext == "json"):
			return namedConfig, d
		case n.wanted[d] && (inBlobs || dir == "" && ext == "tar"):
			return namedLayer, d
		}
	}
	if base == "json" && isHexDir(dir) {
		return namedV1JSON, image.Digest{}
	}
	if base == "layer.tar" && isHexDir(dir) {
		if d, ok := n.layer[name]; ok {
			return namedLayer, d
		}
		return namedUnknownLayer, image.Digest{}
	}
	return nameless, image.Digest{}
}

func isHexDir(dir string) bool {
	_, err := image.ParseHex(strings.TrimSuffix(dir, "/"))
	return err == nil
}

// readV1 finds the layer of dir by dir's json, of size bytes.
func (n *names) readV1(dir string, r io.Reader, size int64) error {
	if size > maxV1JSON {
		return nil
	}
	doc, err := io.ReadAll(io.LimitReader(r, maxV1JSON))
	if err != nil {
		return err
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(doc, &object) != nil || object == nil { // nil: it was null
		return nil
	}
	delete(object, "id")
	if _, ok := object["parent"]; ok {
		var parent string
		if json.Unmarshal(object["parent"], &parent) != nil {
			return nil
		}
		object["parent"] = quoted("sha256:" + parent)
	}
	// The top layer's object has an "os"; those below get theirs after the sum is taken.
	for range 2 {
		if i, ok := n.chainOf(object, dir); ok {
			n.layer[dir+"/layer.tar"] = n.img.DiffIDs[i]
			return nil
		}
		delete(object, "os")
	}
	return nil
}

// chainOf returns the index of the chainID with which the object's sum is v1ID.
func (n *names) chainOf(object map[string]json.RawMessage, v1ID string) (int, bool) {
	place := quoted(image.ChainID{}.String())
	object["layer_id"] = place
	b, err := json.Marshal(object)
	if err != nil {
		return 0, false
	}
	at := bytes.Index(b, place)
	for i, c := range n.chain {
		if n.summed += len(b); n.summed > maxV1Sums {
			break
		}
		copy(b[at:], quoted(c.String()))
		if image.DigestOf(b).Hex() == v1ID {
			return i, true
		}
	}
	return 0, false
}

func quoted(s string) json.RawMessage { return json.RawMessage(`"` + s + `"`) }

// set names a layer by its bytes.
func (n *names) set(name string, d image.DiffID) {
	if n.wanted[d] {
		n.layer[name], n.hashed = d, true
	}
}

// learned reports whether a layer was named by its bytes since the last call.
func (n *names) learned() bool {
	learned := n.hashed
	n.hashed = false
	return learned
}
