// Package cache is what one run remembers for later ones: a file for each remote,
// replaced as a whole. Of runs at once the last wins, and none reads half a file.
// Nothing is lost with it but time.
package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	maxSize = 64 << 20 // bytes of a file. Who remembers more begins anew each time

	life          = 90 * 24 * time.Hour // of the file of a remote that does not change, or is used no more
	temporaryLife = time.Hour           // of what a killed run left
	temporaryMark = ".new-"
)

// File is what is remembered of one remote. It begins with a mark, the sha256 of the
// rest and a line feed; the rest is JSON.
type File struct {
	path string
	mark string
}

// New returns the file of a kind, for the remote that key names; it need not be
// there. The key is hashed, not stored. The mark says what is in it, and in which
// version: a file with another one is not read.
func New(dir, kind, key, mark string) File {
	return File{filepath.Join(dir, kind, image.DigestOf([]byte(key)).Hex()), mark}
}

// Path returns where it is.
func (f File) Path() string { return f.path }

// Load reads into v what was stored. It wraps os.ErrNotExist where nothing was; any
// other error says why the file is of no use. Then v may be written in part.
func (f File) Load(v any) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxSize))
	if err != nil {
		return err
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if string(head) != f.head(body) {
		return errors.New("damaged, or of another version")
	}
	return json.Unmarshal(body, v)
}

func (f File) head(body []byte) string { return f.mark + image.DigestOf(body).Hex() }

// Store replaces the file by v. It removes beside it what killed runs have left, and
// files that were not used for long.
func (f File) Store(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := f.head(body) + "\n"
	if n := len(head) + len(body); n > maxSize {
		return fmt.Errorf("%d bytes are too many to remember", n)
	}
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sweep(dir)
	file, err := os.CreateTemp(dir, filepath.Base(f.path)+temporaryMark) // 0600
	if err != nil {
		return err
	}
	_, err = file.WriteString(head)
	if err == nil {
		_, err = file.Write(body)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), f.path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(file.Name()))
	}
	return err
}

// sweep removes what killed runs left, and the files of remotes that have not
// been used for long. What it cannot remove stays.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		most := life
		if strings.Contains(entry.Name(), temporaryMark) {
			most = temporaryLife
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > most {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}

// Trim removes files of a kind until they have no more than so many bytes together, those that were stored the
// longest time ago first. Others may store and remove files meanwhile. A directory that is not there has none.
func Trim(dir, kind string, most int64) error {
	dir = filepath.Join(dir, kind)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var files []os.FileInfo
	var size int64
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
			size += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if size <= most {
			break
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		size -= f.Size()
	}
	return nil
}
