package front

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/dogestry/dogestry/internal/fault"
)

const (
	maxLoginFile = 4 << 20 // bytes
	maxCost      = 14      // of bcrypt: a second for each comparison
)

// users is a file of users, as htpasswd of Apache's web server writes it.
type users struct {
	hashes map[string][]byte
	nobody []byte // what a user who is none is compared with: nothing has this hash
}

// readUsers reads lines "user:hash". Empty ones and those that begin with # say nothing.
// Hashes are bcrypt's: the others of that program can be guessed by the million.
func readUsers(name string) (*users, error) {
	u := &users{hashes: map[string][]byte{}}
	cost := bcrypt.MinCost
	err := readLines(name, func(n int, line string) error {
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return fault.New(fault.Usage, "%s, line %d: it is not user:hash", name, n)
		}
		c, err := bcrypt.Cost([]byte(hash))
		if err != nil || len(hash) != 60 {
			return fault.New(fault.Usage, "%s, line %d: the password of %q is not hashed by bcrypt", name, n, user).
				Advise("Write it with: htpasswd -B %s %s", name, user)
		}
		if c > maxCost {
			return fault.New(fault.Usage, "%s, line %d: bcrypt cost %d of %q would take seconds for each login: %d at most", name, n, c, user, maxCost)
		}
		if _, again := u.hashes[user]; again {
			return fault.New(fault.Usage, "%s, line %d: %q is there already", name, n, user)
		}
		u.hashes[user] = []byte(hash)
		cost = max(cost, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// As dear as the dearest.
	if u.nobody, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), cost); err != nil {
		return nil, err
	}
	return u, nil
}

// token is a secret that a program logs in with.
type token struct {
	name   string
	writes bool
	sum    [sha256.Size]byte // of the secret
}

// readTokens reads lines "name read|write sha256". Several may have one name, so that a
// new one can be given out before the old one is taken back.
func readTokens(name string) ([]token, error) {
	var all []token
	err := readLines(name, func(n int, line string) error {
		wrong := func(what string) error {
			return fault.New(fault.Usage, "%s, line %d: %s", name, n, what).
				Advise("A line is: NAME read|write SHA256, the sha256 of the token in hex, as `printf %%s \"$TOKEN\" | sha256sum` prints it.")
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return wrong("it is not of three words")
		}
		t := token{name: fields[0]}
		switch fields[1] {
		case "read":
		case "write":
			t.writes = true
		default:
			return wrong("the right is neither read nor write")
		}
		if strings.Contains(t.name, ":") {
			return wrong("a name has no colon")
		}
		sum, err := hex.DecodeString(fields[2])
		if err != nil || copy(t.sum[:], sum) != len(t.sum) || len(sum) != len(t.sum) {
			return wrong("the third word is not 64 hex digits")
		}
		if t.sum == sha256.Sum256(nil) {
			return wrong("it is the sha256 of an empty token")
		}
		all = append(all, t)
		return nil
	})
	return all, err
}

// readLines hands out the lines that say something, with their numbers.
func readLines(name string, line func(n int, text string) error) error {
	f, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		kind := fault.Other
		if errors.Is(err, os.ErrNotExist) {
			kind = fault.NotFound
		}
		return fault.Wrap(kind, err, "cannot read %s", name)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxLoginFile+1))
	if err != nil {
		return fault.Wrap(fault.Other, err, "cannot read %s", name)
	}
	if len(content) > maxLoginFile {
		return fault.New(fault.Usage, "%s has more than %d bytes: it is no file of logins", name, maxLoginFile)
	}
	s := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := line(n, text); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fault.Wrap(fault.Usage, err, "cannot read %s", name)
	}
	return nil
}
