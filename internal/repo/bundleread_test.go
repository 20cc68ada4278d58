package repo

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// listEntry is the first member of a bundle.
func listEntry(t *testing.T, list *remote.Bundle) remotetest.Entry {
	t.Helper()
	content, err := encodeBundle(list)
	if err != nil {
		t.Fatal(err)
	}
	return remotetest.Entry{Header: tar.Header{Name: bundleList}, Content: string(content)}
}

// readBundle reads a bundle to its end, and counts what comes.
func readBundle(t *testing.T, r io.Reader) (items int, err error) {
	t.Helper()
	b, err := OpenBundle(r, "in.tar")
	for err == nil {
		if _, err = b.Next(t.Context()); err == nil {
			items++
		}
	}
	if err == io.EOF {
		err = nil
	}
	return items, err
}

// TestBundleSparse: a member that has more bytes than the tar has of it is refused,
// and so is a list.
func TestBundleSparse(t *testing.T) {
	id := image.DigestOf([]byte("not all of these zeros"))
	list := listEntry(t, &remote.Bundle{Layers: []remote.BundleLayer{{ID: id, Size: 4 << 30, Stored: 4 << 30}}})
	layer := entryKey(id, "layer.tar")
	sparse := func(name string) remotetest.Entry { // the writer lets nobody write such records
		return remotetest.Entry{Header: tar.Header{Name: "hole", PAXRecords: map[string]string{
			"ODD.sparse.major": "0", "ODD.sparse.minor": "1", "ODD.sparse.name": name,
			"ODD.sparse.size": "4294967296", "ODD.sparse.numblocks": "1", "ODD.sparse.map": "4294967296,0",
		}}}
	}
	for name, test := range map[string]struct {
		entries []remotetest.Entry
		says    string
	}{
		"a layer": {[]remotetest.Entry{list, sparse(layer)}, fmt.Sprintf("%q is a sparse file", layer)},
		"a list":  {[]remotetest.Entry{sparse(bundleList)}, "is no bundle"},
	} {
		bundle := bytes.ReplaceAll(remotetest.Tar(t, test.entries...), []byte("ODD."), []byte("GNU."))
		items, err := readBundle(t, struct{ io.Reader }{bytes.NewReader(bundle)})
		if items != 0 || !fault.Is(err, fault.Damaged) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: %d items, %v", name, items, err)
		}
	}
}

// TestBundleClaims: what is as long as the file cannot be is refused before a store
// makes room for it.
func TestBundleClaims(t *testing.T) {
	id := image.DigestOf([]byte("little"))
	list := listEntry(t, &remote.Bundle{Layers: []remote.BundleLayer{{ID: id, Size: 1 << 40, Stored: 1 << 40}}})
	bundle := bytes.TrimRight(remotetest.Tar(t, list), "\x00")
	bundle = append(bundle, make([]byte, -len(bundle)&511)...) // without its end
	var out bytes.Buffer
	if err := tar.NewWriter(&out).WriteHeader(&tar.Header{Name: entryKey(id, "layer.tar"), Mode: 0o644, Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	bundle = append(bundle, out.Bytes()...)
	items, err := readBundle(t, bytes.NewReader(bundle))
	if items != 0 || !fault.Is(err, fault.Damaged) || !strings.Contains(fmt.Sprint(err), "is cut short") {
		t.Errorf("of a file: %d items, %v", items, err)
	}
	items, err = readBundle(t, struct{ io.Reader }{bytes.NewReader(bundle)}) // who knows what is to come
	if items != 1 || !fault.Is(err, fault.Damaged) {
		t.Errorf("of a pipe: %d items, %v", items, err)
	}
}

// TestBundleMany: what can be there in any number is not remembered in any number.
func TestBundleMany(t *testing.T) {
	ref, id := remotetest.Ref(t, "app:1"), image.DigestOf([]byte("image"))
	held := entryKey(id, heldBase+id.Hex())
	tag := remotetest.Entry{Header: tar.Header{Name: tagKey(ref)}, Content: id.Hex()}
	entries := []remotetest.Entry{
		listEntry(t, &remote.Bundle{Tags: []remote.BundleTag{{Image: ref, ID: id}}, Documents: []image.Digest{id}}),
		{Header: tar.Header{Name: held}},
		{Header: tar.Header{Name: held}}, // twice is no harm
	}
	for n := range signaturesSeen {
		entries = append(entries, remotetest.Entry{Header: tar.Header{Name: signatureKey(ref, id, fmt.Sprintf("%016x", n))}})
	}
	if items, err := readBundle(t, bytes.NewReader(remotetest.Tar(t, append(entries, tag)...))); items != 2+signaturesSeen+1 || err != nil {
		t.Errorf("as many as may be: %d items, %v", items, err)
	}
	entries = append(entries, remotetest.Entry{Header: tar.Header{Name: signatureKey(ref, id, strings.Repeat("f", 16))}})
	items, err := readBundle(t, bytes.NewReader(remotetest.Tar(t, append(entries, tag)...)))
	if items != 2+signaturesSeen || !fault.Is(err, fault.Damaged) || !strings.Contains(fmt.Sprint(err), "is one signature too many") {
		t.Errorf("one more: %d items, %v", items, err)
	}
}
