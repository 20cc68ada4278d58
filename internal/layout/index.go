package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/image"
)

// Annotations of what an index.json names.
const (
	// nameAnnotation is the whole name, as containerd and Docker write and read it.
	nameAnnotation = "io.containerd.image.name"

	// configAnnotation is the image ID, a config's digest, of an image that had no
	// manifest where it came from: so it has that ID again where it goes.
	configAnnotation = "com.github.dogestry.image.id"
)

// maxItems bounds what an index.json names.
const maxItems = 20_000

// Index is an index.json (image-spec, image-layout.md). What it has and nobody here
// knows is kept.
type Index struct {
	members map[string]json.RawMessage // all but manifests
	entries []json.RawMessage
	items   []Item // those of entries; one that is of no use here has no digest
}

// NewIndex returns one that names nothing.
func NewIndex() *Index {
	x := &Index{members: map[string]json.RawMessage{}}
	x.members["schemaVersion"] = json.RawMessage("2")
	x.members["mediaType"] = quoted(ocispec.MediaTypeImageIndex)
	return x
}

func quoted(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string is always JSON
	}
	return b
}

// ParseIndex reads an index.json. Entries that dogestry has no use for, such as
// those with digests of other algorithms, are no errors and no Items.
func ParseIndex(doc []byte) (*Index, error) {
	switch kind, err := image.KindOf(doc); {
	case err != nil:
		return nil, err
	case kind != image.IndexKind:
		return nil, fmt.Errorf("a %s, not an index", kind)
	}
	x := &Index{}
	if err := json.Unmarshal(doc, &x.members); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(x.members["manifests"]))
	delete(x.members, "manifests")
	switch t, err := d.Token(); {
	case err != nil:
		return nil, err
	case t == nil: // null
		return x, nil
	case t != json.Delim('['):
		return nil, errors.New("manifests is no list")
	}
	for d.More() {
		if len(x.entries) == maxItems {
			return nil, fmt.Errorf("more than %d manifests", maxItems)
		}
		var entry json.RawMessage
		if err := d.Decode(&entry); err != nil {
			return nil, err
		}
		x.entries, x.items = append(x.entries, entry), append(x.items, itemOf(entry))
	}
	return x, nil
}

func itemOf(entry json.RawMessage) Item {
	root, err := image.ParseDescriptor(entry)
	var more struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err != nil || json.Unmarshal(entry, &more) != nil {
		return Item{}
	}
	i := Item{Root: root, Name: ParseName(more.Annotations[nameAnnotation])}
	if i.Name.Repository == "" {
		i.Name = ParseName(more.Annotations[ocispec.AnnotationRefName])
	}
	if id, err := image.ParseDigest(more.Annotations[configAnnotation]); err == nil {
		i.Config = id
	}
	return i
}

// Items returns what the index names, in its order.
func (x *Index) Items() []Item {
	return slices.DeleteFunc(slices.Clone(x.items), func(i Item) bool { return i.Root.Digest.IsZero() })
}

// Set lets the index name an item, which has a name, and nothing else so. It
// reports whether that is a change.
func (x *Index) Set(item Item) bool {
	at := slices.IndexFunc(x.items, func(i Item) bool { return i.Name == item.Name })
	last := len(x.items) - 1
	for last >= 0 && x.items[last].Name != item.Name {
		last--
	}
	if at >= 0 && at == last && x.items[at].Root.Digest == item.Root.Digest && x.items[at].Config == item.Config {
		return false
	}
	for i := last; i > at && at >= 0; i-- { // the first one is replaced, the others go
		if x.items[i].Name == item.Name {
			x.items, x.entries = slices.Delete(x.items, i, i+1), slices.Delete(x.entries, i, i+1)
		}
	}
	if at < 0 {
		x.items, x.entries = append(x.items, item), append(x.entries, entryOf(item))
	} else {
		x.items[at], x.entries[at] = item, entryOf(item)
	}
	return true
}

// entryOf is what dogestry writes for an item: its whole name where skopeo and
// others look, and where containerd and Docker do.
func entryOf(item Item) json.RawMessage {
	annotations := map[string]string{ocispec.AnnotationRefName: item.Name.String()}
	if named, err := reference.ParseNormalizedNamed(item.Name.String()); err == nil {
		annotations[nameAnnotation] = named.String()
	}
	if !item.Config.IsZero() {
		annotations[configAnnotation] = item.Config.String()
	}
	b, err := json.Marshal(ocispec.Descriptor{
		MediaType:   item.Root.MediaType,
		Digest:      digest.Digest(item.Root.Digest.String()),
		Size:        item.Root.Size,
		Annotations: annotations,
	})
	if err != nil {
		panic(err) // none of this can fail
	}
	return b
}

// Bytes returns the index.json.
func (x *Index) Bytes() ([]byte, error) {
	if len(x.entries) > maxItems {
		return nil, fmt.Errorf("more than %d manifests", maxItems)
	}
	entries := x.entries
	if entries == nil {
		entries = []json.RawMessage{}
	}
	list, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	members := map[string]json.RawMessage{"manifests": list}
	for name, value := range x.members {
		members[name] = value
	}
	doc, err := json.Marshal(members)
	if err == nil && len(doc) > image.MaxDocument {
		err = image.ErrTooLarge
	}
	return doc, err
}

// layoutFile is an oci-layout; see image-spec, image-layout.md, "oci-layout file".
func layoutFile() []byte {
	return []byte(`{"` + layoutMember + `":"` + ocispec.ImageLayoutVersion + `"}`)
}

const layoutMember = "imageLayoutVersion"

// CheckVersion refuses an oci-layout file of another version.
func CheckVersion(doc []byte) error {
	var l ocispec.ImageLayout
	if err := json.Unmarshal(doc, &l); err != nil {
		return err
	}
	if l.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("it has the version %.20q; this dogestry knows %s", l.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}
