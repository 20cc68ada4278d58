package agent

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// State is what was done for tags that are followed, in a directory: a file for each. It
// outlives the process, so that no command is run again for what was dealt with.
type State struct {
	Dir string // is made when something is to be remembered
	// Engine tells agents of several engines apart that share the directory.
	Engine string
}

// Done is what was done for a tag.
type Done struct {
	Pulled  image.ID `json:"pulled"`  // what the tag named when it was pulled
	ID      image.ID `json:"id"`      // what the engine calls that image
	Handled image.ID `json:"handled"` // as Pulled, where the command was done for it
}

// record is the content of a file: one line of JSON. What the file's name is made of is
// in it for people.
type record struct {
	Remote string `json:"remote"`
	Image  string `json:"image"`
	Done
}

const maxRecord = 64 << 10 // bytes

func (s State) file(f Follow) string {
	return filepath.Join(s.Dir, image.DigestOf([]byte(s.Engine+"\n"+f.Key+"\n"+f.Image.String())).Hex())
}

// read returns what was done, nothing where that is not known.
func (s State) read(f Follow) (Done, error) {
	in, err := os.Open(s.file(f))
	if errors.Is(err, os.ErrNotExist) {
		return Done{}, nil
	}
	var content []byte
	if err == nil {
		defer in.Close()
		content, err = io.ReadAll(io.LimitReader(in, maxRecord))
	}
	var r record
	if err == nil {
		err = json.Unmarshal(content, &r)
	}
	if err != nil {
		return Done{}, fault.Wrap(fault.Other, err, "cannot read what was done for %s", f.Image)
	}
	return r.Done, nil
}

// write replaces what was done, durably.
func (s State) write(f Follow, d Done) error {
	content, err := json.Marshal(record{f.Remote, f.Image.String(), d})
	if err == nil {
		err = os.MkdirAll(s.Dir, 0o700)
	}
	if err == nil {
		err = replace(s.file(f), append(content, '\n'))
	}
	if err != nil {
		return fault.Wrap(fault.Other, err, "cannot remember what was done for %s", f.Image).
			Advise("Make %s writable, or name another directory with --state-dir.", s.Dir)
	}
	return nil
}

// replace writes a file whole, or leaves it as it was. Nobody else writes it: a temporary
// file that is there a killed process has left.
func replace(name string, content []byte) error {
	dir := filepath.Dir(name)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if d, err := os.Open(dir); err == nil { // so that the new name lasts, where directories can be synced
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
