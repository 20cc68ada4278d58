//go:build unix

package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// noEngine is where none listens: bundles need none.
const noEngine = "unix:///nowhere.sock"

// noisyRemote makes a directory remote with an image of two layers that no codec
// makes smaller, app:1.
func noisyRemote(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	store, err := file.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r, err := repo.Open(t.Context(), store, repo.Options{Name: dir, Codec: codec.LZ4})
	if err != nil {
		t.Fatal(err)
	}
	layer := func(name string) []byte {
		return remotetest.FileLayer(t, name, string(remotetest.Noise(name, 3<<20)))
	}
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:1"), remotetest.NewImage(t, "app", layer("a"), layer("b"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSignalDuringExport ends an export to a pipe that nobody reads, and one to a
// file: what was there stays, and nothing else is left.
func TestSignalDuringExport(t *testing.T) {
	src := noisyRemote(t)
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket, proxy := "s3://"+server.Bucket(t)+"/images?endpoint=", server.ProxyFor(t)
	run(t, noEngine, "copy", src, bucket+server.Endpoint, "--all")
	for _, c := range signalCases {
		t.Run("pipe/"+c.signal.String(), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := &process{t: t, cmd: command(t, noEngine, "export", src, "app:1", "-o", "-")}
			p.cmd.Stdout, p.cmd.Stderr = w, &p.stderr
			p.launch()
			_ = w.Close()
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			p.end(c.signal, c.code, c.told)
		})
		t.Run("file/"+c.signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "bundle.tar")
			if err := os.WriteFile(out, []byte("before"), 0o644); err != nil {
				t.Fatal(err)
			}
			proxy.SetFault(s3test.Between(2, -1, isLayer, s3test.Stall())) // the first layer comes
			p := start(t, noEngine, "export", bucket+proxy.Endpoint, "app:1", "-o", out)
			p.until("something is written beside it", func() bool {
				for _, name := range files(t, dir) {
					if info, err := os.Stat(name); err == nil && strings.HasSuffix(name, ".tmp") && info.Size() > 0 {
						return true
					}
				}
				return false
			})
			p.end(c.signal, c.code, c.told)
			if was, err := os.ReadFile(out); err != nil || string(was) != "before" {
				t.Errorf("the output is %.80q, %v", was, err)
			}
			if left := files(t, dir); len(left) != 1 && c.signal != syscall.SIGKILL {
				t.Errorf("it left %q", left)
			}
		})
	}
}

// TestBundleBetweenBuckets: a bundle goes from one bucket to another through a file.
func TestBundleBetweenBuckets(t *testing.T) {
	src := noisyRemote(t)
	server := s3test.For(t)
	setAccount(t, server.Account)
	name := func() string { return "s3://" + server.Bucket(t) + "/images?endpoint=" + server.Endpoint }
	one, two, out := name(), name(), filepath.Join(t.TempDir(), "bundle.tar")
	run(t, noEngine, "copy", src, one, "--all")
	run(t, noEngine, "export", one, "--all", "-o", out)
	run(t, noEngine, "import", two, out)
	run(t, noEngine, "verify", two)
	back := filepath.Join(t.TempDir(), "back")
	run(t, noEngine, "copy", two, back, "--all")
	for _, path := range files(t, src) {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := os.ReadFile(filepath.Join(back, strings.TrimPrefix(path, src))); err != nil || string(is) != string(was) {
			t.Errorf("%s came back as %.40q, %v", path, is, err)
		}
	}
}

// TestSignalDuringImport ends an import from a pipe on which no more comes: no tag
// is there, whole layers stay, and the whole bundle completes it.
func TestSignalDuringImport(t *testing.T) {
	src := noisyRemote(t)
	out := filepath.Join(t.TempDir(), "bundle.tar")
	run(t, noEngine, "export", src, "app:1", "-o", out)
	bundle, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range signalCases {
		t.Run(c.signal.String(), func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "dst")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			p := &process{t: t, cmd: command(t, noEngine, "import", dst, "-")}
			p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = r, &p.stdout, &p.stderr
			p.launch()
			_ = r.Close()
			if _, err := w.Write(bundle[:len(bundle)-2<<20]); err != nil {
				t.Fatal(err)
			}
			p.until("one layer is stored, and half of the other", func() bool {
				return len(named(files(t, dst), "json")) > 0 && len(named(files(t, dst), ".layer.tar")) > 0
			})
			p.end(c.signal, c.code, c.told)
			if tags := files(t, filepath.Join(dst, "repositories")); len(tags) > 0 {
				t.Errorf("it left the tag %s", tags)
			}
			if left := temporaryFiles(t, dst); c.signal != syscall.SIGKILL && len(left) > 0 {
				t.Errorf("it left %s", left)
			}
			p = start(t, noEngine, "import", dst, out)
			p.mustSucceed()
			if said := p.stderr.String(); !strings.Contains(said, ": already there") || !strings.Contains(said, ": done ") {
				t.Errorf("the second import does not go on where the first ended:\n%s", said)
			}
			run(t, noEngine, "verify", dst)
		})
	}
}
