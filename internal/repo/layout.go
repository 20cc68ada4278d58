package repo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// This file is the one place that maps IDs and references to keys. It says what
// docs/format.md says, and nothing else may.

const (
	formatVersion = "2.0"
	formatMajor   = 2

	rootMarker       = "VERSION"
	imagesPrefix     = "images/"
	repositoryPrefix = "repositories/"
	signaturesPrefix = "signatures/"
	digestsPrefix    = "digests/"   // what registries know besides
	referrersPrefix  = "referrers/" // the same
	runPrefix        = "run/"       // what does not outlive a run; copies leave it out
	uploadsPrefix    = runPrefix + "uploads/"
	bundleList       = ".bundle" // the first member of a bundle; no store has it

	entryJSON     = "json"
	entryVersion  = "VERSION"
	entryManifest = "manifest" // of a config: the id of its synthesised manifest
	entryBlob     = "blob"     // bytes kept as they came
	layerBase     = "layer.tar"
	heldBase      = "held-" // of an index, and the hex digits of a manifest that is here

	uploadSession = "session" // of an upload: what it is for
	uploadDigits  = 32        // of the ID of an upload
	offsetDigits  = 20        // of a piece's name, so that pieces are listed in their order

	keyDigits = 16 // of the ID of a key that signs
)

// readOrder is the order in which a reader tries the files of a layer, unless
// the entry's metadata names one.
var readOrder = []codec.Codec{codec.LZ4, codec.Zstd, codec.None}

func entryPrefix(id image.Digest) string { return imagesPrefix + id.Hex() + "/" }

func entryKey(id image.Digest, name string) string { return entryPrefix(id) + name }

func layerFile(c codec.Codec) string { return layerBase + c.Extension() }

// parseEntryKey is the inverse of entryKey.
func parseEntryKey(key string) (id image.Digest, name string, ok bool) {
	rest, inImages := strings.CutPrefix(key, imagesPrefix)
	hex, name, inEntry := strings.Cut(rest, "/")
	id, err := image.ParseHex(hex)
	return id, name, inImages && inEntry && err == nil
}

// codecOf returns the codec that an entry's file is stored with.
func codecOf(file string) (codec.Codec, bool) {
	if file == entryBlob {
		return codec.None, true
	}
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
	return repositoryPrefix + encodeRepository(repository) + "/"
}

func encodeRepository(repository string) string { return strings.ReplaceAll(repository, ":", "%3A") }

// signatureKey is where the signature lies by which the key of that ID says that
// ref names id.
func signatureKey(ref image.Reference, id image.ID, key string) string {
	return imageSignatures(ref, id) + key
}

// tagSignatures begins the keys of all signatures of a tag. No tag or repository
// has an "@", so no such key is a part of another tag's.
func tagSignatures(ref image.Reference) string {
	return signaturesPrefix + encodeRepository(ref.Repository) + "/" + ref.Tag + "@"
}

// imageSignatures begins those of a tag that are about one image.
func imageSignatures(ref image.Reference, id image.ID) string {
	return tagSignatures(ref) + id.Hex() + "."
}

// signedImage returns the image that a signature is about, by its key.
func signedImage(key string) (id image.ID, ok bool) {
	_, about, ok := strings.Cut(key[strings.LastIndexByte(key, '/')+1:], "@")
	hex, _, hasKey := strings.Cut(about, ".")
	id, err := image.ParseHex(hex)
	return id, ok && hasKey && err == nil
}

// parseSignature is the inverse of signatureKey for the signatures of one tag.
func parseSignature(ref image.Reference, key string) (s remote.Signature, ok bool) {
	name, ok := strings.CutPrefix(key, tagSignatures(ref))
	hex, signer, dot := strings.Cut(name, ".")
	id, err := image.ParseHex(hex)
	if !ok || !dot || err != nil || len(signer) != keyDigits || strings.Trim(signer, hexDigits) != "" {
		return remote.Signature{}, false
	}
	return remote.Signature{Image: id, Key: signer}, true
}

// memberKey is where it is said that a manifest belongs to a repository.
func memberKey(repository string, id image.Digest) string {
	return memberPrefix(repository) + id.Hex()
}

func memberPrefix(repository string) string {
	return digestsPrefix + encodeRepository(repository) + "/"
}

// memberOrReferrer is where it is said that a manifest belongs to a
// repository, and, where subject is not zero, that it refers to that.
func memberOrReferrer(repository string, manifest, subject image.Digest) string {
	if subject.IsZero() {
		return memberKey(repository, manifest)
	}
	return referrerKey(repository, subject, manifest)
}

// parseMemberKey is the inverse of memberKey and of referrerKey; ok is false for keys
// that neither has.
func parseMemberKey(key string) (m remote.Membership, ok bool) {
	id, ok := parseMember(key)
	if !ok {
		return m, false
	}
	m.Manifest = id
	name, isMember := strings.CutPrefix(key, digestsPrefix)
	if isMember {
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
	} else {
		if m.Subject, _, ok = parseReferrer(key); !ok {
			return m, false
		}
		name = strings.TrimPrefix(key, referrersPrefix)
		name = name[:max(0, len(name)-len("/")*2-len(m.Subject.Hex())*2)]
	}
	m.Repository = strings.ReplaceAll(name, "%3A", ":")
	return m, validRepository(m.Repository) && key == memberOrReferrer(m.Repository, m.Manifest, m.Subject)
}

// validRepository reports whether a name is one of a repository, as docker shows it.
func validRepository(name string) bool {
	parsed, err := image.ParseRepository(name)
	return err == nil && parsed == name
}

// parseMember returns the manifest that a key below digests/ or referrers/ names.
func parseMember(key string) (id image.Digest, ok bool) {
	id, err := image.ParseHex(key[strings.LastIndexByte(key, '/')+1:])
	return id, err == nil
}

// repositoryReferrers begins the keys of all referrers that a repository has, and
// maybe of other repositories.
func repositoryReferrers(repository string) string {
	return referrersPrefix + encodeRepository(repository) + "/"
}

// referrersOf begins the keys of those that refer to subject.
func referrersOf(repository string, subject image.Digest) string {
	return repositoryReferrers(repository) + subject.Hex() + "/"
}

// referrerKey is where it is said that a manifest of a repository refers to subject.
func referrerKey(repository string, subject, id image.Digest) string {
	return referrersOf(repository, subject) + id.Hex()
}

// parseReferrer returns what a key below referrers/ is about.
func parseReferrer(key string) (subject, id image.Digest, ok bool) {
	id, ok = parseMember(key)
	if !ok {
		return subject, id, false
	}
	subject, ok = parseMember(key[:strings.LastIndexByte(key, '/')])
	return subject, id, ok
}

// uploadKey is where an object of an upload lies.
func uploadKey(id, name string) string { return uploadPrefix(id) + name }

func uploadPrefix(id string) string { return uploadsPrefix + id + "/" }

// pieceName is that of the piece of an upload that begins at offset.
func pieceName(offset int64) string { return fmt.Sprintf("%0*d", offsetDigits, offset) }

// parsePiece is the inverse of pieceName.
func parsePiece(name string) (offset int64, ok bool) {
	offset, err := strconv.ParseInt(name, 10, 64)
	return offset, err == nil && offset >= 0 && pieceName(offset) == name
}

// parseUploadKey returns the upload that a key is of.
func parseUploadKey(key string) (id string, ok bool) {
	rest, below := strings.CutPrefix(key, uploadsPrefix)
	id, _, inUpload := strings.Cut(rest, "/")
	return id, below && inUpload && validUpload(id)
}

// validUpload reports whether id may be that of an upload.
func validUpload(id string) bool {
	return len(id) == uploadDigits && strings.Trim(id, hexDigits) == ""
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
