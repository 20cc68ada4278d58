package config

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// FileVariable names a file instead of the user's.
const FileVariable = "DOGESTRY_CONFIG_FILE"

// variableOf is the variable that overrides a setting of files.
func variableOf(setting string) string {
	return "DOGESTRY_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// environment reads the variables that are set. An empty one is as one that is not.
func (c *Config) environment(lookup func(string) (string, bool)) error {
	read := map[string]func(variable, value string) error{
		"require-signature": boolVariable(&c.RequireSignature),
		"sealed":            boolVariable(&c.Sealed),
		"verify-key":        listVariable(&c.VerifyKeys, filepath.SplitList),
		"sealed-allow":      listVariable(&c.SealedAllow, commaList),
		"sealed-programs":   listVariable(&c.SealedPrograms, commaList),
		"cache":             textVariable(&c.Cache),
		"agent-token-file":  textVariable(&c.AgentTokenFile),
		"agent-ca":          textVariable(&c.AgentCA),
		"lock-file":         textVariable(&c.LockFile),
		"cache-size": func(variable, value string) error {
			size, err := ParseSize(value)
			c.CacheSize = Setting[int64]{size, variable}
			return err
		},
		"remotes": c.remoteVariable,
		"engines": c.engineVariable,
	}
	for name, check := range flagChecks() {
		read[name] = func(variable, value string) error {
			set(&c.Flags, name, Setting[string]{value, variable})
			return check(value)
		}
	}
	for setting, into := range read {
		variable := variableOf(setting)
		value, is := lookup(variable)
		if !is || value == "" {
			continue
		}
		if err := into(variable, value); err != nil {
			if strings.Contains(value, "@") { // a password may stand before it
				return fault.New(fault.Usage, "%s: %s", variable, err)
			}
			return fault.New(fault.Usage, "%s is %.80q: %s", variable, value, err)
		}
	}
	return nil
}

func commaList(s string) []string { return strings.Split(s, ",") }

func boolVariable(to *Setting[bool]) func(string, string) error {
	return func(variable, value string) error {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fault.New(fault.Usage, "it is neither true nor false")
		}
		*to = Setting[bool]{on, variable}
		return nil
	}
}

func listVariable(to *Setting[[]string], split func(string) []string) func(string, string) error {
	return func(variable, value string) error {
		*to = Setting[[]string]{split(value), variable}
		return nil
	}
}

func textVariable(to *Setting[string]) func(string, string) error {
	return func(variable, value string) error {
		*to = Setting[string]{home(value), variable}
		return nil
	}
}

// remoteVariable reads names of remotes: NAME=URL, several with spaces between them.
func (c *Config) remoteVariable(variable, value string) error {
	return pairs(value, func(name, said string) error {
		u, err := remoteURL(said, "")
		if err == nil {
			set(&c.Remotes, name, Remote{URL: Setting[string]{u, variable}})
		}
		return err
	})
}

// engineVariable reads groups of engines: NAME=URL,URL with spaces between them.
func (c *Config) engineVariable(variable, value string) error {
	return pairs(value, func(name, said string) error {
		group := commaList(said)
		for _, u := range group {
			if hasPassword(u) {
				return fault.New(fault.Usage, "an engine of the group %s has a password in its URL", name)
			}
		}
		set(&c.Engines, name, Setting[[]string]{group, variable})
		return nil
	})
}

func pairs(value string, each func(name, said string) error) error {
	for _, pair := range strings.Fields(value) {
		name, said, ok := strings.Cut(pair, "=")
		if !ok || said == "" || strings.Contains(name, "://") { // a = of a URL that has no name
			return fault.New(fault.Usage, "names are written NAME=URL, with spaces between them")
		}
		if err := CheckName(name); err != nil {
			return err
		}
		if err := each(name, said); err != nil {
			return err
		}
	}
	return nil
}
