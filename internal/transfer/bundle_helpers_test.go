package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// wholeTags fails the test where a tag of a store does not reach a whole image.
func wholeTags(t *testing.T, when string, s storage.Store) {
	t.Helper()
	r := remoteOn(t, s, codec.None)
	for _, name := range tagsOf(t, r) {
		if _, err := Copy(context.WithoutCancel(t.Context()), r, remoteOn(t, mem.New(), codec.None), copies(t, name), CopyOptions{}); err != nil {
			t.Errorf("%s: %s is torn: %v", when, name, err)
		}
	}
}

func sign(t *testing.T, r *stock, names ...string) {
	t.Helper()
	for _, name := range names {
		id, err := r.Resolve(t.Context(), reference(t, name))
		if err == nil {
			err = r.PutSignature(t.Context(), reference(t, name), id, strings.Repeat("a", 16), []byte("signed "+name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func export(t *testing.T, from remote.Source, since Since, out io.Writer, names ...string) error {
	t.Helper()
	plan, err := PlanExport(t.Context(), from, copies(t, names...), since, CopyOptions{})
	if err != nil {
		return err
	}
	to, err := repo.NewBundle(out, "out.tar", plan.Bundle, plan.There)
	if err != nil {
		return err
	}
	return Export(t.Context(), from, to, plan, CopyOptions{})
}

func mustExport(t *testing.T, from remote.Source, since Since, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := export(t, from, since, &out, names...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func importFrom(t *testing.T, r io.Reader, to remote.Target) (Shipment, error) {
	t.Helper()
	b, err := repo.OpenBundle(r, "in.tar")
	if err != nil {
		return Shipment{}, err
	}
	return Import(t.Context(), b, to, ImportOptions{From: "in.tar", To: "dst"})
}

// member is one of a tar.
type member struct {
	tar.Header
	content string
}

func members(t *testing.T, bundle []byte) (all []member) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(bundle)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, member{*h, string(b)})
	}
}

func pack(t *testing.T, all []member) []byte {
	t.Helper()
	var entries []remotetest.Entry
	for _, m := range all {
		entries = append(entries, remotetest.Entry{Header: m.Header, Content: m.content})
	}
	return remotetest.Tar(t, entries...)
}

func each(all []member, edit func(*tar.Header)) []member {
	all = slices.Clone(all)
	for i := range all {
		edit(&all[i].Header)
	}
	return all
}

func find(t *testing.T, all []member, name string) member {
	t.Helper()
	i := slices.IndexFunc(all, func(m member) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("no member %s", name)
	}
	return all[i]
}

func editOf(all []member, name, content string) []member {
	for i := range all {
		if all[i].Name == name {
			all[i].content = content
		}
	}
	return all
}

// unpack does what tar does.
func unpack(t *testing.T, bundle []byte) (to *mem.Store, names []string) {
	t.Helper()
	to = mem.New()
	for _, m := range members(t, bundle) {
		if slices.Contains(names, m.Name) {
			t.Errorf("%s is there twice", m.Name)
		}
		names = append(names, m.Name)
		if m.Name == ".bundle" {
			continue
		}
		if err := to.Put(t.Context(), m.Name, strings.NewReader(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	return to, names
}

// inOrderOfNeed proves that whatever a tar was cut at, no tag is torn.
func inOrderOfNeed(t *testing.T, names []string, objects map[string]string) {
	t.Helper()
	so := mem.New()
	for _, name := range names[1:] {
		if err := so.Put(t.Context(), name, strings.NewReader(objects[name])); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "repositories/") {
			wholeTags(t, "unpacked up to "+name, so)
		}
	}
}

func sortedKeys(objects map[string]string) (keys []string) {
	for key := range objects {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func movedOf(layers []LayerResult) (n int) {
	for _, l := range layers {
		if l.Moved {
			n++
		}
	}
	return n
}

// tally counts what is read.
type tally struct {
	r io.Reader
	n int
}

func (c *tally) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

type seeking struct {
	*tally
	s io.Seeker
}

func (s *seeking) Seek(offset int64, whence int) (int64, error) { return s.s.Seek(offset, whence) }

// full is a disk that has room for so many bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	n := min(f.left, len(p))
	if f.left -= n; n < len(p) {
		return n, storage.ErrNoSpace
	}
	return n, nil
}

// stopping calls stop once so many bytes were read.
type stopping struct {
	io.Reader
	left int
	stop func()
}

func (s *stopping) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p[:min(len(p), 512)])
	if s.left -= n; s.left <= 0 {
		s.stop()
	}
	return n, err
}
