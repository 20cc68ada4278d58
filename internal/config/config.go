// Package config reads what the administrator and the user have set once and for
// all (docs/config.md): files of YAML, and the environment. It knows which of them
// says what, so that whoever refuses something can name the line that asked for it.
package config

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
)

// SystemFile is the administrator's file.
const SystemFile = "/etc/dogestry/config.yaml"

// Sources say where settings come from, those that override others later.
type Sources struct {
	System string // the administrator's file; it need not be there
	User   string // the user's; "" where there is none

	UserNamed bool // the user has named that file: it has to be there

	Lookup func(variable string) (value string, set bool) // os.LookupEnv; nil has none
}

// UserFile returns the name of the user's file: below $XDG_CONFIG_HOME, or
// ~/.config (XDG Base Directory Specification). "" where there is no such place.
func UserFile() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dogestry", "config.yaml")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".config", "dogestry", "config.yaml")
}

// Setting is a value, and who says it: a file and a line, or a variable. The
// latter is empty where nobody does.
type Setting[T any] struct {
	Value T
	From  string
}

// InFile reports whether a file says it, and not a variable.
func (s Setting[T]) InFile() bool { return strings.Contains(s.From, ":") }

// inVariable reports whether a variable says it.
func (s Setting[T]) inVariable() bool { return s.From != "" && !s.InFile() }

// Config is what all sources together say.
type Config struct {
	// RequireSignature: pulls have to know keys to verify tags with.
	RequireSignature Setting[bool]

	// VerifyKeys are files of public keys that may have signed the tags that are
	// pulled: absolute, or, of the environment, as they are there.
	VerifyKeys Setting[[]string]

	// SignaturesStay and KeysStay: the administrator's file demands RequireSignature,
	// and names VerifyKeys with it. No other source takes that back.
	SignaturesStay, KeysStay bool

	// Sealed: nothing is contacted but remotes, the engine, and what SealedAllow names.
	Sealed Setting[bool]

	// SealedStays: the administrator's file has sealed it, and no other source, nor a
	// command line, takes that back or allows more.
	SealedStays bool

	// SealedAllow is what else may be contacted, as host:port. They are not checked.
	SealedAllow Setting[[]string]

	// SealedPrograms are the names of other programs that may be run.
	SealedPrograms Setting[[]string]

	// Cache is the directory that pulls and copies read through: absolute, or, of the
	// environment, as it is there. Empty is none.
	Cache Setting[string]

	// CacheSize is how large it may become, in bytes; 0 where nobody says it.
	CacheSize Setting[int64]

	// AgentTokenFile has the token that agents on hosts are asked with, and AgentCA the
	// authorities of their certificates, PEM; empty is none, and the system's. They are
	// absolute, or, of the environment, as they are there.
	AgentTokenFile, AgentCA Setting[string]

	// LockFile is what each command locks before it begins; empty is none. It is
	// absolute, or, of the environment, as it is there.
	LockFile Setting[string]

	// Flags are the values of flags that a command line does not have, by their names.
	// They have been checked for what they are, and not for whom.
	Flags map[string]Setting[string]

	// Remotes are those that have a name.
	Remotes map[string]Remote

	// Engines are groups of engines that have a name: their URLs.
	Engines map[string]Setting[[]string]
}

// DefaultCacheSize is how large a cache may become where nobody says it, in bytes.
const DefaultCacheSize = 20e9

// ParseSize reads a number of bytes such as 20GB. It is 1 or more.
func ParseSize(s string) (int64, error) {
	n, err := units.FromHumanSize(s)
	if err != nil || n < 1 {
		return 0, errors.New("it is no number of bytes such as 20GB")
	}
	return n, nil
}

// Load reads all sources. What the administrator demands (RequireSignature,
// Sealed) the others do not take back, nor the keys or lists that come with it: of
// signatures only a command line can. Errors are Usage faults that name file, line and key; of a file that cannot be read Refused ones.
func Load(s Sources) (*Config, error) {
	c := new(Config)
	if err := c.read(s.System, false); err != nil {
		return nil, err
	}
	demanded := *c
	c.Flags, c.Remotes, c.Engines = maps.Clone(c.Flags), maps.Clone(c.Remotes), maps.Clone(c.Engines)
	if s.User != "" && s.User != s.System {
		if err := c.read(s.User, s.UserNamed); err != nil {
			return nil, err
		}
	}
	if s.Lookup != nil {
		if err := c.environment(s.Lookup); err != nil {
			return nil, err
		}
	}
	c.insist(&demanded)
	return c, nil
}

// insist puts what the administrator demands over what the others have said.
func (c *Config) insist(demanded *Config) {
	if demanded.RequireSignature.Value {
		c.RequireSignature, c.SignaturesStay = demanded.RequireSignature, true
		if len(demanded.VerifyKeys.Value) > 0 {
			c.VerifyKeys, c.KeysStay = demanded.VerifyKeys, true
		}
	}
	for name, said := range demanded.Remotes {
		if !demanded.RequireSignature.Value && !said.RequireSignature.Value {
			continue
		}
		now := c.Remotes[name]
		if said.RequireSignature.Value {
			now.RequireSignature, now.SignaturesStay = said.RequireSignature, true
		}
		if len(said.VerifyKeys.Value) > 0 {
			now.VerifyKeys, now.KeysStay = said.VerifyKeys, true
		}
		c.Remotes[name] = now
	}
	if demanded.Sealed.Value {
		c.Sealed, c.SealedStays = demanded.Sealed, true
		c.SealedAllow, c.SealedPrograms = demanded.SealedAllow, demanded.SealedPrograms
	}
}
