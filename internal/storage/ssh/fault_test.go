package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
)

func parse(t *testing.T, url string) Options {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Backoff = time.Millisecond
	return o
}

// fails opens a remote that cannot be, and looks at what the user is told.
func fails(t *testing.T, o Options, kind fault.Kind, words, advice string) {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err == nil {
		_ = s.Close()
		t.Errorf("%s can be opened, want: %s", o.url(), words)
		return
	}
	text := err.Error()
	if fault.KindOf(err) != kind || !strings.Contains(text, words) || !strings.Contains(text, o.url()) || !strings.Contains(fault.AdviceOf(err), advice) {
		t.Errorf("%v\n  %s\nwant %q and %q (%s)", err, fault.AdviceOf(err), words, advice, kind)
	}
}

// TestRefused: what ssh says becomes the reason, and comes with what to do.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	server := sshtest.Start(t, sshtest.Options{})
	at := func(s *sshtest.Server) Options { return parse(t, s.URL(dir)) }
	fails(t, at(sshtest.Start(t, sshtest.Options{Subsystem: "none"})), fault.Other, "subsystem request failed", "Subsystem sftp")
	fails(t, at(sshtest.Start(t, sshtest.Options{Subsystem: "/bin/echo Welcome to this host"})), fault.Other, "does not speak sftp", ".bashrc")

	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	nobody := at(server)
	_, nobody.Port, _ = net.SplitHostPort(closed.Addr().String())
	fails(t, nobody, fault.Other, "Connection refused", "ssh -p "+nobody.Port+" "+server.Name)

	busy := sshtest.Start(t, sshtest.Options{})
	busy.Refuse(true)
	fails(t, at(busy), fault.Other, "kex_exchange_identification", "too many")
	if n := busy.Accepted(); n != attempts {
		t.Errorf("a server that closes connections was tried %d times, want %d", n, attempts)
	}

	server.Forget(t, false)
	fails(t, at(server), fault.Refused, "Host key verification failed", "Connect once by hand, compare the key, and accept it: ssh "+server.Name)
	server.Forget(t, true)
	fails(t, at(server), fault.Refused, "its key has changed", "ssh-keygen -R "+server.Name)
	server.Configure(t, "Foo bar")
	fails(t, at(server), fault.Usage, "Bad configuration option", "~/.ssh/config")
}

func TestDenied(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	server.Deny(t)
	o := parse(t, server.URL(t.TempDir()))
	fails(t, o, fault.Refused, "Permission denied (publickey)", "ssh-add")
	if server.Accepted() != 1 {
		t.Errorf("%d attempts to log in: one that fails is not repeated", server.Accepted())
	}
	o.Seal, _ = sealed.New(sealed.Options{From: "a test"})
	fails2 := func(want string) {
		if _, err := Open(t.Context(), o); !errors.Is(err, sealed.ErrSealed) || !strings.Contains(fault.AdviceOf(err), want) {
			t.Errorf("sealed: %v", err)
		}
	}
	fails2("sealed-programs")
	o.Seal = nil
	t.Setenv("PATH", t.TempDir())
	fails(t, o, fault.Other, "executable file not found", "openssh-client")
}

// TestDirectories: where the directory is, and is not.
func TestDirectories(t *testing.T) {
	home := t.TempDir()
	server := sshtest.Start(t, sshtest.Options{Home: home})
	missing := parse(t, server.URL("~/images"))
	if _, err := Open(t.Context(), missing); !errors.Is(err, storage.ErrNotFound) || !strings.Contains(err.Error(), missing.url()) {
		t.Error(err)
	}
	for range 2 {
		s, err := Create(t.Context(), missing)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "dir/key", "x")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(home, "images/dir/key")); err != nil || string(b) != "x" {
		t.Error(err)
	}
	if err := os.Symlink("images", filepath.Join(home, "link")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, openURL(t, server.URL("~/link")), "dir/key"); got != "x" {
		t.Errorf("by a link: %q", got)
	}
	if _, err := Create(t.Context(), parse(t, server.URL("~/no/images"))); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("without a parent: %v", err)
	}
	fails(t, parse(t, server.URL("~/images/dir/key")), fault.Other, "no directory", "")
	// A directory that goes while it is used does not come back.
	s := openURL(t, server.URL("~/images"))
	if err := os.RemoveAll(filepath.Join(home, "images")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "key", strings.NewReader("x")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("put into a directory that is gone: %v", err)
	}
}

func put(t *testing.T, s *Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, s *Store, key string) string {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBastion goes through another sshd, as the configuration says.
func TestBastion(t *testing.T) {
	bastion := sshtest.Start(t, sshtest.Options{Subsystem: "none"})
	server := sshtest.Start(t, sshtest.Options{Jump: bastion})
	s := openURL(t, server.URL(t.TempDir()))
	put(t, s, "key", "x")
	if got := content(t, s, "key"); got != "x" || bastion.Accepted() == 0 {
		t.Errorf("%q, %d connections to the bastion", got, bastion.Accepted())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	bastion.Refuse(true)
	fails(t, parse(t, s.o.url()), fault.Other, "", "too many")
}

// reading is a body that acts when half of it is read.
func reading(size int, act func()) io.Reader {
	return io.MultiReader(bytes.NewReader(make([]byte, size/2)), acting(act), bytes.NewReader(make([]byte, size/2)))
}

type acting func()

func (a acting) Read([]byte) (int, error) {
	a()
	return 0, io.EOF
}

// TestCut: a connection that breaks fails what was on its way as a stream, with a reason, and leaves
// nothing; what is in memory is sent again.
func TestCut(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	s, err := Open(t.Context(), parse(t, server.URL(dir)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const size = 8 << 20
	err = s.Put(t.Context(), "dir/large", reading(size, server.Cut))
	if err == nil || !strings.Contains(err.Error(), "broke off") || fault.AdviceOf(err) == "" {
		t.Errorf("cut in the middle of an upload: %v", err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	put(t, s, "large", strings.Repeat("x", size))
	r, err := s.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	server.Cut()
	n, err := io.Copy(io.Discard, r)
	if err == nil || n >= size-1<<20 || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("cut in the middle of a download: %d bytes, %v", n, err)
	}
	_ = r.Close()
	for i := range 8 { // whatever of it has been noticed
		server.Cut()
		var err error
		switch i % 4 {
		case 0:
			err = s.Put(t.Context(), "small", strings.NewReader("x"))
		case 1:
			_, err = s.Stat(t.Context(), "large")
		case 2:
			for _, err = range s.List(t.Context(), "") {
			}
		case 3:
			err = s.Delete(t.Context(), "small")
		}
		if err != nil {
			t.Errorf("%d after a cut: %v", i, err)
		}
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestUnreachableMeanwhile: a server that goes away while it is used is an error in the end, and what
// stays there is told.
func TestUnreachableMeanwhile(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	o := parse(t, server.URL(dir))
	told := make(chan string, 100)
	o.Notify = func(line string) { told <- line }
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Put(t.Context(), "dir/large", reading(8<<20, func() {
		server.Refuse(true)
		server.Cut()
	}))
	if err == nil || fault.AdviceOf(err) == "" {
		t.Errorf("%v", err)
	}
	close(told)
	all := ""
	for line := range told {
		all += line + "\n"
	}
	if !strings.Contains(all, "check --sweep") || !strings.Contains(all, "trying again") {
		t.Errorf("told: %s", all)
	}
	if left := leftovers(t, dir); len(left) != 1 {
		t.Fatalf("left over: %q", left)
	}
	server.Refuse(false)
	if n, err := s.Sweep(t.Context(), "", time.Hour); n != 0 || err != nil {
		t.Errorf("what is young was swept: %d, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), "other/", 0); n != 0 || err != nil {
		t.Errorf("what lies elsewhere was swept: %d, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), "", 0); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestSilentServer: a server that takes a connection and says nothing does not hold up who has given up.
func TestSilentServer(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := silent.Accept()
		cancel()
		if err == nil {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	o := parse(t, server.URL(t.TempDir()))
	_, o.Port, _ = net.SplitHostPort(silent.Addr().String())
	if _, err := Open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestStreams: streams at once have connections of their own, as many as the server takes.
func TestStreams(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	s := openURL(t, server.URL(t.TempDir()))
	put(t, s, "large", strings.Repeat("x", 2*streamSize))
	open := func(n int) (close func()) {
		var readers []io.ReadCloser
		for range n {
			r, err := s.Get(t.Context(), "large", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			readers = append(readers, r)
		}
		return func() {
			for _, r := range readers {
				if n, err := io.Copy(io.Discard, r); n != 2*streamSize || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				_ = r.Close()
			}
		}
	}
	done := open(1)
	server.Refuse(true)
	more := open(2) // shares the one, as there is no other
	if n := server.Open(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	more()
	done()
	server.Refuse(false)
	other := openURL(t, s.o.url())
	s = other
	open(connections + 2)()
	if n := server.Open(); n != 1+connections {
		t.Errorf("%d connections, want %d", n, 1+connections)
	}
}

// TestOptionsOfTheServer: without extensions less is possible, and that is said.
func TestOptionsOfTheServer(t *testing.T) {
	for denied, want := range map[string][2]error{ // of Put, and of Create
		"posix-rename":   {storage.ErrPermission, storage.ErrPermission},
		"hardlink":       {nil, errors.ErrUnsupported},
		"fsync,statvfs":  {nil, nil},
		"fsync,hardlink": {nil, errors.ErrUnsupported},
	} {
		server := sshtest.Start(t, sshtest.Options{Subsystem: "internal-sftp -P " + denied})
		dir := t.TempDir()
		s := openURL(t, server.URL(dir))
		for range 2 {
			if err := s.Put(t.Context(), "key", strings.NewReader("x")); !errors.Is(err, want[0]) {
				t.Errorf("without %s: put: %v", denied, err)
			}
		}
		if err := s.Create(t.Context(), "new", strings.NewReader("x")); !errors.Is(err, want[1]) {
			t.Errorf("without %s: create: %v", denied, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
	}
	server := sshtest.Start(t, sshtest.Options{Subsystem: "internal-sftp -R"})
	s := openURL(t, server.URL(t.TempDir()))
	for name, err := range map[string]error{
		"put":    s.Put(t.Context(), "dir/key", strings.NewReader("x")),
		"create": s.Create(t.Context(), "key", strings.NewReader("x")),
	} {
		if !errors.Is(err, storage.ErrPermission) {
			t.Errorf("read-only: %s: %v", name, err)
		}
	}
}

// TestLimits: both directions keep to their limit, all connections together.
func TestLimits(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	o := parse(t, server.URL(t.TempDir()))
	o.UploadLimit, o.DownloadLimit = 1<<20, 1<<20
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	put(t, s, "key", strings.Repeat("x", 1<<20))
	up := time.Since(start)
	if got := content(t, s, "key"); len(got) != 1<<20 {
		t.Error(len(got))
	}
	if down := time.Since(start) - up; up < 500*time.Millisecond || down < 500*time.Millisecond {
		t.Errorf("1 MiB at 1 MiB/s took %s up and %s down", up, down)
	}
}
