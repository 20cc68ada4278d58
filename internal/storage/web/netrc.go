package web

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// credentials are for one host. They are never shown.
type credentials struct{ user, password string }

// maxNetRC bounds the file, in bytes.
const maxNetRC = 1 << 20

// credentials finds those for the server in the user's file. Without a file, or an entry
// for this host, there are none.
func (o Options) credentials() (*credentials, error) {
	name := o.NetRC
	if name == "" {
		name = os.Getenv("NETRC")
	}
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil
		}
		name = filepath.Join(home, ".netrc")
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Refused, err, "cannot read the passwords for %s", o.url()).
			Advise("NETRC can name another file.")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNetRC))
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot read the passwords for %s", o.url())
	}
	return parseNetRC(string(text), o.Base.Hostname()), nil
}

// parseNetRC finds what a .netrc (netrc(5)) says of a host, nil where it says nothing. Its
// "default" is for nobody here: a password goes where it was meant to.
func parseNetRC(text, host string) *credentials {
	var found credentials
	ours, inMacro := false, false
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			inMacro = false
		}
		if inMacro {
			continue
		}
		words := strings.Fields(line)
		for len(words) > 0 {
			word := words[0]
			words = words[1:]
			if strings.HasPrefix(word, "#") {
				break
			}
			switch word {
			case "default":
				if ours {
					return &found
				}
				continue
			case "macdef":
				inMacro, words = true, nil
				continue
			}
			if len(words) == 0 {
				break // what a line begins, it ends
			}
			switch value := words[0]; word {
			case "machine":
				if ours {
					return &found
				}
				ours = strings.EqualFold(value, host)
			case "login":
				if ours {
					found.user = value
				}
			case "password":
				if ours {
					found.password = value
				}
			}
			words = words[1:]
		}
	}
	if !ours {
		return nil
	}
	return &found
}
