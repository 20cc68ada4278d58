package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dogestry/dogestry/internal/fault"
)

// maxFile bounds a file, in bytes.
const maxFile = 1 << 20

// file is one that is being read.
type file struct {
	name string
	to   *Config
}

// settings are those that a file may have.
func (f *file) settings() map[string]func(value *yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"require-signature": f.flag("require-signature", &f.to.RequireSignature),
		"verify-key":        f.verifyKey,
		"sealed":            f.flag("sealed", &f.to.Sealed),
		"sealed-allow":      f.list("sealed-allow", "a host:port, or a list of such", &f.to.SealedAllow),
		"sealed-programs":   f.list("sealed-programs", "the name of a program, or a list of such", &f.to.SealedPrograms),
		"cache":             f.cache,
		"cache-size":        f.cacheSize,
	}
}

// read reads a file, which need not be there.
func (c *Config) read(name string) error {
	in, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer in.Close()
		var content []byte
		if content, err = io.ReadAll(io.LimitReader(in, maxFile+1)); err == nil {
			return (&file{name, c}).parse(content)
		}
	}
	return fault.Wrap(fault.Refused, err, "cannot read the configuration %s", name).
		Advise("It may ask for something that matters, so nothing goes on without it: make it readable, or remove it.")
}

func (f *file) parse(content []byte) error {
	if len(content) > maxFile {
		return fault.New(fault.Usage, "the configuration %s is larger than %d bytes", f.name, maxFile)
	}
	d := yaml.NewDecoder(strings.NewReader(string(content)))
	var document yaml.Node
	switch err := d.Decode(&document); {
	case err == io.EOF:
		return nil
	case err != nil:
		return fault.New(fault.Usage, "%s is not YAML: %s", f.name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return fault.New(fault.Usage, "%s is more than one YAML document", f.name)
	}
	top := document.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" { // comments alone
		return nil
	}
	if top.Kind != yaml.MappingNode {
		return f.wrong(top, "settings are expected, such as require-signature: true")
	}
	seen := map[string]bool{}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		set, known := f.settings()[key.Value]
		switch {
		case !known || key.Kind != yaml.ScalarNode:
			return f.unknown(key)
		case seen[key.Value]:
			return f.wrong(key, "%s is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := set(value); err != nil {
			return err
		}
	}
	return nil
}

// at names a line, as compilers do.
func (f *file) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", f.name, n.Line) }

func (f *file) wrong(n *yaml.Node, format string, args ...any) error {
	return fault.New(fault.Usage, "%s: %s", f.at(n), fmt.Sprintf(format, args...))
}

func (f *file) unknown(key *yaml.Node) error {
	var known []string
	for name := range f.settings() {
		known = append(known, name)
	}
	slices.Sort(known)
	return fault.New(fault.Usage, "%s: no setting is called %.80q", f.at(key), key.Value).
		Advise("There are %s.", strings.Join(known, ", "))
}

// flag reads what is true or false.
func (f *file) flag(name string, to *Setting[bool]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		var on bool
		if value.Kind != yaml.ScalarNode || value.Tag != "!!bool" || value.Decode(&on) != nil {
			return f.wrong(value, "%s is true or false", name)
		}
		*to = Setting[bool]{on, f.at(value)}
		return nil
	}
}

// list reads a text, or a list of such. What they are is said in words.
func (f *file) list(name, what string, to *Setting[[]string]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		nodes := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			nodes = value.Content
		}
		all := []string{}
		for _, n := range nodes {
			if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || n.Value == "" {
				return f.wrong(n, "%s is %s", name, what)
			}
			all = append(all, n.Value)
		}
		*to = Setting[[]string]{all, f.at(value)}
		return nil
	}
}

// verifyKey reads the name of a file, or a list of them. Relative ones are beside
// the configuration.
func (f *file) verifyKey(value *yaml.Node) error {
	var keys Setting[[]string]
	if err := f.list("verify-key", "the name of a file, or a list of such", &keys)(value); err != nil {
		return err
	}
	for i, name := range keys.Value {
		if !filepath.IsAbs(name) {
			keys.Value[i] = filepath.Join(filepath.Dir(f.name), name)
		}
	}
	f.to.VerifyKeys = keys
	return nil
}

// cache reads the name of a directory. A relative one is beside the configuration.
// An empty one is none, whatever the administrator's file names.
func (f *file) cache(value *yaml.Node) error {
	if value.Kind != yaml.ScalarNode || value.Tag != "!!str" {
		return f.wrong(value, "cache is the name of a directory")
	}
	dir := value.Value
	if dir != "" && !filepath.IsAbs(dir) {
		dir = filepath.Join(filepath.Dir(f.name), dir)
	}
	f.to.Cache = Setting[string]{dir, f.at(value)}
	return nil
}

// cacheSize reads a number of bytes, such as 20GB.
func (f *file) cacheSize(value *yaml.Node) error {
	if value.Kind != yaml.ScalarNode || value.Tag != "!!str" && value.Tag != "!!int" {
		return f.wrong(value, "cache-size is a number of bytes such as 20GB")
	}
	size, err := ParseSize(value.Value)
	if err != nil {
		return f.wrong(value, "cache-size is a number of bytes such as 20GB")
	}
	f.to.CacheSize = Setting[int64]{size, f.at(value)}
	return nil
}
