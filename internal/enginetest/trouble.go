package enginetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// registryRef is a name with a registry's host and port, which nothing listens at.
const registryRef = "localhost:5000/team/app:1"

// TroubleImage is an image that is legal, and that careless code breaks.
type TroubleImage struct {
	Name string // of the trouble, for a subtest
	Ref  string // one of its names; the ID, as classic stores have it, where it has none
	*Image
	// NotSaved says why engines with classic stores cannot export the image again: part of the error that they give. It
	// is "" for an image that they can.
	NotSaved string
}

// Trouble makes the trouble images. All can be loaded by the engines from 20.10 to 29, running as root; [OldSparse]
// is the one that cannot.
// A link to a lower layer's file, and one name twice in a layer, are not among them: no builder writes such layers.
func Trouble() []TroubleImage {
	list := []TroubleImage{
		{Name: "hard-links", Image: hardLinks()},
		{Name: "symbolic-links", Image: symbolicLinks()},
		{Name: "xattrs", Image: xattrs()},
		{Name: "devices", Image: devices()},
		{Name: "whiteouts", Image: whiteouts()},
		{Name: "odd-metadata", Image: oddMetadata()},
		{Name: "sparse", Image: NewImage().Layer(sparsePAX("hole")), NotSaved: "could not verify layer data"},
		{Name: "big-hole", Image: NewImage().Add(bigHole())},
		{Name: "long-names", Image: longNames()},
		{Name: "odd-names", Image: oddNames()},
		{Name: "tiny-files", Image: NewImage().Layer(File("empty", 0o644, ""), File("one", 0o644, "x"))},
		{Name: "empty-layers", Image: emptyLayers()},
		{Name: "same-layer-twice", Image: sameLayerTwice()},
		{Name: "layers-120", Image: manyLayers(120)},
		{Name: "padded-tar", Image: NewImage().Add(paddedTar())},
		{Name: "odd-config", Image: oddConfig()},
		{Name: "no-layers", Image: NewImage().Step("ENV nothing=here"), NotSaved: "empty export - not implemented"},
		{Name: "many-tags", Image: manyTags()},
		{Name: "registry-port", Image: oneFile("registry-port").Tag(registryRef)},
		{Name: "no-tag", Image: oneFile("no-tag")},
	}
	for i := range list {
		t := &list[i]
		switch {
		case t.Name == "no-tag":
			t.Ref = t.ID()
		case len(t.tags) == 0:
			t.Tag(Repository + "/" + t.Name + ":1")
			fallthrough
		default:
			t.Ref = t.tags[0]
		}
	}
	return list
}

// TroubleNamed is one of [Trouble]. It panics at a name that is none of theirs.
func TroubleNamed(name string) TroubleImage {
	for _, t := range Trouble() {
		if t.Name == name {
			return t
		}
	}
	panic("enginetest: no trouble image named " + name)
}

func oneFile(content string) *Image { return NewImage().Layer(File("file", 0o644, content)) }

func manyTags() *Image {
	return oneFile("many-tags").Tag(Repository+"/many-tags:1", Repository+"/many-tags:1.0", Repository+"/many/tags:latest")
}

func hardLinks() *Image {
	link := func(name, to string) Entry {
		return Entry{Header: &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}}
	}
	long := strings.Repeat("l", 120)
	return NewImage().
		Layer(Dir("d"), File("d/a", 0o644, "linked"), link("d/b", "d/a"), link("c", "d/a"), File(long, 0o600, "long"), link("to-long", long)).
		// A builder copies up a file that gets another link: a link to a lower layer's file cannot be in a layer.
		Layer(Dir("d"), File("d/a", 0o644, "linked"), link("d/b", "d/a"), link("d/e", "d/b"))
}

func symbolicLinks() *Image {
	link := func(name, to string) Entry {
		return Entry{Header: &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}}
	}
	return NewImage().Layer(
		link("absolute", "/file"), File("file", 0o644, "file"), link("dangling", "nowhere"), link("self", "self"),
		link("up", "../../../../etc/passwd"), Dir("dir"), link("dir/parent", ".."), link("long", strings.Repeat("x/", 500)+"x"),
	)
}

func xattrs() *Image {
	with := func(e Entry, name, value string) Entry {
		e.Header.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
		e.Header.Format = tar.FormatPAX
		return e
	}
	// cap_net_bind_service=ep, as setcap writes it: VFS_CAP_REVISION_2 with the effective bit, one permitted capability.
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	return NewImage().Layer(
		with(File("server", 0o755, "#!/bin/true"), "security.capability", capability),
		with(File("user", 0o644, "user"), "user.dogestry", "much\nattribute\xff"),
		with(Dir("dir"), "user.on-a-directory", "1"),
	)
}

func devices() *Image {
	node := func(kind byte, name string, major, minor int64) Entry {
		return Entry{Header: &tar.Header{Typeflag: kind, Name: name, Mode: 0o660, Devmajor: major, Devminor: minor}}
	}
	return NewImage().Layer(
		Dir("nodes"), node(tar.TypeChar, "nodes/null", 1, 3), node(tar.TypeBlock, "nodes/loop", 7, 200), node(tar.TypeFifo, "nodes/fifo", 0, 0),
	)
}

func whiteouts() *Image {
	return NewImage().
		Layer(
			File("gone", 0o644, "1"), Dir("opaque"), File("opaque/old", 0o644, "1"),
			Dir("kept"), File("kept/file", 0o644, "1"), Dir("tree"), File("tree/leaf", 0o644, "1"),
		).
		Layer(
			File(".wh.gone", 0, ""), Dir("opaque"), File("opaque/.wh..wh..opq", 0, ""), File("opaque/new", 0o644, "2"),
			File(".wh.tree", 0, ""),
		).
		Layer(File("gone", 0o600, "back again"), File(".wh.never-was", 0, ""))
}

func oddMetadata() *Image {
	h := func(h tar.Header) Entry {
		e := Entry{Header: &h}
		if h.Typeflag == tar.TypeReg {
			e.Content = []byte(h.Name)
		}
		return e
	}
	return NewImage().Layer(
		h(tar.Header{Typeflag: tar.TypeReg, Name: "big-owner", Mode: 0o644, Uid: 1<<31 - 2, Gid: 1<<31 - 2, Format: tar.FormatGNU}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "named-owner", Mode: 0o644, Uname: "doge", Gname: "such-group"}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "set-id", Mode: 0o6755}),
		h(tar.Header{Typeflag: tar.TypeDir, Name: "sticky/", Mode: 0o1777}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "no-mode", Mode: 0}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "before-1970", Mode: 0o644, ModTime: time.Unix(-86400, 0), Format: tar.FormatGNU}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "after-2038", Mode: 0o644, ModTime: time.Unix(1<<32, 123456789), Format: tar.FormatPAX}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "./dotted", Mode: 0o644}),
		h(tar.Header{Typeflag: tar.TypeReg, Name: "without/its/parents", Mode: 0o644}),
	)
}

// longNames has a path of 3,960 bytes. An engine exports a layer by the files' whole paths on the host, which may have
// 4,095 bytes: <data-root>/overlay2/<64 digits>/diff/ takes 92 or more of them, so that 4,000 do not fit.
func longNames() *Image {
	var entries []Entry
	name := ""
	for range 18 {
		name += strings.Repeat("long-", 41) + "/" // 206 bytes
		entries = append(entries, Dir(name))
	}
	name += strings.Repeat("f", 252)
	entries = append(entries, File(name, 0o644, "deep"))
	// A name at each side of the limits of the header: 100 bytes, and 155 more for a prefix.
	for _, n := range []int{99, 100, 101, 155, 255} {
		entries = append(entries, File(strings.Repeat("n", n-4)+fmt.Sprintf("-%03d", n), 0o644, "n"))
	}
	return NewImage().Layer(entries...)
}

func oddNames() *Image {
	var entries []Entry
	for _, name := range []string{
		"new\nline", "carriage\rreturn", "tab\tbed", "sp ace", " leading", "trailing ", `double"quote`, "single'quote", `back\slash`,
		"invalid-\xff\xfe-utf8", "latin-\xe9", "shibe-🐕", "e\u0301-decomposed", "é-composed", "\x01\x7f-control", "-rf", "*", "$HOME", "a=b", "%41",
		"c:drive", "...", ".hidden", "UPPER", "upper",
	} {
		e := File(name, 0o644, name)
		e.Header.Format = tar.FormatGNU // takes any bytes; PAX is for UTF-8
		entries = append(entries, e)
	}
	return NewImage().Layer(entries...)
}

func emptyLayers() *Image {
	// The digest of the empty layer is one that engines know by heart.
	return NewImage().Layer().Layer(File("between", 0o644, "two empty ones")).Step("ENV much=empty").Layer()
}

func sameLayerTwice() *Image {
	twice := NewLayer(File("file", 0o644, "first"))
	other := NewLayer(File("file", 0o644, "second"))
	return NewImage().Add(twice, other, twice)
}

func manyLayers(n int) *Image {
	m := NewImage()
	for i := range n {
		m.Layer(File(fmt.Sprintf("layer-%03d", i), 0o644, fmt.Sprintf("layer %d of %d\n", i, n)))
	}
	return m
}

// bigHole has a file of 64 MiB, written out in the tar, of which all but the ends is zero: little after compression.
func bigHole() *Layer {
	const size = 64 << 20
	return StreamLayer(tarBlock+size+tarEnd, func(w io.Writer) error {
		t := tar.NewWriter(w)
		if err := t.WriteHeader(archiveHeader("hole", size)); err != nil {
			return err
		}
		zero := make([]byte, 1<<20)
		for at := 0; at < size; at += len(zero) {
			chunk := zero
			if at == 0 || at+len(zero) == size {
				chunk = bytes.Clone(zero)
				chunk[0], chunk[len(zero)-1] = 'a', 'z'
			}
			if _, err := t.Write(chunk); err != nil {
				return err
			}
		}
		return t.Close()
	})
}

// paddedTar ends as GNU tar ends it: zeros up to a multiple of 10 KiB.
func paddedTar() *Layer {
	b := NewLayer(File("file", 0o644, "padded")).Bytes()
	return BytesLayer(append(b, make([]byte, 10240-len(b)%10240)...))
}

// oddConfig has spaces, an order and a field that no engine would write; its ID is the digest of just these bytes.
func oddConfig() *Image {
	return oneFile("odd-config").EditConfig(func(config []byte) []byte {
		rest, ok := bytes.CutPrefix(config, []byte("{"))
		if !ok {
			return config
		}
		return append([]byte("{\n\t\"x-unknown\": {\"b\": 1.0, \"a\": \"\\u003c\"},\n  "), append(rest, '\n')...)
	})
}
