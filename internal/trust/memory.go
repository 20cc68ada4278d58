package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lockfile"
	"github.com/dogestry/dogestry/internal/signature"
)

// Memory is what a user's pulls have accepted of one remote: for each tag the
// newest signature, in a file of its own. It is safe for concurrent use, also by
// other processes: each change is made under one lock, and a file is replaced as a whole.
type Memory struct {
	Dir    string // is made when something is to be remembered
	Remote string // one name for one remote, however it was written
}

// Seen is a signature that was accepted.
type Seen struct {
	Time  time.Time `json:"time"`
	Image image.ID  `json:"image"`
	Key   string    `json:"key"`
}

// OlderError says that something newer was accepted before.
type OlderError struct {
	Newer Seen
	File  string
}

func (e *OlderError) Error() string {
	return fmt.Sprintf("before, image %s was accepted, signed %s", e.Newer.Image.Short(), moment(e.Newer.Time))
}

// note is the content of a file: one line of JSON. What the file's name is made
// of is in it for people.
type note struct {
	Remote string `json:"remote"`
	Tag    string `json:"tag"`
	Seen
}

const maxNote = 64 << 10 // bytes

// follows reports whether s may be accepted where last was before. Of two
// images signed at the same time neither is the newer one.
func (s Seen) follows(last Seen) bool {
	return s.Time.After(last.Time) || s.Time.Equal(last.Time) && s.Image == last.Image
}

func (m Memory) file(ref image.Reference) string {
	return filepath.Join(m.Dir, image.DigestOf([]byte(m.Remote+"\n"+ref.String())).Hex())
}

// Check returns an *OlderError if something newer than s was accepted. It changes nothing.
func (m Memory) Check(ref image.Reference, s Seen) error {
	last, err := m.read(ref)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && !s.follows(last) {
		return &OlderError{last, m.file(ref)}
	}
	return err
}

// lockPause is how long a lock that another has is left alone. It is held for the time
// of a small write.
const lockPause = 5 * time.Millisecond

// Accept is Check, and remembers s where it finds nothing newer. Where rollback
// is set, s takes the place of something newer, too. Where nothing can be
// remembered it fails: a pull that went on would not notice a rollback later.
func (m Memory) Accept(ctx context.Context, ref image.Reference, s Seen, rollback bool) error {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return m.cannot(err)
	}
	held, err := lockfile.Take(ctx, filepath.Join(m.Dir, "lock"), lockfile.Options{Mode: 0o600, Pause: lockPause})
	if err != nil {
		if fault.Interrupted(err) {
			return err
		}
		return m.cannot(err)
	}
	defer held.Close()
	var older *OlderError
	switch err := m.Check(ref, s); {
	case errors.As(err, &older) && rollback:
	case err != nil:
		return err
	}
	if err := m.write(ref, s); err != nil {
		return m.cannot(err)
	}
	return nil
}

func (m Memory) cannot(err error) error {
	f := fault.Wrap(fault.Refused, err, "cannot remember which signature was accepted, and could not notice when an older one comes back")
	if errors.Is(err, errors.ErrUnsupported) { // see lockfile
		return f.Advise("Files cannot be locked on this system, or where %s lies. There, pull by digest.", m.Dir)
	}
	return f.Advise("Make %s writable, or set XDG_STATE_HOME to a directory that is and that lasts.", m.Dir)
}

// read returns what was accepted last. ErrNotExist where nothing was.
func (m Memory) read(ref image.Reference) (Seen, error) {
	name := m.file(ref)
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return Seen{}, err
	}
	var content []byte
	if err == nil {
		defer f.Close()
		content, err = io.ReadAll(io.LimitReader(f, maxNote))
	}
	if err != nil {
		return Seen{}, fault.Wrap(fault.Refused, err, "cannot read which signature of %s was accepted before", ref)
	}
	var n note
	err = json.Unmarshal(content, &n)
	if err == nil && (n.Remote != m.Remote || n.Tag != ref.String() || n.Time.IsZero() || n.Image.IsZero()) {
		err = errors.New("it is about something else")
	}
	if err != nil {
		return Seen{}, fault.Wrap(fault.Refused, err, "%s is damaged: it is to say which signature of %s was accepted before", name, ref).
			Advise("Put it back from a backup. Without it the next pull cannot notice an old tag: if that is all right, remove it.")
	}
	return n.Seen, nil
}

// write replaces what was accepted last. The lock is held: nobody else has the
// temporary file, and one that is there a killed process has left.
func (m Memory) write(ref image.Reference, s Seen) error {
	content, err := json.Marshal(note{m.Remote, ref.String(), Seen{s.Time.UTC().Truncate(signature.Tick), s.Image, s.Key}})
	if err != nil {
		return err
	}
	name := m.file(ref)
	temporary := name + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(content, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if dir, err := os.Open(m.Dir); err == nil { // so that the new name lasts, where directories can be synced
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}
