package s3test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reply is what a plain client sees of an answer.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of the body
}

// client makes signed requests, with connections of its own.
type client struct {
	*testing.T
	Account
	endpoint string
	http     *http.Client
}

func newClient(t *testing.T, a Account, endpoint string) *client {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t, a, endpoint, &http.Client{
		Transport:     transport,
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// try makes a request; headers are pairs.
func (c *client) try(method, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(c.Context(), method, c.endpoint+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if c.AccessKey != "" {
		c.Sign(req, []byte(body))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b), err}, nil
}

// do makes a request that must be answered with that status.
func (c *client) do(status int, method, path, body string, headers ...string) reply {
	c.Helper()
	r, err := c.try(method, path, body, headers...)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	if r.err != nil {
		c.Fatalf("%s %s: read the answer: %v", method, path, r.err)
	}
	if r.status != status {
		c.Fatalf("%s %s: %d, want %d: %s", method, path, r.status, status, r.body)
	}
	return r
}

// holds fails the test unless path has that content.
func (c *client) holds(path, want string) {
	c.Helper()
	if got := c.do(200, "GET", path, "").body; got != want {
		c.Errorf("%s holds %d bytes, want %d", path, len(got), len(want))
	}
}

// createUpload begins a multipart upload.
func (c *client) createUpload(path string) (id string) {
	c.Helper()
	var answer struct{ UploadId string }
	if err := xml.Unmarshal([]byte(c.do(200, "POST", path+"?uploads=", "").body), &answer); err != nil || answer.UploadId == "" {
		c.Fatalf("no upload ID: %v", err)
	}
	return answer.UploadId
}

func TestKeysSurvive(t *testing.T) {
	s := For(t)
	bucket := s.Bucket(t)
	c := newClient(t, s.Account, s.Endpoint)
	for _, key := range []string{"%253A", "a%20b", "a+b", "~", "a%2Bb", "a:b", "sha256%3Aab/c"} {
		path := "/" + bucket + "/" + key
		c.do(200, "PUT", path, "body of "+key)
		c.holds(path, "body of "+key)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(bucket), "%3A")); err != nil {
		t.Errorf("where is the file of an object? %v", err)
	}
}

func TestKillKeepsWhatWasWritten(t *testing.T) {
	s := StartFor(t, Options{})
	bucket := s.Bucket(t)
	c := newClient(t, s.Account, s.Endpoint)
	c.do(200, "PUT", "/"+bucket+"/k", "before the kill", "X-Amz-Meta-Note", "kept")
	account := s.User(t)
	s.SetPolicy(t, bucket, allow(bucket, account, "s3:GetObject"))
	s.Kill()
	s.Kill() // does nothing
	if r, err := c.try("GET", "/"+bucket+"/k", ""); err == nil {
		t.Fatalf("a killed server answers %d", r.status)
	}
	for range 2 { // once from killed, once from running
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.holds("/"+bucket+"/k", "before the kill")
		newClient(t, account, s.Endpoint).holds("/"+bucket+"/k", "before the kill")
	}
	if note := c.do(200, "HEAD", "/"+bucket+"/k", "").header.Get("X-Amz-Meta-Note"); note != "kept" {
		t.Errorf("metadata after the kill: %q", note)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("the folder after Stop: %v", err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a stopped server was restarted")
	}
}

func TestTwoServers(t *testing.T) {
	a, b := For(t), StartFor(t, Options{Parent: t.TempDir()})
	if For(t) != a {
		t.Error("the shared server is not shared")
	}
	if a.Endpoint == b.Endpoint {
		t.Fatal("two servers at one address")
	}
	bucket := a.Bucket(t)
	newClient(t, a.Account, a.Endpoint).do(200, "PUT", "/"+bucket+"/k", "")
	newClient(t, b.Account, b.Endpoint).do(404, "GET", "/"+bucket+"/k", "")
	newClient(t, a.Account, b.Endpoint).do(403, "GET", "/"+bucket+"/k", "") // another secret
}

func TestUploads(t *testing.T) {
	s := For(t)
	bucket := s.Bucket(t)
	c := newClient(t, s.Account, s.Endpoint)
	path := "/" + bucket + "/images/layer"
	if open := s.Uploads(t, bucket); len(open) != 0 {
		t.Errorf("open uploads of an empty bucket: %q", open)
	}
	c.do(200, "PUT", path, "an object is no upload")
	first, second := c.createUpload(path), c.createUpload(path)
	etag := c.do(200, "PUT", path+"?partNumber=1&uploadId="+first, "part").header.Get("Etag")
	if open := s.Uploads(t, bucket); len(open) != 2 || !strings.HasSuffix(open[0], first) && !strings.HasSuffix(open[1], first) {
		t.Errorf("open uploads: %q, want %s and %s", open, first, second)
	}
	c.do(204, "DELETE", path+"?uploadId="+second, "")
	c.do(200, "POST", path+"?uploadId="+first, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+etag+
		"</ETag></Part></CompleteMultipartUpload>")
	if open := s.Uploads(t, bucket); len(open) != 0 {
		t.Errorf("open uploads in the end: %q", open)
	}
	c.holds(path, "part")
	// What a part that came too late leaves.
	if err := os.MkdirAll(filepath.Join(s.Dir(bucket), ".sgwtmp", "multipart", strings.Repeat("a", 64), "late"), 0o700); err != nil {
		t.Fatal(err)
	}
	if open, listed := s.Uploads(t, bucket), c.do(200, "GET", "/"+bucket+"?uploads=", "").body; len(open) != 0 || strings.Contains(listed, "late") {
		t.Errorf("a part without an upload: %q, the server lists %s", open, listed)
	}
}

// allow is a policy.
func allow(bucket string, a Account, actions ...string) string {
	return fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": [%q]},
		"Action": ["%s"], "Resource": ["arn:aws:s3:::%s", "arn:aws:s3:::%s/*"]}]}`,
		a.AccessKey, strings.Join(actions, `", "`), bucket, bucket)
}

func TestPolicies(t *testing.T) {
	s := For(t)
	bucket, user := s.Bucket(t), s.User(t)
	root, other := newClient(t, s.Account, s.Endpoint), newClient(t, user, s.Endpoint)
	anonymous := newClient(t, Account{}, s.Endpoint)
	path, list := "/"+bucket+"/k", "/"+bucket+"?list-type=2"
	root.do(200, "PUT", path, "secret")

	expect := func(c *client, get, list_, put int) {
		t.Helper()
		c.do(get, "GET", path, "")
		c.do(list_, "GET", list, "")
		c.do(put, "PUT", path, "secret")
	}
	expect(other, 403, 403, 403)
	s.SetPolicy(t, bucket, allow(bucket, user, "s3:GetObject", "s3:ListBucket"))
	expect(other, 200, 200, 403)
	expect(anonymous, 403, 403, 403)
	s.SetPolicy(t, bucket, allow(bucket, user, "s3:GetObject", "s3:PutObject"))
	expect(other, 200, 403, 200)
	other.do(404, "GET", path+"/none", "") // S3 says 403
	s.SetPolicy(t, bucket, strings.Replace(allow(bucket, user, "s3:GetObject", "s3:ListBucket"), `{"AWS": ["`+user.AccessKey+`"]}`, `"*"`, 1))
	expect(anonymous, 200, 200, 403)
	s.SetPolicy(t, bucket, "")
	expect(other, 403, 403, 403)
	expect(root, 200, 200, 200)
	if err := s.PutPolicy(t.Context(), bucket, "{}"); err == nil {
		t.Error("a policy without statements was taken")
	}
}

func TestEnvironment(t *testing.T) {
	env := append(Clean([]string{"PATH=/bin", "AWS_PROFILE=mine", "AWS_SESSION_TOKEN=t"}), Account{"a", "s"}.Environment()...)
	got := strings.Join(env, " ")
	if !strings.HasPrefix(got, "PATH=/bin AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=s ") || strings.Contains(got, "mine") || strings.Contains(got, "TOKEN") {
		t.Errorf("environment: %s", got)
	}
}

func TestMissingBinary(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PATH", "")
	if _, err := Start(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "script/bootstrap test") {
		t.Errorf("start without a server: %v", err)
	}
}

func TestStartSaysWhatTheServerSaid(t *testing.T) {
	parent := t.TempDir()
	_, err := Start(t.Context(), Options{Parent: parent, Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("start with a wrong flag: %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
