package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/dogestry/dogestry/internal/fault"
)

// Edit changes remotes in a file of configuration. Comments stay, and the order of what
// is there. A file that would not be understood afterwards is not written, and nobody sees
// half of one. It is not safe against another Edit at the same time: the later one wins.
type Edit struct {
	name     string
	document yaml.Node
}

// Open reads the file to be edited. It need not be there. Errors are those of Load.
func Open(name string) (*Edit, error) {
	e := &Edit{name: name}
	content, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Refused, err, "cannot read the configuration %s", name)
	}
	if err := (&file{name, new(Config)}).parse(content); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(content, &e.document); err != nil {
		return nil, err // parse has understood it
	}
	if len(e.document.Content) == 0 || e.document.Content[0].Kind != yaml.MappingNode { // comments alone
		e.document.Kind, e.document.Content = yaml.DocumentNode, []*yaml.Node{{Kind: yaml.MappingNode}}
		e.document.HeadComment = string(bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(content), []byte("---"))))
	}
	return e, nil
}

// Put writes what a remote is: its URL, and other settings with their values. What it
// was before is replaced.
func (e *Edit) Put(remote, url string, settings map[string][]string) {
	value := text(url)
	if len(settings) > 0 {
		value = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text("url"), value}}
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			value.Content = append(value.Content, text(name), values(name, settings[name]))
		}
	}
	remotes := entry(e.document.Content[0], "remotes")
	if remotes == nil {
		remotes = &yaml.Node{Kind: yaml.MappingNode}
		e.document.Content[0].Content = append(e.document.Content[0].Content, text("remotes"), remotes)
	}
	if was := entry(remotes, remote); was != nil {
		value.LineComment = was.LineComment
		*was = *value
		return
	}
	remotes.Style = 0 // {a: b} gets long
	remotes.Content = append(remotes.Content, text(remote), value)
}

// values are the value of a setting as it stands in a file.
func values(name string, said []string) *yaml.Node {
	if len(said) > 1 {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, s := range said {
			list.Content = append(list.Content, text(s))
		}
		return list
	}
	if name == "require-signature" {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: said[0]}
	}
	return text(said[0])
}

// Remove takes a remote out, and reports whether it was there.
func (e *Edit) Remove(remote string) bool {
	top := e.document.Content[0]
	remotes := entry(top, "remotes")
	if remotes == nil || !drop(remotes, remote) {
		return false
	}
	if len(remotes.Content) == 0 {
		drop(top, "remotes")
	}
	return true
}

// Write writes the file, or says why what it would have in it is refused. An existing one
// keeps its permissions; where it is a link, what it leads to is written.
func (e *Edit) Write() error {
	var b bytes.Buffer
	if len(e.document.Content[0].Content) > 0 {
		encoder := yaml.NewEncoder(&b)
		encoder.SetIndent(2)
		if err := errors.Join(encoder.Encode(&e.document), encoder.Close()); err != nil {
			return err
		}
	}
	if err := (&file{e.name, new(Config)}).parse(b.Bytes()); err != nil {
		return fault.Wrap(fault.Usage, err, "that is refused, and nothing is written")
	}
	if err := replace(e.name, b.Bytes()); err != nil {
		kind := fault.Other
		if errors.Is(err, fs.ErrPermission) {
			kind = fault.Refused
		}
		return fault.Wrap(kind, err, "cannot write the configuration %s", e.name)
	}
	return nil
}

// replace puts content in the place of a file, at once.
func replace(name string, content []byte) (err error) {
	name = behindLinks(name)
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	} else if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".config-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(content))
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// behindLinks is what a link leads to, through others, also where that is not there yet.
func behindLinks(name string) string {
	for range 40 { // as Linux has it
		led, err := os.Readlink(name)
		if err != nil {
			break
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil && !filepath.IsAbs(led) {
			led = filepath.Join(dir, led)
		}
		name = led
	}
	return name
}

// text is a node that YAML takes for a text, whatever is in it.
func text(s string) *yaml.Node {
	var n yaml.Node
	n.SetString(s)
	if plainIsOther(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return &n
}

// plainIsOther reports whether a text is something else where it is not quoted.
func plainIsOther(s string) bool {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(s), &n); err != nil || len(n.Content) != 1 {
		return true
	}
	return n.Content[0].Tag != "!!str" || n.Content[0].Value != s
}

// entry returns the value of a key of a mapping, or nil.
func entry(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func drop(m *yaml.Node, key string) bool {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content = slices.Delete(m.Content, i, i+2)
			return true
		}
	}
	return false
}
