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
	ours := false
	words := netrcWords{text}
	for {
		word := words.next()
		switch {
		case word == "" || ours && (word == "machine" || word == "default"):
			if !ours {
				return nil
			}
			return &found
		case strings.HasPrefix(word, "#"):
			words.skip("\n")
		case word == "macdef":
			words.skip("\n\n")
		case word == "machine":
			ours = strings.EqualFold(words.next(), host)
		case word == "login" || word == "password" || word == "account":
			value := words.next()
			if ours && word == "login" {
				found.user = value
			} else if ours && word == "password" {
				found.password = value
			}
		}
	}
}

// netrcWords are what is left of a .netrc. Lines mean nothing in it but to comments and macros.
type netrcWords struct{ text string }

const blank = " \t\r\n"

// next returns the next word, empty at the end.
func (w *netrcWords) next() (word string) {
	w.text = strings.TrimLeft(w.text, blank)
	end := strings.IndexAny(w.text, blank)
	if end < 0 {
		end = len(w.text)
	}
	word, w.text = w.text[:end], w.text[end:]
	return word
}

// skip goes on behind a text.
func (w *netrcWords) skip(text string) {
	_, w.text, _ = strings.Cut(strings.ReplaceAll(w.text, "\r\n", "\n"), text)
}
