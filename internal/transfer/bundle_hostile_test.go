package transfer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestBundleHostile: what others may have put into a tar.
func TestBundleHostile(t *testing.T) {
	from := newStock(t)
	bundle := mustExport(t, from, nil, "app:1")
	id, err := from.Resolve(t.Context(), reference(t, "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) member {
		return member{tar.Header{Name: name, Typeflag: tar.TypeReg}, content}
	}
	for name, test := range map[string]struct {
		edit func([]member) []member
		says string // "" where it comes all the same
	}{
		"nothing": {func(m []member) []member { return m }, ""},
		"unknown members": {func(m []member) []member {
			return slices.Concat(m[:1], []member{
				file("future/key", "x"), file("images/"+strings.Repeat("0", 64)+"/json", "{}"), file(".hidden", "x"), file("a\nb", "x"),
				file("repositories/other/tag", id.Hex()), file("run/leases/x", "x"), file("images/"+id.Hex()+"/odd", "x"),
				{tar.Header{Name: "images/", Typeflag: tar.TypeDir}, ""},
				file("signatures/app/1@"+id.Hex()+".x", "x"),
				file("signatures/app/1@"+strings.Repeat("1", 64)+"."+strings.Repeat("a", 16), "x"),
				file("signatures/app/2@"+id.Hex()+"."+strings.Repeat("a", 16), "x"),
			}, m[1:])
		}, ""},
		"names with a dot before": {func(m []member) []member { return each(m, func(h *tar.Header) { h.Name = "./" + h.Name }) }, "is no bundle"},
		"other names with a dot": {func(m []member) []member {
			return append(m[:1], each(m[1:], func(h *tar.Header) { h.Name = "./" + h.Name })...)
		}, ""},
		"a way out":        {func(m []member) []member { return slices.Insert(m, 1, file("images/../../etc/passwd", "x")) }, "leads out of it"},
		"an absolute name": {func(m []member) []member { return slices.Insert(m, 1, file("/etc/passwd", "x")) }, "leads out of it"},
		"a directory that leads out": {func(m []member) []member {
			return slices.Insert(m, 1, member{tar.Header{Name: "../", Typeflag: tar.TypeDir}, ""})
		}, "leads out of it"},
		"a symlink": {func(m []member) []member {
			return slices.Insert(m, 1, member{tar.Header{Name: "images", Linkname: "/etc", Typeflag: tar.TypeSymlink}, ""})
		}, "is neither file nor directory"},
		"a hard link": {func(m []member) []member {
			return slices.Insert(m, 1, member{tar.Header{Name: "x", Linkname: "VERSION", Typeflag: tar.TypeLink}, ""})
		}, "is neither file nor directory"},
		"a device": {func(m []member) []member {
			return slices.Insert(m, 1, member{tar.Header{Name: "x", Typeflag: tar.TypeBlock}, ""})
		}, "is neither file nor directory"},
		"a pipe": {func(m []member) []member {
			return slices.Insert(m, 1, member{tar.Header{Name: "x", Typeflag: tar.TypeFifo}, ""})
		}, "is neither file nor directory"},
		"a tag twice":      {func(m []member) []member { return append(m, m[len(m)-1]) }, "is there twice"},
		"a document twice": {func(m []member) []member { return slices.Insert(m, len(m)-1, find(t, m, "images/"+id.Hex()+"/json")) }, "is there twice"},
		"a tag of another image": {func(m []member) []member {
			m[len(m)-1].content = strings.Repeat("1", 64)
			return m
		}, "is not what its list says"},
		"a huge tag": {func(m []member) []member {
			m[len(m)-1].content = strings.Repeat("1", 1<<20)
			return m
		}, "is too large"},
		"a huge document": {func(m []member) []member {
			find(t, m, "images/"+id.Hex()+"/json")
			return editOf(m, "images/"+id.Hex()+"/json", strings.Repeat("x", image.MaxDocument+1))
		}, "is too large"},
		"another document": {func(m []member) []member { return editOf(m, "images/"+id.Hex()+"/json", "{}") }, "is not the document that its name says"},
		"a tag first": {func(m []member) []member {
			return slices.Insert(m[:len(m)-1], 2, m[len(m)-1])
		}, "has all that it names"},
		"no layers": {func(m []member) []member {
			return slices.DeleteFunc(m, func(m member) bool { return len(layerKeys([]string{m.Name})) > 0 })
		}, "has all that it names"},
		"no document": {func(m []member) []member {
			return slices.DeleteFunc(m, func(m member) bool { return m.Name == "images/"+id.Hex()+"/json" })
		}, "has all that it names"},
		"no tag":  {func(m []member) []member { return m[:len(m)-1] }, "is cut short"},
		"no list": {func(m []member) []member { return m[1:] }, "is no bundle"},
		"another layer": {func(m []member) []member {
			for i := range m {
				if keys := layerKeys([]string{m[i].Name}); len(keys) > 0 && strings.HasSuffix(m[i].Name, ".lz4") {
					m[i].content = string(bytes.Repeat([]byte("other"), 100))
				}
			}
			return m
		}, "is damaged in the bundle"},
		"a list of rubbish":      {func(m []member) []member { m[0].content = "{"; return m }, "the list of the bundle"},
		"a list without version": {func(m []member) []member { m[0].content = "{}"; return m }, "the list of the bundle"},
		"a newer list":           {func(m []member) []member { m[0].content = `{"bundle":2,"layers":7}`; return m }, "version 2"},
		"a list with a tag twice": {func(m []member) []member {
			m[0].content = fmt.Sprintf(`{"bundle":1,"tags":[{"image":"a:1","id":"%[1]s"},{"image":"a:1","id":"%[1]s"}]}`, id)
			return m
		}, "there twice"},
		"a list with a name that is none": {func(m []member) []member {
			m[0].content = fmt.Sprintf(`{"bundle":1,"tags":[{"image":"../a","id":"%s"}]}`, id)
			return m
		}, "not an image name"},
		"a list with a negative size": {func(m []member) []member {
			m[0].content = fmt.Sprintf(`{"bundle":1,"layers":[{"id":"%s","size":-1,"stored":1}]}`, id)
			return m
		}, "the layer"},
		"a list of nothing": {func(m []member) []member { m[0].content = `{"bundle":1,"documents":[null]}`; return m }, "a digest is none"},
		"a list of much that is nothing": {func(m []member) []member {
			m[0].content = `{"bundle":1,"layers":[{}` + strings.Repeat(",{}", 1000) + `]}`
			return m
		}, "too much that is nothing"},
		"a list that is too long": {func(m []member) []member {
			m[0].content = `{"bundle":1,"x":"` + strings.Repeat("x", 16<<20) + `"}`
			return m
		}, "it is too long"},
		"a list that knows more": {func(m []member) []member {
			m[0].content = strings.Replace(m[0].content, "{", `{"later":{"x":1},`, 1)
			return m
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := mem.New()
			_, err := importFrom(t, bytes.NewReader(pack(t, test.edit(members(t, bundle)))), remoteOn(t, target, codec.None))
			switch {
			case test.says == "" && err != nil, test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("%v, want %q", err, test.says)
			case test.says != "" && !fault.Is(err, fault.Damaged) && name != "a newer list":
				t.Errorf("%v is no Damaged fault", err)
			}
			wholeTags(t, name, target)
			for key := range objects(t, target) {
				if strings.HasPrefix(key, "future") || strings.HasPrefix(key, "repositories/other") || strings.HasSuffix(key, "/odd") || strings.HasPrefix(key, "signatures/") {
					t.Errorf("%s came", key)
				}
			}
			if test.says == "" && len(tagsOf(t, remoteOn(t, target, codec.None))) != 1 {
				t.Error("the tag is not there")
			}
		})
	}
}
