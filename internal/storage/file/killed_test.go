package file

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// writerEnv names the directory into which this test binary, run as a child, writes until it is killed.
const writerEnv = "DOGESTRY_TEST_WRITER"

// writeUntilKilled puts dir/key with a body that stops for ever behind its third MiB.
func writeUntilKilled(dir string) {
	s, err := Open(dir)
	if err != nil {
		panic(err)
	}
	wait := readerFunc(func([]byte) (int, error) {
		fmt.Println("waiting")
		time.Sleep(time.Hour)
		return 0, nil
	})
	panic(s.Put(context.Background(), "dir/key", io.MultiReader(bytes.NewReader(make([]byte, 3<<20)), wait)))
}

// startWriter returns once the child is in mid-Put.
func startWriter(t *testing.T, dir string) (kill func()) {
	t.Helper()
	return startChild(t, writerEnv, dir)
}

// startChild runs this test binary with a variable set, until it has written a line. kill kills it with SIGKILL and waits for it.
func startChild(t *testing.T, variable, value string) (kill func()) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(program)
	child.Env = append(os.Environ(), variable+"="+value)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = child.Process.Kill()
			_ = child.Wait()
		}
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	return kill
}

// What a killed writer left goes with the next Put beside it; what a living one writes stays.
func TestKilledWriter(t *testing.T) {
	for name, clean := range map[string]func(t *testing.T, s *Store){
		"put of another key": func(t *testing.T, s *Store) { put(t, s, "dir/other", "x") },
		"put of the key":     func(t *testing.T, s *Store) { put(t, s, "dir/key", "x") },
		"create": func(t *testing.T, s *Store) {
			if err := s.Create(t.Context(), "dir/key", strings.NewReader("x")); err != nil {
				t.Error(err)
			}
		},
		"put in place of the directory": func(t *testing.T, s *Store) {
			if err := s.Delete(t.Context(), "dir/old"); err != nil {
				t.Error(err)
			}
			put(t, s, "dir", "x")
		},
		"delete of the last object": func(t *testing.T, s *Store) {
			if err := s.Delete(t.Context(), "dir/old"); err != nil {
				t.Error(err)
			}
		},
		"sweep": func(t *testing.T, s *Store) {
			if n, err := s.Sweep(t.Context(), "", 0); n != 1 || err != nil {
				t.Error(n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, s, "dir/old", "old")
			kill := startWriter(t, dir)

			put(t, s, "dir/beside", "x")
			if _, err := s.Sweep(t.Context(), "", 0); err != nil {
				t.Error(err)
			}
			if err := s.Delete(t.Context(), "dir/beside"); err != nil {
				t.Error(err)
			}
			if left := leftovers(t, dir); len(left) != 1 {
				t.Fatalf("beside a living writer there is %q, want its file", left)
			}
			kill()
			left := leftovers(t, dir)
			if len(left) != 1 || mustStat(t, left[0]).Size() < 2<<20 {
				t.Fatalf("a writer killed in the middle left %q", left)
			}
			if _, err := s.Stat(t.Context(), "dir/key"); err == nil {
				t.Error("half an object is there")
			}
			for info, err := range s.List(t.Context(), "") {
				if err != nil || info.Key != "dir/old" {
					t.Errorf("listed %v, %v", info, err)
				}
			}
			clean(t, s)
			if left := leftovers(t, dir); len(left) != 0 {
				t.Errorf("left over: %q", left)
			}
		})
	}
}

// A writer notices that its file was removed between its creation and its lock, or is locked by who will remove it.
func TestSweptBeforeTheLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	sweeps := 0
	s.created = func(d *os.Root, name string) {
		if sweeps++; sweeps <= 3 && sweep(d) != 1 {
			t.Error("the file was not swept")
		}
	}
	put(t, s, "dir/key", "x")
	if sweeps != 4 || get(t, s, "dir/key") != "x" {
		t.Errorf("%d temporary files", sweeps)
	}

	held := 0
	s.created = func(_ *os.Root, name string) {
		if held++; held > 1 {
			return
		}
		f, err := os.OpenFile(filepath.Join(dir, "dir", name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if tryLock(f) != lockTaken {
			t.Error("not locked")
		}
	}
	put(t, s, "dir/key", "y")
	if held != 2 || get(t, s, "dir/key") != "y" {
		t.Errorf("%d temporary files", held)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// Sweepers and writers in one directory do not disturb one another.
func TestSweepBesideWriters(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sweepers, writers errgroup.Group
	for range 2 {
		s := open(t, dir)
		sweepers.Go(func() error {
			for ctx.Err() == nil {
				if _, err := s.Sweep(ctx, "", 0); err != nil && !errors.Is(err, context.Canceled) {
					return err
				}
			}
			return nil
		})
	}
	for i := range 4 {
		s := open(t, dir)
		writers.Go(func() error {
			for range 50 {
				if err := s.Put(t.Context(), fmt.Sprintf("dir/%d", i), strings.NewReader("x")); err != nil {
					return err
				}
				if err := s.Delete(t.Context(), fmt.Sprintf("dir/%d", i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if err := sweepers.Wait(); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}
