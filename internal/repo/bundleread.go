package repo

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// bundleReader reads a bundle, which anybody may have made: it believes no name
// and no size, and holds no more of it than one document, and what it has seen.
type bundleReader struct {
	name string
	from *bundleSource
	tar  *tar.Reader
	list *remote.Bundle

	documents  map[image.Digest]bool
	layers     map[image.Digest]remote.BundleLayer
	tags       map[image.Reference]image.ID
	signatures map[string]image.Reference // by how the keys of a tag's begin
	seen       map[string]bool            // keys that came, but for marks: an index may have any of the documents
	signed     map[image.Reference]int    // signatures that came
	left       int                        // tags that have not
}

var _ remote.BundleReader = (*bundleReader)(nil)

// OpenBundle reads the list of a bundle. What follows is read by Next; where r can
// seek, what nobody needs is not read. The caller closes what r reads, and ends a
// Read that may block with the context.
func OpenBundle(r io.Reader, name string) (remote.BundleReader, error) {
	b := &bundleReader{name: name, from: newBundleSource(r)}
	b.tar = tar.NewReader(b.from)
	first, err := b.tar.Next()
	switch {
	case err == io.EOF && b.from.read == 0:
		return nil, fault.New(fault.Damaged, "the bundle %s is empty", name).Advise("The export that was to write it has failed, or has not begun.")
	case b.from.err != nil:
		return nil, fault.Wrap(fault.Other, b.from.err, "cannot read %s", name)
	case err != nil || first.Name != bundleList || first.Typeflag != tar.TypeReg || isSparse(first):
		return nil, fault.New(fault.Damaged, "%s is no bundle", name).
			Advise("`dogestry export` makes bundles; %s is its first member. What `docker save` wrote is for `docker load`, and of a directory remote in a tar `dogestry copy` takes what is unpacked.", bundleList)
	}
	b.list, err = parseBundle(b.tar, name)
	var known *fault.Error
	if err != nil && !errors.As(err, &known) {
		err = b.failure(err)
	}
	if err != nil {
		return nil, err
	}
	b.index()
	return b, nil
}

func (b *bundleReader) index() {
	b.documents, b.layers = map[image.Digest]bool{}, map[image.Digest]remote.BundleLayer{}
	b.tags, b.signatures = map[image.Reference]image.ID{}, map[string]image.Reference{}
	b.seen, b.signed, b.left = map[string]bool{}, map[image.Reference]int{}, len(b.list.Tags)
	for _, id := range b.list.Documents {
		b.documents[id] = true
	}
	for _, l := range b.list.Layers {
		b.layers[l.ID] = l
	}
	for _, t := range b.list.Tags {
		b.tags[t.Image] = t.ID
		b.signatures[tagSignatures(t.Image)] = t.Image
	}
}

// bundleSource remembers how reading went.
type bundleSource struct {
	io.Reader
	read int64
	size int64 // of all that there is; -1 where that is not known
	err  error // none of its end
}

func newBundleSource(r io.Reader) *bundleSource {
	s := &bundleSource{Reader: r, size: -1}
	if at, err := s.Seek(0, io.SeekCurrent); err == nil {
		end, err := s.Seek(0, io.SeekEnd)
		if err == nil {
			s.size = end
		}
		_, s.err = s.Seek(at, io.SeekStart)
	}
	return s
}

func (s *bundleSource) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Seek is for passing over members. Without it they are read.
func (s *bundleSource) Seek(offset int64, whence int) (int64, error) {
	if seeker, ok := s.Reader.(io.Seeker); ok {
		return seeker.Seek(offset, whence)
	}
	return 0, errors.ErrUnsupported
}

// Bundle implements remote.BundleReader.
func (b *bundleReader) Bundle() *remote.Bundle { return b.list }

// Next implements remote.BundleReader.
func (b *bundleReader) Next(ctx context.Context) (remote.BundleItem, error) {
	for {
		if err := ctx.Err(); err != nil {
			return remote.BundleItem{}, err
		}
		h, err := b.tar.Next()
		if err == io.EOF {
			if b.left > 0 {
				err = b.failure(io.ErrUnexpectedEOF)
			}
			return remote.BundleItem{}, err
		}
		if err != nil {
			return remote.BundleItem{}, b.failure(err)
		}
		key, err := b.key(h)
		if err != nil {
			return remote.BundleItem{}, err
		}
		if b.from.size >= 0 && h.Size > b.from.size { // before a store makes room for it
			return remote.BundleItem{}, b.failure(io.ErrUnexpectedEOF)
		}
		item, ok, err := b.item(key, h)
		if ok || err != nil {
			return item, err
		}
	}
}

// key returns the key of a member, "" where it has none that counts.
func (b *bundleReader) key(h *tar.Header) (string, error) {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		name = strings.TrimSuffix(name, "/")
	default:
		return "", b.strange(h, "is neither file nor directory")
	}
	if isSparse(h) { // a few bytes of it would be as many as it likes
		return "", b.strange(h, "is a sparse file")
	}
	if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
		return "", b.strange(h, "leads out of it")
	}
	if h.Typeflag == tar.TypeDir || storage.ValidKey(name) != nil {
		return "", nil // as in a repository, nobody's
	}
	if b.seen[name] {
		return "", b.strange(h, "is there twice")
	}
	return name, nil
}

// isSparse reports whether a member has more bytes than the tar has of it.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false // those of old have a type of their own
}

// item returns what a member is, if the list announces it.
func (b *bundleReader) item(key string, h *tar.Header) (item remote.BundleItem, ok bool, err error) {
	if id, name, isEntry := parseEntryKey(key); isEntry {
		return b.ofEntry(key, id, name, h)
	}
	if ref, isTag := parseTagKey(key); isTag {
		id, listed := b.tags[ref]
		if !listed {
			return item, false, nil
		}
		content, err := b.small(h, maxSmall)
		if err != nil {
			return item, false, err
		}
		if named, err := parseID(content); err != nil || named != id {
			return item, false, b.strange(h, "is not what its list says")
		}
		b.seen[key] = true
		b.left--
		return remote.BundleItem{Tag: &remote.BundleTag{Image: ref, ID: id}}, true, nil
	}
	ref, listed := b.signatures[key[:strings.IndexByte(key, '@')+1]]
	s, isSignature := parseSignature(ref, key)
	if !listed || !isSignature || s.Image != b.tags[ref] {
		return item, false, nil
	}
	if b.signed[ref]++; b.signed[ref] > signaturesSeen {
		return item, false, b.strange(h, "is one signature too many of its tag")
	}
	content, err := b.small(h, remote.MaxSignature)
	b.seen[key] = true
	return remote.BundleItem{Signature: &remote.BundleSignature{Reference: ref, Signature: s, Content: content}}, err == nil, err
}

// ofEntry is item for a file of an entry.
func (b *bundleReader) ofEntry(key string, id image.Digest, name string, h *tar.Header) (item remote.BundleItem, ok bool, err error) {
	_, isLayer := codecOf(name)
	layer, listed := b.layers[id]
	held, heldErr := image.ParseHex(strings.TrimPrefix(name, heldBase))
	switch {
	case name == entryJSON && b.documents[id]:
		doc, err := b.small(h, image.MaxDocument)
		if err == nil && image.DigestOf(doc) != id {
			err = b.strange(h, "is not the document that its name says")
		}
		if err != nil {
			return item, false, err
		}
		item.Document = doc
	case isLayer && listed:
		item.Layer = &remote.BundleBody{
			BundleLayer: layer,
			As:          remote.Stored{File: name, Size: h.Size, Body: io.NopCloser(readerFunc(b.body))},
		}
	case strings.HasPrefix(name, heldBase) && heldErr == nil && b.documents[id] && b.documents[held]:
		item.Held = &remote.BundleHeld{Index: id, Manifest: held}
		return item, true, nil // without being seen: there may be as many as pairs of documents
	default:
		return item, false, nil
	}
	b.seen[key] = true
	return item, true, nil
}

// body reads the member that is being read.
func (b *bundleReader) body(p []byte) (int, error) {
	n, err := b.tar.Read(p)
	if err != nil && err != io.EOF {
		err = b.failure(err)
	}
	return n, err
}

// small reads a member that is to be held in memory.
func (b *bundleReader) small(h *tar.Header, most int64) ([]byte, error) {
	if h.Size > most {
		return nil, b.strange(h, "is too large")
	}
	content, err := io.ReadAll(b.tar)
	if err != nil {
		return nil, b.failure(err)
	}
	return content, nil
}

func (b *bundleReader) strange(h *tar.Header, how string) error {
	return fault.New(fault.Damaged, "the bundle %s is damaged: %.200q %s", b.name, h.Name, how).Advise(bundleAdvice)
}

const bundleAdvice = "Copy it again, and compare its sha256 with the one where it was made. What came before this is stored, and not imported again."

// failure tells what is wrong with the tar, or with reading it.
func (b *bundleReader) failure(err error) error {
	switch {
	case b.from.err != nil && fault.Interrupted(b.from.err):
		return b.from.err
	case b.from.err != nil:
		return fault.Wrap(fault.Other, b.from.err, "cannot read the bundle %s", b.name)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Wrap(fault.Damaged, err, "the bundle %s is cut short", b.name).Advise(bundleAdvice)
	}
	return fault.Wrap(fault.Damaged, err, "the bundle %s is damaged", b.name).Advise(bundleAdvice)
}
