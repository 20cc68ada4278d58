package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Remote is a remote that has a name, and what is set for it alone.
type Remote struct {
	// URL is what the name stands for: a URL, or the absolute path of a directory. It
	// has no password in it; whether it makes sense otherwise is not known.
	URL Setting[string]

	// The others are as in Config, for this remote.
	Flags            map[string]Setting[string]
	RequireSignature Setting[bool]
	VerifyKeys       Setting[[]string]
	SignaturesStay   bool
	KeysStay         bool
	Cache            Setting[string]
	CacheSize        Setting[int64]
}

// With returns the configuration for what is done with a remote that has a name: what
// is set for it goes before what is set for all, and variables before both. It is c
// where nothing has that name.
func (c *Config) With(name string) *Config {
	r, ok := c.Remotes[name]
	if !ok {
		return c
	}
	of := *c
	if r.SignaturesStay || r.RequireSignature.From != "" && !c.SignaturesStay && !c.RequireSignature.inVariable() {
		of.RequireSignature = r.RequireSignature
	}
	if r.KeysStay || r.VerifyKeys.From != "" && !c.KeysStay && !c.VerifyKeys.inVariable() {
		of.VerifyKeys = r.VerifyKeys
	}
	if r.Cache.From != "" && !c.Cache.inVariable() {
		of.Cache = r.Cache
	}
	if r.CacheSize.From != "" && !c.CacheSize.inVariable() {
		of.CacheSize = r.CacheSize
	}
	of.Flags = maps.Clone(c.Flags)
	for flag, value := range r.Flags {
		if !c.Flags[flag].inVariable() {
			set(&of.Flags, flag, value)
		}
	}
	return &of
}

// set sets an entry of a map that may be nil.
func set[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// namePattern is what remotes and groups of engines may be called: nothing that is
// written like a path or a URL.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName refuses what no remote or group of engines can be called.
func CheckName(name string) error {
	switch {
	case !namePattern.MatchString(name):
		return fmt.Errorf("%.80q is no name: such have letters, digits, and . _ - between them", name)
	case name == "engine": // verify --repair-from engine
		return fmt.Errorf("%q means an engine where remotes are named, and cannot be the name of one", name)
	}
	return nil
}

// remotes reads what names stand for.
func (f *file) remotes(value *yaml.Node) error {
	return f.named(value, "remotes", "the name of a remote", func(name string, value *yaml.Node) error {
		var r Remote
		var err error
		if value.Kind == yaml.MappingNode {
			err = f.mapping(value, f.remoteSettings(&r))
		} else {
			err = f.remoteURL(&r.URL)(value)
		}
		if err == nil && r.URL.Value == "" {
			err = f.wrong(value, "the remote %s lacks its url", name)
		}
		set(&f.to.Remotes, name, r)
		return err
	})
}

// remoteSettings are those that a remote may have for itself.
func (f *file) remoteSettings(r *Remote) map[string]func(value *yaml.Node) error {
	settings := map[string]func(*yaml.Node) error{
		"url":               f.remoteURL(&r.URL),
		"require-signature": f.flag("require-signature", &r.RequireSignature),
		"verify-key":        f.files("verify-key", &r.VerifyKeys),
		"cache":             f.path("cache", "the name of a directory", &r.Cache),
		"cache-size":        f.cacheSize(&r.CacheSize),
	}
	for name := range flagChecks() {
		if name != "engine" { // which is no matter of a remote
			settings[name] = f.flagValue(name, &r.Flags)
		}
	}
	return settings
}

// engines reads which engines the names of groups stand for.
func (f *file) engines(value *yaml.Node) error {
	return f.named(value, "engines", "the name of a group of engines", func(name string, value *yaml.Node) error {
		var group Setting[[]string]
		if err := f.list("engines: "+name, "the URL of an engine, or a list of such", &group)(value); err != nil {
			return err
		}
		if len(group.Value) == 0 {
			return f.wrong(value, "the group %s has no engines", name)
		}
		for _, u := range group.Value {
			if hasPassword(u) {
				return f.wrong(value, "an engine of the group %s has a password in its URL: it does not belong into a file", name)
			}
		}
		set(&f.to.Engines, name, group)
		return nil
	})
}

// named reads a mapping whose keys are names that the user has chosen.
func (f *file) named(value *yaml.Node, setting, what string, read func(name string, value *yaml.Node) error) error {
	if value.Kind != yaml.MappingNode {
		return f.wrong(value, "%s are names, each with what it stands for", setting)
	}
	seen := map[string]bool{}
	for i := 0; i < len(value.Content); i += 2 {
		key := value.Content[i]
		if key.Kind != yaml.ScalarNode {
			return f.wrong(key, "%s is expected", what)
		}
		if err := CheckName(key.Value); err != nil {
			return f.wrong(key, "%s", err)
		}
		if seen[key.Value] {
			return f.wrong(key, "%s is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := read(key.Value, value.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) remoteURL(to *Setting[string]) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Tag != "!!str" || value.Value == "" {
			return f.wrong(value, "a remote is a URL or the name of a directory")
		}
		u, err := remoteURL(value.Value, filepath.Dir(f.name))
		if err != nil {
			return f.wrong(value, "%s", err)
		}
		*to = Setting[string]{u, f.at(value)}
		return nil
	}
}

// remoteURL completes what a remote's name stands for. The path of a directory is
// relative to dir.
func remoteURL(said, dir string) (string, error) {
	if scheme, rest, ok := strings.Cut(said, "://"); ok {
		if hasPassword(said) {
			return "", fmt.Errorf("a remote's URL (%.20s://…) has a password in it: it does not belong into a file. Remotes take credentials from where their own programs keep them", scheme)
		}
		if rest == "" {
			return "", fmt.Errorf("%.80q is no remote", said)
		}
		return said, nil
	}
	if first, _, _ := strings.Cut(said, "/"); strings.Contains(first, ":") {
		return "", fmt.Errorf("%.80q is neither a URL nor the name of a directory; one with a colon is written ./%.80s", said, said)
	}
	return beside(said, dir), nil
}

// hasPassword reports whether a URL has one, also where it is not quite a URL.
func hasPassword(said string) bool {
	_, rest, ok := strings.Cut(said, "://")
	if !ok {
		return false
	}
	if u, err := url.Parse(said); err == nil {
		if u.User == nil {
			return false
		}
		_, has := u.User.Password()
		return has
	}
	user, _, ok := strings.Cut(rest, "@") // also with a slash in it, as secrets of AWS have
	return ok && strings.Contains(user, ":")
}

// Names returns the names of remotes, sorted.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Remotes)) }
