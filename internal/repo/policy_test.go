package repo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// policed is a bucket with an image of a layer of two parts, and somebody who
// may use it as a policy of docs/s3.md says.
type policed struct {
	*s3test.Server
	policy s3test.Policy
	bucket string
	user   s3test.Account
	img    remotetest.Image

	mu   sync.Mutex
	told string
}

func newPoliced(t *testing.T, policy string) *policed {
	t.Helper()
	server := s3test.For(t)
	p := &policed{Server: server, bucket: server.Bucket(t), user: server.User(t)}
	var err error
	if p.policy, err = s3test.ReadPolicy(policy); err != nil {
		t.Fatal(err)
	}
	p.img = remotetest.NewImage(t, "one", remotetest.FileLayer(t, "base", "base"), remotetest.FileLayer(t, "large", string(remotetest.Noise(policy, 9<<20))))
	return p
}

// open opens the bucket as an account that does not try again.
func (p *policed) open(t *testing.T, endpoint string, a s3test.Account) *s3.Store {
	t.Helper()
	for _, v := range a.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	o, err := s3.Parse("s3://" + p.bucket + "/images?endpoint=" + url.QueryEscape(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	o.Attempts, o.MaxBackoff = 1, time.Millisecond
	o.Notify = func(line string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told += line + "\n"
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// apply sets the policy, less one of its actions; a negative number leaves all.
func (p *policed) apply(t *testing.T, without int) {
	t.Helper()
	p.SetPolicy(t, p.bucket, p.policy.For(p.bucket, p.user, without))
}

// pull does what list, inspect and pull do.
func (p *policed) pull(s storage.Store, tag string) error {
	ctx := context.Background()
	r, ref, err := p.named(s, tag)
	if err != nil {
		return err
	}
	for _, err := range r.References(ctx, "") {
		if err != nil {
			return err
		}
	}
	_, err = remotetest.Pull(ctx, r, ref)
	return err
}

// push does what push and push --if-absent do.
func (p *policed) push(s storage.Store, tag string) error {
	ctx := context.Background()
	r, ref, err := p.named(s, tag)
	if err != nil {
		return err
	}
	if _, err := remotetest.Push(ctx, r, ref, p.img); err != nil {
		return err
	}
	ref.Tag += "-new"
	if err := r.MayCreate(ctx, ref, p.img.ID, true); err != nil {
		return err
	}
	return r.CreateTag(ctx, ref, p.img.ID)
}

func (p *policed) named(s storage.Store, tag string) (*repo.Repo, image.Reference, error) {
	ref, err := image.ParseReference(tag)
	if err != nil {
		return nil, ref, err
	}
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: codec.None})
	return r, ref, err
}

// refusedFor fails the test unless err is a refusal whose advice names action.
func refusedFor(t *testing.T, err error, action string) {
	t.Helper()
	if fault.KindOf(err) != fault.Refused || !strings.Contains(fault.AdviceOf(err), action) {
		t.Errorf("got %v (%s), want a refusal that names %s", err, fault.AdviceOf(err), action)
	}
}

func TestPullPolicy(t *testing.T) {
	p := newPoliced(t, "pull")
	owner := p.open(t, p.Endpoint, p.Account)
	if err := p.push(owner, "app:1"); err != nil {
		t.Fatal(err)
	}
	s := p.open(t, p.Endpoint, p.user)
	refusedFor(t, p.pull(s, "app:1"), "s3:")
	p.apply(t, -1)
	if err := p.pull(s, "app:1"); err != nil {
		t.Error(err)
	}
	refusedFor(t, p.push(s, "app:2"), "s3:PutObject")
	for n, action := range p.policy.Actions() {
		p.apply(t, n)
		refusedFor(t, p.pull(s, "app:1"), action)
	}
}

func TestPushPolicy(t *testing.T) {
	p := newPoliced(t, "push")
	proxy := p.ProxyFor(t)
	s := p.open(t, proxy.Endpoint, p.user)
	owner := p.open(t, p.Endpoint, p.Account)
	p.apply(t, -1)
	if err := p.push(s, "app:1"); err != nil {
		t.Fatal(err)
	}
	if err := p.pull(s, "app:1"); err != nil {
		t.Error(err)
	}
	for info, err := range owner.List(t.Context(), "") {
		if err != nil || strings.HasPrefix(info.Key, "run/") {
			t.Errorf("left over: %s, %v", info.Key, err)
		}
		refusedFor(t, s.Delete(t.Context(), info.Key), "s3:DeleteObject")
	}
	broken := func() error {
		proxy.Reset()
		body := io.MultiReader(strings.NewReader(strings.Repeat("x", 17<<20)), arrived{t, proxy, 2}, iotest.ErrReader(io.ErrNoProgress))
		return s.Put(t.Context(), "images/x/layer.tar", body)
	}
	if err := broken(); !errors.Is(err, io.ErrNoProgress) || len(p.Uploads(t, p.bucket)) > 0 || p.told != "" {
		t.Errorf("a broken upload: %v, left over %q, told %q", err, p.Uploads(t, p.bucket), p.told)
	}
	for n, action := range p.policy.Actions() {
		p.apply(t, n)
		for info, err := range owner.List(t.Context(), "") { // an empty bucket again
			if err != nil || owner.Delete(t.Context(), info.Key) != nil {
				t.Fatal(err)
			}
		}
		if action != "s3:AbortMultipartUpload" {
			refusedFor(t, p.push(p.open(t, p.Endpoint, p.user), "app:1"), action) // a new one probes again
			continue
		}
		if err := broken(); !errors.Is(err, io.ErrNoProgress) || len(p.Uploads(t, p.bucket)) != 1 || !strings.Contains(p.told, "unfinished upload") {
			t.Errorf("a broken upload without %s: %v, left over %q, told %q", action, err, p.Uploads(t, p.bucket), p.told)
		}
	}
}

// arrived is a body without bytes that ends when the server has so many parts: one that it still writes when its request is
// cut off can bring back an upload that was given up.
type arrived struct {
	t     *testing.T
	proxy *s3test.Proxy
	parts int
}

func (a arrived) Read([]byte) (int, error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n := 0
		for _, r := range a.proxy.Requests() {
			if r.Op == "UploadPart" && r.Status == http.StatusOK {
				n++
			}
		}
		if n == a.parts {
			return 0, io.EOF
		}
	}
	a.t.Errorf("%d parts do not arrive", a.parts)
	return 0, io.EOF
}

// TestCollectPolicy is about whoever frees what nothing needs, and nothing else.
func TestCollectPolicy(t *testing.T) {
	p := newPoliced(t, "gc")
	owner := p.open(t, p.Endpoint, p.Account)
	if err := p.push(owner, "app:1"); err != nil {
		t.Fatal(err)
	}
	garbage := func() {
		pushTo(t, owner, "app:gone", image3(t, "gone"))
		remove(t, owner, "repositories/app/gone")
		time.Sleep(1100 * time.Millisecond) // S3 tells times by the second
	}
	s := p.open(t, p.Endpoint, p.user)
	gc := func() (int, error) {
		r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote"})
		if err != nil {
			return 0, err
		}
		c, err := r.Collect(t.Context(), repo.CollectOptions{Grace: soon})
		return c.Freed.Count, err
	}
	for n, action := range p.policy.Actions() {
		remove(t, owner, "run/sweep") // the one before may have been left to die
		garbage()
		p.apply(t, n)
		_, err := gc()
		refusedFor(t, err, action)
	}
	p.apply(t, -1)
	remove(t, owner, "run/sweep")
	garbage()
	if freed, err := gc(); err != nil || freed != 3 {
		t.Errorf("%d entries freed, error %v", freed, err)
	}
	if err := s.Delete(t.Context(), "repositories/app/1"); err == nil {
		t.Error("who frees may remove tags")
	}
	if err := p.pull(owner, "app:1"); err != nil {
		t.Error(err)
	}
}

// TestCleanPolicy is about whoever may remove images and sweep, and need not read.
func TestCleanPolicy(t *testing.T) {
	p := newPoliced(t, "clean")
	owner := p.open(t, p.Endpoint, p.Account)
	if err := p.push(owner, "app:1"); err != nil {
		t.Fatal(err)
	}
	proxy := p.ProxyFor(t)
	killed := p.open(t, proxy.Endpoint, p.Account)
	proxy.SetFault(s3test.Always(s3test.Is("UploadPart", "AbortMultipartUpload"), s3test.Drop())) // as if the process were dead
	begin := func() {
		if err := killed.Put(t.Context(), "images/x/layer.tar", strings.NewReader(strings.Repeat("x", 9<<20))); err == nil {
			t.Fatal("no error of an upload without parts")
		}
	}
	s := p.open(t, p.Endpoint, p.user)
	clean := func() error {
		if _, err := s.Sweep(t.Context(), "", 0); err != nil {
			return err
		}
		for info, err := range s.List(t.Context(), "") {
			if err != nil {
				return err
			}
			if err := s.Delete(t.Context(), info.Key); err != nil {
				return err
			}
		}
		return nil
	}
	begin()
	for n, action := range p.policy.Actions() {
		p.apply(t, n)
		refusedFor(t, clean(), action)
		if len(p.Uploads(t, p.bucket)) == 0 {
			begin()
		}
	}
	p.apply(t, -1)
	if _, err := s.Get(t.Context(), "VERSION", 0, -1); err == nil {
		t.Error("who cleans may read")
	}
	if err := clean(); err != nil {
		t.Error(err)
	}
	for info := range owner.List(t.Context(), "") {
		t.Errorf("left over: %s", info.Key)
	}
	if left := p.Uploads(t, p.bucket); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestUntagPolicy does what rm and prune do.
func TestUntagPolicy(t *testing.T) {
	p := newPoliced(t, "untag")
	owner := p.open(t, p.Endpoint, p.Account)
	if err := p.push(owner, "app:1"); err != nil {
		t.Fatal(err)
	}
	s := p.open(t, p.Endpoint, p.user)
	untag := func() error {
		r, ref, err := p.named(s, "app:1")
		if err != nil {
			return err
		}
		for _, err := range r.References(t.Context(), "app") {
			if err != nil {
				return err
			}
		}
		return r.Untag(t.Context(), ref, p.img.ID)
	}
	for n, action := range p.policy.Actions() {
		p.apply(t, n)
		refusedFor(t, untag(), action)
	}
	p.apply(t, -1)
	if err := untag(); err != nil {
		t.Error(err)
	}
	if _, err := owner.Stat(t.Context(), "repositories/app/1"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the tag is still there: %v", err)
	}
	for info, err := range owner.List(t.Context(), "images/") { // nothing else may go
		if err != nil {
			t.Fatal(err)
		}
		refusedFor(t, s.Delete(t.Context(), info.Key), "s3:DeleteObject")
	}
	refusedFor(t, p.push(s, "app:2"), "s3:PutObject")
}

// TestHiddenAbsence answers as S3 does to who may not list: what is not there is
// refused. It is no empty remote then, and the words say which right is missing.
func TestHiddenAbsence(t *testing.T) {
	p := newPoliced(t, "push")
	proxy := p.ProxyFor(t)
	proxy.SetFault(func(r *http.Request) s3test.Fault {
		_, err := os.Stat(filepath.Join(filepath.Dir(p.Dir(p.bucket)), filepath.FromSlash(r.URL.Path)))
		if s3test.Is("GetObject", "HeadObject")(r) && errors.Is(err, os.ErrNotExist) {
			return s3test.Answer(http.StatusForbidden, "AccessDenied")
		}
		return s3test.Fault{}
	})
	s := p.open(t, p.Endpoint, p.Account)
	hidden := p.open(t, proxy.Endpoint, p.Account)
	_, err := repo.Open(t.Context(), hidden, repo.Options{Name: "the-remote"})
	refusedFor(t, err, "s3:ListBucket")
	put(t, s, "VERSION", []byte("2.0"))
	refusedFor(t, p.push(hidden, "app:1"), "s3:ListBucket")
}
