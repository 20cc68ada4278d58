package layerstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

// TestBeneath: files are opened by the one call, without the root.
func TestBeneath(t *testing.T) {
	needsOpenat2(t)
	s, stack := craft(t, "overlay2", nil, func(dir string) {
		must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
		write(t, filepath.Join(dir, "a", "file"), []byte("hello"))
		must(t, os.Symlink("/etc", filepath.Join(dir, "etc")))
	})
	files, _, err := s.find(stack)
	must(t, err)
	must(t, files.root.Close())
	f, size, err := files.open("/a/file")
	must(t, err)
	defer f.Close()
	if got, err := io.ReadAll(f); string(got) != "hello" || size != 5 || err != nil {
		t.Errorf("%q of %d bytes, %v", got, size, err)
	}
	if want := filepath.Join(files.root.Name(), "a/file"); f.Name() != want {
		t.Errorf("it is called %s, want %s", f.Name(), want)
	}
	for _, name := range []string{"etc/passwd", "../../../..", "a/../.."} {
		if f, err := openBeneath(files.self, name); !errors.Is(err, unix.EXDEV) {
			_ = f.Close()
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, files.self.Close())
	if _, _, err := files.open("a/file"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed directory: %v", err)
	}
}

// needsOpenat2 skips a test where the system does not have the call, by a call of its own.
func needsOpenat2(t *testing.T) {
	t.Helper()
	fd, err := unix.Openat2(unix.AT_FDCWD, ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM): // older than Linux 5.6, or a sandbox forbids it
		t.Skip("no openat2 here: only the other way of opening files is tested: ", err)
	case err != nil:
		t.Fatal(err)
	}
	must(t, unix.Close(fd))
}

// TestDevice: a layer may have devices, and names them files here.
func TestDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a device needs root: TestHostile has a FIFO")
	}
	if err := unix.Mknod(filepath.Join(t.TempDir(), "zero"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); errors.Is(err, unix.EPERM) {
		t.Skip("this root may not make devices: TestHostile has a FIFO")
	}
	eachWay(t, func(t *testing.T, choose func(*directory) *directory) {
		s, stack := craft(t, "overlay2", []storage.Entry{file("zero", 6)}, func(dir string) {
			must(t, unix.Mknod(filepath.Join(dir, "zero"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))))
		})
		r, _, err := s.Layer(t.Context(), stack)
		must(t, err)
		defer r.Close()
		choose(r.(*reader).files)
		if got, err := io.ReadAll(r); len(got) > 0 || err == nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}
