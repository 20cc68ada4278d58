package engine

import (
	"encoding/json"
	"io"
	"path"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// names tells what an entry of an export is before its bytes arrive
// (docs/decisions/0003-one-export-per-image.md). Engines use these names:
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
	chain  []image.ChainID
	wanted map[image.DiffID]bool
	layer  map[string]image.DiffID // entry name → layer
	hashed bool                    // a layer was named by hashing its bytes
}

type nameKind int

const (
	nameless          nameKind = iota // nothing that an image needs
	namedConfig                       // the config
	namedLayer                        // a layer, known
	namedUnknownLayer                 // a layer, but which?
	namedV1JSON                       // what tells about the layer.tar beside it
)

// maxV1JSON bounds a v1 json, in bytes; a larger one tells nothing.
const maxV1JSON = 1 << 20

func newNames(img Image) *names {
	n := &names{
		img:    img,
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
	if json.Unmarshal(doc, &object) != nil {
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
		for i, c := range n.chain {
			object["layer_id"] = quoted(c.String())
			sum, err := json.Marshal(object)
			if err == nil && image.DigestOf(sum).Hex() == dir {
				n.layer[dir+"/layer.tar"] = n.img.DiffIDs[i]
				return nil
			}
		}
		delete(object, "os")
	}
	return nil
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
