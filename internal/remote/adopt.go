package remote

import (
	"bytes"
	"context"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// Adopt lets what a manifest names be there in the way in which it names it, where
// the same bytes are there in another way: a config that has come as a layer becomes
// a document too, and a document that is named as a layer becomes one too. To a
// registry all of them are blobs. What is there stays what it was. It returns what
// of the manifest is missing then; its error says also which config is no document.
// From and to are the same remote, or a session of it.
func Adopt(ctx context.Context, from Source, to Target, manifest *image.Manifest) (missing Closure, err error) {
	named := Closure{Documents: []image.Digest{manifest.Config.Digest}}
	for _, l := range manifest.Layers {
		named.Layers = append(named.Layers, l.Digest)
	}
	named.Layers = image.Distinct(named.Layers)
	if missing, _, err = to.Missing(ctx, named); err != nil {
		return missing, err
	}
	if len(missing.Documents) > 0 {
		became, err := adoptConfig(ctx, from, to, manifest.Config)
		if err != nil {
			return missing, err
		}
		if became {
			missing.Documents = nil
		}
	}
	var absent []image.Digest
	for _, id := range missing.Layers {
		i := slices.IndexFunc(manifest.Layers, func(l image.Descriptor) bool { return l.Digest == id })
		became, err := adoptLayer(ctx, from, to, manifest.Layers[i])
		if err != nil {
			return missing, err
		}
		if !became {
			absent = append(absent, id)
		}
	}
	missing.Layers = absent
	return missing, nil
}

// adoptConfig stores a layer as a document.
func adoptConfig(ctx context.Context, from Source, to Target, config image.Descriptor) (became bool, err error) {
	found, err := from.Look(ctx, Closure{Layers: []image.Digest{config.Digest}}, nil)
	if err != nil {
		return false, err
	}
	layer, ok := found.Layers[config.Digest]
	if !ok {
		return false, nil
	}
	if layer.Size > image.MaxDocument {
		return false, fault.Wrap(fault.Other, image.ErrTooLarge, "config %s", config.Digest.Short())
	}
	r, err := from.Open(ctx, layer)
	if err != nil {
		return false, err
	}
	defer r.Close()
	doc, err := image.ReadDocument(r, config.Digest)
	if err != nil {
		return false, err
	}
	return true, to.PutDocument(ctx, doc)
}

// adoptLayer stores a document as a layer.
func adoptLayer(ctx context.Context, from Source, to Target, layer image.Descriptor) (became bool, err error) {
	doc, err := from.Document(ctx, layer.Digest)
	if fault.Is(err, fault.Damaged) || fault.Is(err, fault.NotFound) { // it is none
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = to.PutLayer(ctx, layer, bytes.NewReader(doc))
	return err == nil, err
}
