package ssh

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
)

// writerEnv names the remote into which this test binary, run as a child, writes until it is killed.
const writerEnv = "DOGESTRY_TEST_SSH_WRITER"

func TestMain(m *testing.M) {
	if url := os.Getenv(writerEnv); url != "" {
		writeUntilKilled(url)
	}
	goleak.VerifyTestMain(m)
}

func writeUntilKilled(url string) {
	o, err := Parse(url)
	if err != nil {
		panic(err)
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		panic(err)
	}
	panic(s.Put(context.Background(), "dir/key", io.MultiReader(bytes.NewReader(make([]byte, 5<<20)), acting(func() {
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	}))))
}

// TestKilled: nothing of a killed process stays but its file, and that goes with a sweep.
func TestKilled(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(program)
	child.Env = append(os.Environ(), writerEnv+"="+server.URL(dir))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	before := server.Open()
	_ = child.Process.Kill()
	_ = child.Wait()
	if err != nil || before == 0 {
		t.Fatal(err, before)
	}
	for deadline := time.Now().Add(time.Minute); server.Open() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its connection stays")
		}
	}
	s := openURL(t, server.URL(dir))
	left := leftovers(t, dir)
	if len(left) != 1 || !strings.HasSuffix(left[0], temporarySuffix) {
		t.Fatalf("left over: %q", left)
	}
	put(t, s, "dir/other", "x")
	if n, err := s.Sweep(t.Context(), "dir/", 0); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	if got := content(t, s, "dir/other"); got != "x" {
		t.Errorf("%q", got)
	}
}
