package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lockfile"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// filesIn lists a directory that may not be there, with rights.
func filesIn(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		list = append(list, fmt.Sprintf("%s %v", filepath.Base(path), info.Mode()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func seenAt(n int) Seen {
	return Seen{Time: start.Add(time.Duration(n) * time.Millisecond), Image: image.DigestOf(fmt.Append(nil, n)), Key: "0123456789abcdef"}
}

// TestMemoryOrder: later, or the same; nothing else.
func TestMemoryOrder(t *testing.T) {
	ref := remotetest.Ref(t, "app:1")
	last := seenAt(100)
	twin := last
	twin.Image = image.DigestOf([]byte("signed at the same time"))
	again := last
	again.Key = "fedcba9876543210"
	for what, c := range map[string]struct {
		next Seen
		ok   bool
	}{
		"later": {seenAt(101), true}, "the same": {last, true}, "the same by another key": {again, true},
		"earlier": {seenAt(99), false}, "another image at the same time": {twin, false},
	} {
		m := newMemory(t)
		if err := m.Check(ref, last); err != nil {
			t.Fatal(err)
		}
		if err := m.Accept(t.Context(), ref, last, false); err != nil {
			t.Fatal(err)
		}
		for _, try := range []func() error{
			func() error { return m.Check(ref, c.next) },
			func() error { return m.Accept(t.Context(), ref, c.next, false) },
		} {
			err := try()
			var older *OlderError
			if (err == nil) != c.ok || !c.ok && (!errors.As(err, &older) || older.Newer != last) {
				t.Errorf("%s: %v", what, err)
			}
		}
		want := last
		if c.ok {
			want = c.next
		}
		if got, err := m.read(ref); err != nil || got != want {
			t.Errorf("%s: remembers %+v, %v", what, got, err)
		}
	}
}

// TestMemoryIsPrivate, and readable by people.
func TestMemoryIsPrivate(t *testing.T) {
	m := newMemory(t)
	ref := remotetest.Ref(t, "localhost:5000/app:1")
	if err := errors.Join(os.Mkdir(m.Dir, 0o700), os.WriteFile(m.file(ref)+".new", make([]byte, 5000), 0o600)); err != nil {
		t.Fatal(err) // what a killed process leaves
	}
	for n := range 3 {
		if err := m.Accept(t.Context(), ref, seenAt(n), false); err != nil {
			t.Fatal(err)
		}
	}
	files := filesIn(t, m.Dir)
	if len(files) != 3 || files[0] != "tags drwx------" || !strings.HasSuffix(files[1], " -rw-------") || files[2] != "lock -rw-------" {
		t.Errorf("files %q", files)
	}
	content, err := os.ReadFile(m.file(ref))
	if err != nil || !strings.Contains(string(content), `"remote":"the remote","tag":"localhost:5000/app:1","time":"2026-11-25T12:00:00.002Z"`) {
		t.Errorf("%s, %v", content, err)
	}
}

// TestMemoryOfMany: of all that pull at once none brings back an older time, and
// what is accepted at last is the newest.
func TestMemoryOfMany(t *testing.T) {
	m := newMemory(t)
	ref := remotetest.Ref(t, "app:1")
	const pulls, rounds = 8, 50
	var wg sync.WaitGroup
	stop := make(chan struct{})
	watched := make(chan error, 1)
	go func() { // who looks meanwhile sees whole files, and time that does not go back
		last := Seen{}
		for {
			got, err := m.read(ref)
			if err != nil && !errors.Is(err, os.ErrNotExist) || got.Time.Before(last.Time) {
				watched <- fmt.Errorf("read %+v after %+v, %w", got, last, err)
				return
			}
			last = got
			select {
			case <-stop:
				watched <- nil
				return
			default:
			}
		}
	}()
	for p := range pulls {
		wg.Go(func() {
			for r := range rounds {
				s := seenAt(r*pulls + p)
				err := m.Accept(t.Context(), ref, s, false)
				var older *OlderError
				if errors.As(err, &older) {
					err = nil
					if s.Time.After(older.Newer.Time) {
						t.Errorf("%s was refused for %s", s.Time, older.Newer.Time)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if got, err := m.read(ref); err != nil || got != seenAt(pulls*rounds-1) {
		t.Errorf("remembers %+v, %v", got, err)
	}
	if files := filesIn(t, m.Dir); len(files) != 3 {
		t.Errorf("left behind: %q", files)
	}
}

// TestMemoryThatIsDamaged is told, and is not taken for none.
func TestMemoryThatIsDamaged(t *testing.T) {
	ref := remotetest.Ref(t, "app:1")
	m := newMemory(t)
	if err := m.Accept(t.Context(), ref, seenAt(5), false); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(m.file(ref))
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string]string{
		"empty": "", "cut off": string(good[:50]), "no time": strings.Replace(string(good), `"time"`, `"thyme"`, 1), "null": "null",
		"another tag's":    strings.Replace(string(good), "app:1", "app:2", 1),
		"another remote's": strings.Replace(string(good), "the remote", "your remote", 1),
		"no image":         strings.Replace(string(good), `"image"`, `"mirage"`, 1),
		"huge":             strings.Repeat(" ", maxNote) + string(good),
	} {
		if err := os.WriteFile(m.file(ref), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, rollback := range []bool{false, true} {
			err := m.Accept(t.Context(), ref, seenAt(9), rollback)
			if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), m.file(ref)) || fault.AdviceOf(err) == "" {
				t.Errorf("%s: %v, advice %q", what, err, fault.AdviceOf(err))
			}
		}
	}
}

// TestMemoryThatCannotBeWritten: a pull that could not notice a roll-back later is refused.
func TestMemoryThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := Memory{Dir: filepath.Join(file, "tags"), Remote: "the remote"}
	err := m.Accept(t.Context(), remotetest.Ref(t, "app:1"), seenAt(1), false)
	if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), m.Dir) {
		t.Errorf("%v, advice %q", err, fault.AdviceOf(err))
	}
}

// TestMemoryThatIsLocked: who waits for another pull stops with its context.
func TestMemoryThatIsLocked(t *testing.T) {
	m := newMemory(t)
	ref := remotetest.Ref(t, "app:1")
	if err := m.Accept(t.Context(), ref, seenAt(1), false); err != nil {
		t.Fatal(err)
	}
	held, err := lockfile.Take(t.Context(), filepath.Join(m.Dir, "lock"), lockfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Accept(ctx, ref, seenAt(2), false); !fault.Interrupted(err) {
		t.Errorf("accepted beside the lock: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Accept(t.Context(), ref, seenAt(2), false); err != nil {
		t.Error(err)
	}
}
