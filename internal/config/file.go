package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
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
	settings := map[string]func(*yaml.Node) error{
		"require-signature": f.flag("require-signature", &f.to.RequireSignature),
		"verify-key":        f.files("verify-key", &f.to.VerifyKeys),
		"sealed":            f.flag("sealed", &f.to.Sealed),
		"sealed-allow":      f.list("sealed-allow", "a host:port, or a list of such", &f.to.SealedAllow),
		"sealed-programs":   f.list("sealed-programs", "the name of a program, or a list of such", &f.to.SealedPrograms),
		"cache":             f.path("cache", "the name of a directory", &f.to.Cache),
		"cache-size":        f.cacheSize(&f.to.CacheSize),
		"agent-token-file":  f.path("agent-token-file", "the name of a file", &f.to.AgentTokenFile),
		"agent-ca":          f.path("agent-ca", "the name of a file", &f.to.AgentCA),
		"lock-file":         f.path("lock-file", "the name of a file", &f.to.LockFile),
		"remotes":           f.remotes,
		"engines":           f.engines,
	}
	for name := range flagChecks() {
		settings[name] = f.flagValue(name, &f.to.Flags)
	}
	return settings
}

// read reads a file, which need not be there unless the user has named it.
func (c *Config) read(name string, named bool) error {
	in, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if named {
			return fault.New(fault.NotFound, "there is no configuration %s", name).Advise("--config-file and %s name it.", FileVariable)
		}
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
	return f.mapping(top, f.settings())
}

// mapping reads settings, each of them once at most.
func (f *file) mapping(m *yaml.Node, settings map[string]func(value *yaml.Node) error) error {
	seen := map[string]bool{}
	for i := 0; i < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		set, known := settings[key.Value]
		switch {
		case !known || key.Kind != yaml.ScalarNode:
			return f.unknown(key, slices.Sorted(maps.Keys(settings)))
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

func (f *file) unknown(key *yaml.Node, known []string) error {
	unknown := fault.New(fault.Usage, "%s: no setting is called %.80q", f.at(key), key.Value)
	if near := Near(key.Value, known); len(near) > 0 {
		return unknown.Advise("Did you mean %s?", strings.Join(near, " or "))
	}
	return unknown.Advise("There are %s.", strings.Join(known, ", "))
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

// files reads the name of a file, or a list of them. Relative ones are beside the
// configuration.
func (f *file) files(name string, to *Setting[[]string]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		var files Setting[[]string]
		if err := f.list(name, "the name of a file, or a list of such", &files)(value); err != nil {
			return err
		}
		for i, name := range files.Value {
			files.Value[i] = beside(name, filepath.Dir(f.name))
		}
		*to = files
		return nil
	}
}

// path reads the name of a file or directory. A relative one is beside the
// configuration. An empty one is none, whatever the administrator's file names.
func (f *file) path(name, what string, to *Setting[string]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Tag != "!!str" {
			return f.wrong(value, "%s is %s", name, what)
		}
		path := value.Value
		if path != "" {
			path = beside(path, filepath.Dir(f.name))
		}
		*to = Setting[string]{path, f.at(value)}
		return nil
	}
}

// beside is a path that is relative to dir, or to the user's home if it begins with ~/.
// An empty dir leaves it relative.
func beside(path, dir string) string {
	path = home(path)
	if filepath.IsAbs(path) || dir == "" {
		return path
	}
	return filepath.Join(dir, path)
}

// home puts the user's home for a ~ before a path. ~somebody stays: only shells know
// what that is.
func home(path string) string {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(dir, path[1:])
}

// cacheSize reads a number of bytes, such as 20GB.
func (f *file) cacheSize(to *Setting[int64]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Tag != "!!str" && value.Tag != "!!int" {
			return f.wrong(value, "cache-size is a number of bytes such as 20GB")
		}
		size, err := ParseSize(value.Value)
		if err != nil {
			return f.wrong(value, "cache-size is a number of bytes such as 20GB")
		}
		*to = Setting[int64]{size, f.at(value)}
		return nil
	}
}

// flagChecks are the flags that a file can give a value to, and what refuses one.
// Whoever has the flag knows the rest: a registry has other compressions than a directory.
func flagChecks() map[string]func(value string) error {
	rate := func(value string) error {
		if n, err := units.FromHumanSize(strings.TrimSuffix(value, "/s")); err != nil || n < 1 {
			return errors.New("it is no number of bytes a second such as 5MB")
		}
		return nil
	}
	return map[string]func(string) error{
		"compression": func(value string) error {
			if !slices.Contains([]string{"lz4", "zstd", "gzip", "none"}, value) {
				return errors.New("it is none of lz4, zstd, gzip and none")
			}
			return nil
		},
		"parallel": func(value string) error {
			if n, err := strconv.Atoi(value); err != nil || n < 1 {
				return errors.New("it is no number of layers, 1 or more")
			}
			return nil
		},
		"engine": func(value string) error {
			if slices.ContainsFunc(commaList(value), hasPassword) {
				return errors.New("the URL of the engine has a password in it")
			}
			return nil
		},
		"delta": func(value string) error {
			if !slices.Contains([]string{"auto", "always", "never"}, value) {
				return errors.New("it is none of auto, always and never")
			}
			return nil
		},
		"recompress": func(value string) error {
			if !slices.Contains([]string{"true", "false"}, value) {
				return errors.New("it is neither true nor false")
			}
			return nil
		},
		"limit-upload":   rate,
		"limit-download": rate,
	}
}

// flagValue reads the value of a flag.
func (f *file) flagValue(name string, to *map[string]Setting[string]) func(*yaml.Node) error {
	tags := []string{"!!str", "!!int"}
	if name == "recompress" {
		tags = append(tags, "!!bool")
	}
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || !slices.Contains(tags, value.Tag) || value.Value == "" {
			return f.wrong(value, "%s is one value", name)
		}
		if err := flagChecks()[name](value.Value); err != nil {
			return f.wrong(value, "%s: %s", name, err)
		}
		set(to, name, Setting[string]{value.Value, f.at(value)})
		return nil
	}
}
