package repo_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

func TestRemoteS3(t *testing.T) {
	server := s3test.For(t)
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true, Exclusive: true,
		Large: 9 << 20, // more than a part
		Open: func(t *testing.T) remotetest.Target {
			b := server.Bucket(t)
			return target(t, openBucket(t, server, server.Endpoint, b), openBucket(t, server, server.Endpoint, b), codec.None)
		},
		Lasting: []goleak.Option{ // idle connections
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		},
	})
}

// openBucket opens a bucket by a client that does not try again.
func openBucket(t testing.TB, server *s3test.Server, endpoint, bucket string) *s3.Store {
	t.Helper()
	return openBucketWith(t, server, endpoint, bucket, func(*s3.Options) {})
}

func openBucketWith(t testing.TB, server *s3test.Server, endpoint, bucket string, change func(*s3.Options)) *s3.Store {
	t.Helper()
	for _, v := range server.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	o, err := s3.Parse("s3://" + bucket + "/images?part-size=5MiB&endpoint=" + url.QueryEscape(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	o.Attempts, o.MaxBackoff = 1, time.Millisecond
	change(&o)
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// every is for `make crash` and `make test-transports`, which have time.
var every = flag.Bool("every", false, "TestCrashS3 kills every request, TestSchedules plays every schedule of two changes, TestRemoteSSH runs the whole suite, TestRemoteRsync runs")

// TestCrashS3 kills a push at every eighth request, with -every at each, before and
// after the server has done it: the process is dead from there on. Layers of several parts are among
// what it pushes. What is left is looked at by the rules of docs/format.md, and
// a rerun completes it.
func TestCrashS3(t *testing.T) {
	server := s3test.For(t)
	noise := make([]byte, 11<<20) // three parts of the smallest size
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	base := remotetest.FileLayer(t, "base", "base")
	large := remotetest.FileLayer(t, "large", string(noise))
	one := remotetest.NewImage(t, "one", base, large, remotetest.FileLayer(t, "one", "one"))
	two := remotetest.NewImage(t, "two", base, large, remotetest.FileLayer(t, "two", "two"))
	sc := scenario{name: "two images", pushes: []push{{"app:1", one}, {"team/app:2", two}}}

	try := func(rule s3test.Rule) (bucket string, requests int, failure error) {
		bucket = server.Bucket(t)
		proxy, err := s3test.NewProxy(server)
		if err != nil {
			t.Fatal(err)
		}
		defer proxy.Close()
		s := openBucket(t, server, proxy.Endpoint, bucket)
		defer s.Close()
		proxy.Reset()
		proxy.SetFault(rule)
		failure = sc.run(s, codec.None)
		return bucket, proxy.Count(), failure
	}
	_, requests, failure := try(nil)
	if failure != nil {
		t.Fatal(failure)
	}
	killed, violations, uploads := 0, 0, 0
	step := 8
	switch {
	case *every:
		step = 1
	case testing.Short():
		step = 10
	}
	for n := 1; n <= requests; n += step {
		for mode, last := range map[string]s3test.Fault{"before": s3test.Drop(), "after": s3test.Lost()} {
			killed++
			bucket, _, failure := try(dead(n, last))
			if n == requests && failure == nil { // all was done by then but to take the lease away
				failure = errDone
			}
			err := sc.afterwards(t, server, bucket, failure)
			uploads += len(server.Uploads(t, bucket))
			if err == nil {
				err = swept(t, server, bucket)
			}
			if err != nil {
				if violations++; violations < 5 {
					t.Errorf("request %d of %d, %s: after %v: %v", n, requests, mode, failure, err)
				}
			}
		}
	}
	t.Logf("%d requests killed, %d violations, %d unfinished uploads", killed, violations, uploads)
	if killed < 20 || uploads == 0 && !testing.Short() {
		t.Errorf("%d requests killed, %d uploads left: that is no matrix", killed, uploads)
	}
}

// swept makes sure that nothing of unfinished uploads is left behind a sweep.
// The server may still be at work on a request that the dead process has sent.
func swept(t *testing.T, server *s3test.Server, bucket string) error {
	s := openBucket(t, server, server.Endpoint, bucket)
	for attempt := 1; ; attempt++ {
		if _, err := s.Sweep(t.Context(), "", 0); err != nil {
			return err
		}
		left := server.Uploads(t, bucket)
		if len(left) == 0 {
			return nil
		}
		if attempt == 10 {
			return fmt.Errorf("a sweep leaves the uploads %q", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// dead lets request n end with fault, and every later one be dropped.
func dead(n int, fault s3test.Fault) s3test.Rule {
	var count atomic.Int64
	return func(*http.Request) s3test.Fault {
		switch c := count.Add(1); {
		case c < int64(n):
			return s3test.Fault{}
		case c == int64(n):
			return fault
		default:
			return s3test.Drop()
		}
	}
}

// errDone stands for what fails a push that is done: its last request takes its
// lease away, and that nobody waits for.
var errDone = errors.New("all is done but for the lease")

// afterwards returns what is broken in a bucket after a push that ended with
// failure, and after a rerun.
func (sc scenario) afterwards(t *testing.T, server *s3test.Server, bucket string, failure error) error {
	s := openBucket(t, server, server.Endpoint, bucket)
	look := func(done bool) error {
		tags, err := plain{s}.check()
		if err != nil {
			return err
		}
		return sc.expected(tags, done)
	}
	if failure == nil {
		return errors.New("it reports success, and was dead")
	}
	if err := look(false); err != nil {
		return err
	}
	if err := sc.run(s, codec.None); err != nil {
		return fmt.Errorf("the rerun: %w", err)
	}
	if err := look(true); err != nil {
		return fmt.Errorf("after the rerun: %w", err)
	}
	return sc.complete(s)
}

// TestRestartS3 kills the server in the middle of a push, at each of a few
// requests, and starts it again: the push goes on.
func TestRestartS3(t *testing.T) {
	server := s3test.StartFor(t, s3test.Options{})
	base := remotetest.FileLayer(t, "base", "base")
	large := remotetest.FileLayer(t, "large", string(remotetest.Noise("large", 11<<20))) // three parts
	for _, n := range []int64{3, 9, 14, 20} {
		img := remotetest.NewImage(t, fmt.Sprint("image", n), base, large, remotetest.FileLayer(t, "top", fmt.Sprint(n)))
		sc := scenario{name: "restart", pushes: []push{{"app:1", img}}}
		bucket := server.Bucket(t)
		proxy := server.ProxyFor(t)
		var count atomic.Int64
		restarted := make(chan error, 1)
		proxy.SetFault(func(*http.Request) s3test.Fault {
			if count.Add(1) == n {
				server.Kill()
				time.AfterFunc(300*time.Millisecond, func() { restarted <- server.Restart(context.WithoutCancel(t.Context())) })
			}
			return s3test.Fault{}
		})
		told := make(chan string, 100)
		s := openBucketWith(t, server, proxy.Endpoint, bucket, func(o *s3.Options) {
			o.Attempts, o.MaxBackoff = 0, time.Second
			o.Notify = func(line string) { told <- line }
		})
		err := sc.run(s, codec.None)
		select {
		case broken := <-restarted:
			if broken != nil {
				t.Fatal(broken)
			}
		case <-time.After(time.Minute):
			t.Fatalf("only %d requests: the server was not killed, or does not come back", count.Load())
		}
		if err != nil || len(told) == 0 {
			t.Errorf("killed at request %d: %v; %d retries told", n, err, len(told))
		}
		if err := sc.complete(openBucket(t, server, server.Endpoint, bucket)); err != nil {
			t.Errorf("killed at request %d: %v", n, err)
		}
	}
}

// TestMissingAtOnce counts how many entries are asked about at the same time:
// on a store far away one after another would take its time.
func TestMissingAtOnce(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	s := openBucket(t, server, proxy.Endpoint, server.Bucket(t))
	r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote"})
	if err != nil {
		t.Fatal(err)
	}
	var layers [][]byte
	for i := range 40 {
		layers = append(layers, remotetest.FileLayer(t, "file", fmt.Sprint(i)))
	}
	closure := remotetest.NewImage(t, "many", layers...).Closure()
	const want = 20
	var running atomic.Int64
	met, late := make(chan struct{}), time.After(20*time.Second) // before the store takes it for a stall
	meet := sync.OnceFunc(func() { close(met) })
	proxy.SetFault(func(*http.Request) s3test.Fault { // none is answered before they meet
		defer running.Add(-1)
		if running.Add(1) == want {
			meet()
		}
		select {
		case <-met:
		case <-late:
			t.Errorf("fewer than %d questions at once, for %d layers", want, len(layers))
			meet()
		}
		return s3test.Fault{}
	})
	missing, _, err := r.Missing(t.Context(), closure)
	if err != nil || len(missing.Layers) != len(closure.Layers) {
		t.Errorf("%d of %d are missing, %v", len(missing.Layers), len(closure.Layers), err)
	}
}
