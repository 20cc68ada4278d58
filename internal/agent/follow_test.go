//go:build unix

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// followed is a remote with one tag, myapp:live.
type followed struct {
	remote.Source
	mu    sync.Mutex
	id    image.ID
	err   error
	looks int
}

func (f *followed) Resolve(context.Context, image.Reference) (image.ID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.id, f.err
}

func (f *followed) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

// following is an agent that follows myapp:live, and can be started again.
type following struct {
	t      *testing.T
	remote followed
	puller fakePuller
	o      Options
	logged lockedBuffer
	agent  *Agent
	stop   func()
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func newFollowing(t *testing.T, command string) *following {
	f := &following{t: t}
	f.puller.names = map[string]image.ID{}
	ref, err := image.ParseReference("myapp:live")
	if err != nil {
		t.Fatal(err)
	}
	f.o = Options{
		Pull: f.puller.pull, MaxPulls: 1, MaxWaiting: 10, Log: slog.New(slog.NewTextHandler(&f.logged, nil)),
		Open: func(context.Context, string) (remote.Source, func() error, error) {
			return &f.remote, func() error { return nil }, nil
		},
		Follows: []Follow{{Remote: "/srv/images", Key: "file\n/srv/images", Image: ref}},
		State:   State{Dir: filepath.Join(t.TempDir(), "state")},
		Times:   Times{Interval: 2 * time.Millisecond, Most: 10 * time.Millisecond},
		Command: Command{Limit: patience, Grace: patience},
	}
	if command != "" {
		f.o.Command.Args = []string{"sh", "-c", command}
	}
	t.Cleanup(func() {
		if f.stop != nil {
			f.stop()
		}
	})
	return f
}

// move lets the tag name the image made of a text. Whoever looks at the tag and then pulls does not get what it named before.
func (f *following) move(to string) image.ID {
	id := image.DigestOf([]byte(to))
	f.remote.mu.Lock()
	defer f.remote.mu.Unlock()
	f.puller.mu.Lock()
	defer f.puller.mu.Unlock()
	f.remote.id, f.puller.names["myapp:live"] = id, id
	return id
}

func (f *following) start() {
	f.agent = New(f.o)
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.agent.Follow(ctx)
	}()
	f.stop = func() {
		cancel()
		<-done
		f.agent.Close()
		f.stop = nil
	}
}

// handled waits until all was done for an image.
func (f *following) handled(id image.ID) {
	f.t.Helper()
	until(f.t, "all is done for "+id.Short(), func() bool {
		s := f.agent.status().Follows[0]
		return s.Handled == id.String() && s.Pulled == s.Handled && s.Named == s.Handled && s.Error == ""
	})
}

// looked waits until the tag was looked at some more times.
func (f *following) looked() {
	f.t.Helper()
	n := f.remote.count()
	until(f.t, "it is looked at", func() bool { return f.remote.count() > n+5 })
}

// TestFollow: each move is pulled once, and the command run once for it, also over restarts.
func TestFollow(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	f := newFollowing(t, `echo "$DOGESTRY_IMAGE $DOGESTRY_IMAGE_ID $DOGESTRY_REMOTE" >>`+out)
	ran := func(want ...image.ID) {
		t.Helper()
		content, err := os.ReadFile(out)
		var lines []string
		for _, id := range want {
			lines = append(lines, fmt.Sprintf("myapp:live %s /srv/images\n", id))
		}
		if err != nil || string(content) != strings.Join(lines, "") {
			t.Errorf("the command was run so: %s%v, want %s", content, err, lines)
		}
	}
	one := f.move("one")
	f.start()
	f.handled(one)
	f.looked()
	ran(one)
	two := f.move("two")
	f.handled(two)
	ran(one, two)
	f.looked()
	if f.puller.called() != 2 {
		t.Errorf("%d pulls for two images", f.puller.called())
	}
	f.stop()
	// Started again, it makes sure that the engine has the image, and runs nothing.
	f.start()
	f.handled(two)
	f.looked()
	ran(one, two)
	if f.puller.called() != 3 {
		t.Errorf("%d pulls after a restart", f.puller.called())
	}
	f.stop()
	three := f.move("three") // meanwhile
	f.start()
	f.handled(three)
	ran(one, two, three)
	var metrics bytes.Buffer
	f.agent.WriteMetrics(&metrics)
	for _, want := range []string{
		`dogestry_agent_follows 1`, `dogestry_agent_follow_moves_total{remote="/srv/images",image="myapp:live"} 1`, `dogestry_agent_pulls_total{result="done"} 1`,
		`dogestry_agent_follow_failures_total{remote="/srv/images",image="myapp:live",what="pull"} 0`,
	} {
		if !strings.Contains(metrics.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, metrics.String())
		}
	}
	f.stop()
	files, err := os.ReadDir(f.o.State.Dir)
	if err != nil || len(files) != 1 {
		t.Errorf("its state is %v, %v", files, err)
	}
	// An agent of another engine begins anew.
	f.o.State.Engine = "tcp://other"
	f.start()
	f.handled(three)
	ran(one, two, three, three)
}

// TestFollowFailures: what fails is tried again, told, and told once.
func TestFollowFailures(t *testing.T) {
	dir := t.TempDir()
	ok := filepath.Join(dir, "ok")
	f := newFollowing(t, `echo x >>`+dir+`/ran; test -e `+ok+` || { echo not yet; exit 3; }`)
	f.remote.err = fault.New(fault.NotFound, "no such tag").Advise("push it")
	f.start()
	failed := func(what, says string) {
		t.Helper()
		until(t, what+" fails, several times", func() bool {
			f.agent.stats.mu.Lock()
			defer f.agent.stats.mu.Unlock()
			return f.agent.follows[0].figures.failures[what] > 3
		})
		if s := f.agent.status().Follows[0]; !strings.Contains(s.Error, says) {
			t.Errorf("%s: %s", what, s.Error)
		}
		if n := strings.Count(f.logged.said(), "what="+what); n != 1 {
			t.Errorf("%s was told %d times", what, n)
		}
	}
	failed("look", "no such tag")
	one := f.move("one")
	f.puller.mu.Lock()
	f.puller.err = fault.New(fault.Refused, "not signed")
	f.puller.mu.Unlock()
	f.remote.mu.Lock()
	f.remote.err = nil
	f.remote.mu.Unlock()
	failed("pull", "not signed")
	if s := f.agent.status().Follows[0]; s.Pulled != "" {
		t.Errorf("it is said to have %s", s.Pulled)
	}
	f.puller.mu.Lock()
	f.puller.err = nil
	f.puller.mu.Unlock()
	failed("command", "not yet")
	// It may be that it has to run again after a restart.
	f.stop()
	f.start()
	until(t, "it has failed again", func() bool { return f.agent.status().Follows[0].Error != "" })
	if err := os.WriteFile(ok, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.handled(one)
	before, _ := os.ReadFile(filepath.Join(dir, "ran"))
	f.looked()
	if after, err := os.ReadFile(filepath.Join(dir, "ran")); err != nil || len(after) != len(before) {
		t.Errorf("it was run again: %v", err)
	}
}

// TestFollowBack: where the command failed for what a tag has left again, it is run for what
// it names now, though that was handled before; also after a restart.
func TestFollowBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir := t.TempDir()
		f := newFollowing(t, `echo ran >>`+dir+`/ran; test ! -e `+dir+`/broken`)
		ran := func() int {
			content, _ := os.ReadFile(filepath.Join(dir, "ran"))
			return strings.Count(string(content), "ran")
		}
		first := f.move("first")
		f.start()
		f.handled(first)
		if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f.move("second")
		until(t, "the command fails", func() bool { return f.agent.status().Follows[0].Error != "" })
		if restart {
			f.stop()
		}
		before := ran()
		if err := os.Remove(filepath.Join(dir, "broken")); err != nil {
			t.Fatal(err)
		}
		f.move("first")
		if restart {
			f.start()
		}
		f.handled(first)
		until(t, "the command is run again", func() bool { return ran() > before })
		f.stop()
	}
}

// TestFollowState: a state that makes no sense, or cannot be written, is told, and stops nothing.
func TestFollowState(t *testing.T) {
	f := newFollowing(t, "")
	if err := os.MkdirAll(f.o.State.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := f.o.State.file(f.o.Follows[0])
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := f.move("one")
	f.start()
	f.handled(one)
	if !strings.Contains(f.logged.said(), "is not known") {
		t.Error("a damaged state is not told")
	}
	f.stop()
	if d, err := f.o.State.read(f.o.Follows[0]); err != nil || d.Handled != one {
		t.Errorf("then it is %v, %v", d, err)
	}
	// Where a directory is expected, there is a file.
	f.o.State.Dir = filepath.Join(file, "x")
	f.start()
	until(t, "it is told", func() bool { return strings.Contains(f.agent.status().Follows[0].Error, "cannot remember") })
	two := f.move("two")
	until(t, "it goes on", func() bool { return f.agent.status().Follows[0].Handled == two.String() })
}

func TestBackoff(t *testing.T) {
	f := &follower{o: Options{Times: Times{Interval: time.Second, Most: time.Minute}}}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 1000: time.Minute} {
		if got := f.backoff(n); got != want {
			t.Errorf("after %d failures: %s", n, got)
		}
	}
	f.o.Times.Interval = time.Hour
	if got := f.backoff(5); got != time.Hour {
		t.Errorf("%s", got)
	}
	for range 100 {
		if p := f.pause(); p < 54*time.Minute || p > 66*time.Minute {
			t.Errorf("%s", p)
		}
	}
}
