package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dogestry/dogestry/internal/storage"
)

// mount mounts a file system of its own for a test. It needs root.
func mount(t *testing.T, source, kind, options string, flags uintptr) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(source, dir, kind, flags, options); err != nil {
		return "", fmt.Errorf("%s %s: %w", kind, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, nil
}

// foldingDirectory returns a directory where case is ignored, or "" and why there is none.
func foldingDirectory(t *testing.T) (dir, how string) {
	t.Helper()
	if os.Getuid() != 0 {
		return "", "a mount needs root"
	}
	root, err := mount(t, "tmpfs", "tmpfs", "size=4m,casefold", 0)
	if err == nil {
		dir := filepath.Join(root, "folding")
		if err = os.Mkdir(dir, 0o777); err == nil {
			var out []byte
			if out, err = exec.Command("chattr", "+F", dir).CombinedOutput(); err == nil {
				return dir, "tmpfs with casefold"
			}
			err = fmt.Errorf("chattr +F: %w: %s", err, out)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	if file, fatErr := os.Create(image); fatErr != nil {
		return "", fatErr.Error()
	} else if fatErr = errors.Join(file.Truncate(8<<20), file.Close()); fatErr != nil {
		return "", fatErr.Error()
	}
	if out, fatErr := exec.Command("mkfs.vfat", image).CombinedOutput(); fatErr != nil {
		return "", fmt.Sprintf("%v; mkfs.vfat: %v %s", err, fatErr, out)
	}
	dir = t.TempDir()
	if out, fatErr := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); fatErr != nil {
		return "", fmt.Sprintf("%v; mount: %v %s", err, fatErr, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir, "FAT"
}

// A full disk is told apart, whether a write finds it or the making of a directory, and nothing of the attempt stays.
func TestNoSpace(t *testing.T) {
	t.Run("device", func(t *testing.T) { // needs no rights
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		bodyErr, err := fill(t.Context(), full, strings.NewReader("x"))
		if bodyErr != nil {
			t.Error(bodyErr)
		}
		failsWith(t, writeFailure("/srv/images/x", err), storage.ErrNoSpace, "/srv/images/x: no space left on device")
	})
	t.Run("file system", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("a mount needs root: only /dev/full was tested")
		}
		dir, err := mount(t, "tmpfs", "tmpfs", "size=1m,nr_inodes=10", 0)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		put(t, s, "dir/old", "old")
		for _, key := range []string{"dir/new", "dir/old", "other/deep/new"} {
			err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, 3<<20)))
			failsWith(t, err, storage.ErrNoSpace, dir+"/"+key+": no space left on device")
			err = s.Create(t.Context(), "dir/created", bytes.NewReader(make([]byte, 3<<20)))
			failsWith(t, err, storage.ErrNoSpace, dir+"/dir/created: no space left on device")
			if left := leftovers(t, dir); len(left) != 0 {
				t.Errorf("left over: %q", left)
			}
		}
		key := strings.Repeat("d/", 20) + "no inodes"
		failsWith(t, s.Put(t.Context(), key, strings.NewReader("")), storage.ErrNoSpace, dir+"/"+key+": no space left on device")
		put(t, s, "dir/old", "there is room again")
	})
}

// readOnly proves that a store that cannot be written serves, and says what it cannot.
func readOnly(t *testing.T, dir, words string) {
	s := open(t, dir)
	if got := get(t, s, "dir/object"); got != "content" {
		t.Error(got)
	}
	n := 0
	for _, err := range s.List(t.Context(), "") {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("listed %d objects", n)
	}
	for _, key := range []string{"dir/object", "dir/new", "new", "new/new"} {
		failsWith(t, s.Put(t.Context(), key, strings.NewReader("x")), storage.ErrPermission, dir+"/"+key+": "+words)
		if key != "dir/object" {
			failsWith(t, s.Create(t.Context(), key, strings.NewReader("x")), storage.ErrPermission, dir+"/"+key+": "+words)
		}
	}
	failsWith(t, s.Delete(t.Context(), "dir/object"), storage.ErrPermission, dir+"/dir/object: "+words)
	if err := s.Delete(t.Context(), "dir/missing"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if s.fold != foldNo {
		t.Errorf("case: found out %v", s.fold)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a mount needs root: TestWithoutPermission is what was tested")
	}
	dir, err := mount(t, "tmpfs", "tmpfs", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "dir", "object"), "content")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	readOnly(t, dir, "read-only file system")
	s, err := Create(dir) // it is there: no reason to fail
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	_, err = Create(filepath.Join(dir, "new"))
	failsWith(t, err, storage.ErrPermission, filepath.Join(dir, "new")+": read-only file system")
}

// asNobody runs f with the file rights of an ordinary user. f must stay on its goroutine.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }()
	f()
}

func TestWithoutPermission(t *testing.T) {
	dir, err := os.MkdirTemp("", "dogestry-file-") // t.TempDir is closed to nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write(t, filepath.Join(dir, "dir", "object"), "content")
	for _, d := range []string{dir, filepath.Join(dir, "dir")} {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(d, 0o755) })
	}
	asNobody(t, func() { readOnly(t, dir, "permission denied") })

	// Neither is an unreadable object, or directory, one that is not there.
	if err := os.Chmod(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "dir", "object"), 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		_, err := open(t, dir).Get(t.Context(), "dir/object", 0, -1)
		failsWith(t, err, storage.ErrPermission, dir+"/dir/object: permission denied")
	})
	if err := os.Chmod(filepath.Join(dir, "dir"), 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		s := open(t, dir)
		_, err := s.Stat(t.Context(), "dir/object")
		failsWith(t, err, storage.ErrPermission, dir+"/dir/object: permission denied")
		var last error
		for _, err := range s.List(context.Background(), "") {
			last = err
		}
		failsWith(t, last, storage.ErrPermission, dir+"/dir: permission denied")
	})
}

// The lock that another user's killed swap left does not keep others out, and a
// store that cannot be written says so.
func TestSwapOfAnotherUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "dogestry-file-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key"), "old")
	write(t, filepath.Join(dir, lockName("key")), "")
	for _, path := range []string{filepath.Join(dir, "key"), filepath.Join(dir, lockName("key"))} {
		if err := os.Chmod(path, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	asNobody(t, func() {
		s := open(t, dir)
		if err := s.Swap(t.Context(), "key", []byte("old"), []byte("new")); err != nil || get(t, s, "key") != "new" {
			t.Error(err)
		}
	})
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		err := open(t, dir).Swap(t.Context(), "key", []byte("new"), []byte("newer"))
		failsWith(t, err, storage.ErrPermission, dir+"/key: permission denied")
		// Who has lost already needs no lock, so no permission.
		err = open(t, dir).Swap(t.Context(), "key", []byte("old"), []byte("newer"))
		failsWith(t, err, storage.ErrChanged, dir+"/key: changed meanwhile")
	})
}
