package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// folding says whether the file system takes "Foo" and "foo" for one name.
type folding int

const (
	foldUnknown folding = iota
	foldNo
	foldYes
)

// foldError says that the file system finds name, but under another name.
type foldError struct {
	name   string
	listed string // may be empty: FAT also finds a file by its short name
}

func (e *foldError) Error() string {
	if e.listed == "" {
		return "the file system takes " + e.name + " for something that it lists under another name"
	}
	return "the file system takes " + e.name + " for " + e.listed + ", which is there (it ignores case)"
}

// Is lets a lookup take it for a missing name, which it is.
func (e *foldError) Is(target error) bool { return target == fs.ErrNotExist }

// lookup returns what is at d/name, under exactly that name; nothing is
// followed. A *foldError, which is an fs.ErrNotExist, where the file system
// finds something that is listed under another name.
func (s *Store) lookup(d *os.Root, name string) (fs.FileInfo, error) {
	fold := &foldError{name: name}
	for range 5 {
		fi, err := s.lstat(d, name)
		if err != nil {
			return nil, err
		}
		folds, err := s.folds(d, name, fi)
		if err != nil || !folds {
			return fi, err
		}
		exact, other, err := listed(d, name)
		if err != nil {
			return nil, err
		}
		if exact {
			return fi, nil
		}
		if fold.listed = other; other != "" {
			break
		}
		// Found and not listed: removed in between, perhaps made again since. Or a short name of FAT's.
	}
	return nil, fold
}

// folds reports whether the file system folds case. It finds out once, with the
// first name that has a letter: fi is what was found at d/name. It needs no right to write.
func (s *Store) folds(d *os.Root, name string, fi fs.FileInfo) (bool, error) {
	s.foldMu.Lock()
	defer s.foldMu.Unlock()
	if s.fold != foldUnknown {
		return s.fold == foldYes, nil
	}
	flipped := flipCase(name)
	if flipped == name {
		return false, nil
	}
	other, err := s.lstat(d, flipped)
	if errors.Is(err, fs.ErrNotExist) {
		// Only if name did not vanish in between.
		again, err := s.lstat(d, name)
		if err != nil {
			return false, err
		}
		if os.SameFile(fi, again) {
			s.fold = foldNo
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !os.SameFile(fi, other) {
		// Two files; or one, replaced between the looks.
		exact, _, err := listed(d, flipped)
		if err != nil {
			return false, err
		}
		if exact {
			s.fold = foldNo
			return false, nil
		}
		return true, nil // judge this lookup by the list, and ask again
	}
	both := [2]bool{}
	for i, n := range []string{name, flipped} {
		if both[i], _, err = listed(d, n); err != nil {
			return false, err
		}
	}
	switch both {
	case [2]bool{true, true}: // hard links to one file
		s.fold = foldNo
	case [2]bool{false, false}: // gone meanwhile, or a FAT short name
		return true, nil
	default:
		s.fold = foldYes
	}
	return s.fold == foldYes, nil
}

// listed reports whether name is in the list of d's names, and otherwise which
// name there differs from it by case alone.
func listed(d *os.Root, name string) (exact bool, other string, err error) {
	f, err := d.Open(".")
	if err != nil {
		return false, "", err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(512)
		for _, n := range names {
			if n == name {
				return true, "", nil
			}
			if strings.EqualFold(n, name) {
				other = n
			}
		}
		if err == io.EOF {
			return false, other, nil
		}
		if err != nil {
			return false, "", err
		}
	}
}

// flipCase turns lower case ASCII letters into upper case and back.
func flipCase(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, name)
}
