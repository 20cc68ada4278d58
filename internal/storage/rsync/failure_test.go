package rsync

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// TestSilent proves that a server that says nothing is not waited for forever, and one that is no rsync server is told.
func TestSilent(t *testing.T) {
	for _, test := range []struct {
		greeting, want string
		timeout        time.Duration
	}{
		{"", "said nothing for too long", time.Second},
		{"SSH-2.0-OpenSSH_9.2\r\n", "no rsync server", time.Minute},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(test.greeting))
				defer conn.Close()
			}
		}()
		s := openStore(t, "rsync://"+listener.Addr().String()+"/module", func(o *Options) { o.Timeout, o.Attempts = test.timeout, 1 })
		if _, err := s.Stat(t.Context(), "key"); err == nil || !strings.Contains(err.Error(), test.want) || fault.AdviceOf(err) == "" {
			t.Errorf("%q: %v, want %q", test.greeting, err, test.want)
		}
	}
}

// TestBusy proves that a server with as many connections as it takes is asked again.
func TestBusy(t *testing.T) {
	server, _ := serve(t, "max connections = 1")
	told := make(chan string, 1000)
	s := openStore(t, server.URL("module"), func(o *Options) { o.Attempts, o.Notify = 20, func(line string) { told <- line } })
	done := make(chan error)
	go func() { done <- s.Put(t.Context(), "layer", bytes.NewReader(make([]byte, 4<<20))) }()
	for range 10 {
		if _, err := s.Stat(t.Context(), "other"); !errors.Is(err, storage.ErrNotFound) {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(told)
	for line := range told {
		if !strings.Contains(line, "max connections") {
			t.Error(line)
		}
	}
}

// TestParse proves which URLs are taken, and that no password is shown.
func TestParse(t *testing.T) {
	for name, want := range map[string]Options{
		"rsync://host/module":                           {Host: "host", Module: "module"},
		"rsync://host/module/":                          {Host: "host", Module: "module"},
		"rsync://me@host:8730/my%20module/a/b/":         {User: "me", Host: "host:8730", Module: "my module", Prefix: "a/b"},
		"rsync://[::1]:873/m/a%20b%2A?password-file=/x": {Host: "[::1]:873", Module: "m", Prefix: "a b*", PasswordFile: "/x"},
	} {
		got, err := Parse(name)
		if err != nil || got.User != want.User || got.Host != want.Host || got.Module != want.Module || got.Prefix != want.Prefix || got.PasswordFile != want.PasswordFile {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"rsync://me:secret@host/module", "rsync://host", "rsync:///module", "rsync://-e@host/module", "rsync://-host/module", "rsync://ho st/module",
		"rsync://host/module/../secret", "rsync://host/module/.hidden", "rsync://host/mod%0aule/x", "rsync://host/module/a%0ab", "rsync://host/module/a//b",
		"rsync://host/%2Fetc/x", "rsync://host/module?password=secret", "rsync://host/module?password-file=", "rsync://host/module?password-file=-", "rsync://host/module#x", "rsync:host/module",
		"rsync://host:99999999/module", "rsync://host;id/module", "rsync://host/module%00",
	} {
		_, err := Parse(name)
		if !fault.Is(err, fault.Usage) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEnvironment proves that rsync gets no variables by which it would run or contact anything else.
func TestEnvironment(t *testing.T) {
	t.Setenv("RSYNC_CONNECT_PROG", "touch /tmp/run")
	t.Setenv("RSYNC_RSH", "x")
	t.Setenv("HOME", "/root")
	t.Setenv("RSYNC_PASSWORD", "secret")
	for file, want := range map[string]bool{"": true, "/file": false} {
		env, err := environment(Options{PasswordFile: file})
		if err != nil {
			t.Fatal(err)
		}
		has := false
		for _, v := range env {
			name, value, _ := strings.Cut(v, "=")
			switch name {
			case "RSYNC_PASSWORD":
				has = value == "secret"
			case "PATH", "USER", "LOGNAME", "LC_ALL", "TZ":
			default:
				t.Errorf("it gets %s", name)
			}
		}
		if has != want {
			t.Errorf("password-file %q: the password is passed: %v", file, has)
		}
	}
}

// FuzzParseLine lets a server say what it likes.
func FuzzParseLine(f *testing.F) {
	f.Add("-rw-r--r--          1,234 2026/11/26 07:43:56 p/;d*[a]\\x")
	f.Add("drwxr-xr-x          4,096 2026/11/26 07:43:56 .")
	f.Add(`-rw-r--r--              2 2026/11/26 07:43:56  a\#012b\#134#777 `)
	f.Add("lrwxrwxrwx              2 2026/11/26 07:43:56 a -> b")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok, err := parseLine(line)
		if ok && (err != nil || e.info.Size < 0 || e.info.Modified.IsZero()) {
			t.Errorf("%q: %+v, %v", line, e, err)
		}
	})
}

// TestParseLine is about lines that rsync writes.
func TestParseLine(t *testing.T) {
	for line, want := range map[string]string{
		"-rw-r--r--          1,234 2026/11/26 07:43:56 p/;d*[a]\\x":             "p/;d*[a]\\x 1234 file",
		"drwxr-xr-x          4,096 2026/11/26 07:43:56 a b ":                    "a b  4096 directory",
		`-rw-r--r-- 12,345,678,901,234 2026/11/26 07:43:56  x\#012\#134#777\#9`: " x\n\\#777\\#9 12345678901234 file",
		"lrwxrwxrwx              2 2026/11/26 07:43:56 a -> b":                  "",
		"Welcome": "",
	} {
		e, ok, err := parseLine(line)
		kind := map[bool]string{true: "directory", false: "file"}[e.directory]
		got := ""
		if ok {
			got = e.info.Key + " " + strconv.FormatInt(e.info.Size, 10) + " " + kind
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
	if _, _, err := parseLine("-rw-r--r--          1,x34 2026/11/26 07:43:56 p"); err == nil {
		t.Error("a size that makes no sense is taken")
	}
}
