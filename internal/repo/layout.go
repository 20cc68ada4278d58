package repo

import (
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
)

// This file is the one place that maps IDs and references to keys. It says what
// docs/format.md says, and nothing else may.

const (
	formatVersion = "2.0"
	formatMajor   = 2

	rootMarker       = "VERSION"
	imagesPrefix     = "images/"
	repositoryPrefix = "repositories/"

	entryJSON     = "json"
	entryVersion  = "VERSION"
	entryManifest = "manifest" // of a config: the id of its synthesised manifest
	layerBase     = "layer.tar"
)

// readOrder is the order in which a reader tries the files of a layer, unless
// the entry's metadata names one.
var readOrder = []codec.Codec{codec.LZ4, codec.Zstd, codec.None}

func entryPrefix(id image.Digest) string { return imagesPrefix + id.Hex() + "/" }

func entryKey(id image.Digest, name string) string { return entryPrefix(id) + name }

func layerFile(c codec.Codec) string { return layerBase + c.Extension() }

// codecOf returns the codec that an entry's file is stored with.
func codecOf(file string) (codec.Codec, bool) {
	for _, c := range readOrder {
		if layerFile(c) == file {
			return c, true
		}
	}
	return codec.None, false
}

// tagKey is where a tag lies. A ":" (a registry's port) does not travel well
// on every transport, so it is written %3A.
func tagKey(ref image.Reference) string {
	return tagPrefix(ref.Repository) + ref.Tag
}

func tagPrefix(repository string) string {
	return repositoryPrefix + strings.ReplaceAll(repository, ":", "%3A") + "/"
}

// parseTagKey is the inverse of tagKey; ok is false for keys that no tag has.
func parseTagKey(key string) (ref image.Reference, ok bool) {
	name, ok := strings.CutPrefix(key, repositoryPrefix)
	if !ok || strings.Contains(name, ":") {
		return image.Reference{}, false
	}
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return image.Reference{}, false
	}
	repository := strings.ReplaceAll(name[:slash], "%3A", ":")
	tag := name[slash+1:]
	ref, err := image.ParseReference(repository + ":" + tag)
	if err != nil || ref.Repository != repository || ref.Tag != tag {
		return image.Reference{}, false
	}
	return ref, true
}

// parseID reads what a tag or a manifest pointer contains: 64 hex digits and an optional line feed.
func parseID(content []byte) (image.Digest, error) {
	return image.ParseHex(strings.TrimSuffix(string(content), "\n"))
}
