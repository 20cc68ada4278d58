package s3test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Account is somebody whom a server knows.
type Account struct {
	AccessKey, SecretKey string
}

// Environment returns the variables by which a child process is this account, and which keep from it what the machine has
// of profiles, credentials and metadata services. They go after [Clean](os.Environ()), or into an empty environment.
func (a Account) Environment() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + a.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + a.SecretKey,
		"AWS_REGION=" + Region,
		"AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Clean returns env without what concerns AWS, such as the machine's AWS_PROFILE and AWS_SESSION_TOKEN.
func Clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, "AWS_") })
}

// emptyHash is the sha256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Sign signs a request of this account as it is now (AWS Signature Version 4): method, host, path, query, and the headers
// If-*, Range, Content-* and X-Amz-*. body is what it will send, or nil for any body.
func (a Account) Sign(req *http.Request, body []byte) {
	hash := "UNSIGNED-PAYLOAD"
	switch {
	case body != nil:
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:])
	case req.Body == nil || req.Body == http.NoBody:
		hash = emptyHash
	}
	req.Header.Set("X-Amz-Content-Sha256", hash)
	req.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	signed := []string{"host"}
	for name := range req.Header {
		name = strings.ToLower(name)
		if name == "range" || strings.HasPrefix(name, "if-") || strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "x-amz-") {
			signed = append(signed, name)
		}
	}
	a.sign(req, Region, signed)
}

// sign sets the Authorization header. The request has its X-Amz-Date and X-Amz-Content-Sha256.
func (a Account) sign(req *http.Request, region string, signed []string) {
	slices.Sort(signed)
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(req.Header.Values(name), ",")
		switch {
		case name == "host":
			value = host
		case name == "content-length" && value == "": // Go keeps it elsewhere
			value = fmt.Sprint(req.ContentLength)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	names := strings.Join(signed, ";")
	// Both as AWS escapes them, however they are sent.
	path := strings.ReplaceAll(escape(req.URL.Path), "%2F", "/")
	query := strings.ReplaceAll(req.URL.Query().Encode(), "+", "%20")
	canonical := strings.Join([]string{
		req.Method, cmp.Or(path, "/"), query, headers.String(), names, req.Header.Get("X-Amz-Content-Sha256"),
	}, "\n")
	date := req.Header.Get("X-Amz-Date")
	scope := date[:min(8, len(date))] + "/" + region + "/s3/aws4_request"
	sum := sha256.Sum256([]byte(canonical))
	toSign := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + a.SecretKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		a.AccessKey, scope, names, mac(key, toSign)))
}

// escape leaves letters, digits, and -_.~ as they are.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// resign signs a request again that had a valid signature before headers were taken from it. It does nothing to one that
// has no signature, or one of an account that is not known. The chunks of a body can be signed by themselves, each
// signature with the one before; such a body is not signed again, and its server refuses it.
func (s *Server) resign(req *http.Request) {
	fields := map[string]string{}
	algorithm, rest, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	credential := strings.Split(fields["Credential"], "/")
	if algorithm != "AWS4-HMAC-SHA256" || len(credential) != 5 {
		return
	}
	s.mu.Lock()
	account, ok := s.accounts[credential[0]]
	s.mu.Unlock()
	if !ok {
		return
	}
	signed := slices.DeleteFunc(strings.Split(fields["SignedHeaders"], ";"), func(name string) bool {
		return name != "host" && name != "content-length" && len(req.Header.Values(name)) == 0
	})
	account.sign(req, credential[2], signed)
}

// NewAccount makes a plain user, who may do nothing until a policy says otherwise.
func (s *Server) NewAccount(ctx context.Context) (Account, error) {
	a := Account{AccessKey: "user" + strings.ToLower(rand.Text()), SecretKey: rand.Text()}
	body := fmt.Sprintf("<Account><Access>%s</Access><Secret>%s</Secret><Role>user</Role></Account>", a.AccessKey, a.SecretKey)
	if err := s.call(ctx, http.MethodPatch, "/create-user", nil, []byte(body)); err != nil {
		return Account{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[a.AccessKey] = a
	return a, nil
}

// PutPolicy replaces the policy of a bucket. "" removes it. It is in force with the next request.
//
// Measured with versitygw 1.8.0: it honours Allow and Deny (which wins), Action with s3:*, Resource with * in it, and the
// condition s3:prefix. What is not allowed is denied, but for the owner. A Principal is "*", which includes requests
// without a signature, or {"AWS": ["access key"]}: it must exist, and an ARN is refused, as are unknown actions and the
// condition s3:if-none-match. It differs from S3 in this:
//
//   - Who may read but not list gets 404 for a key that is not there; S3 says 403.
//   - If-Match needs s3:PutObject alone; S3 wants s3:GetObject as well.
//   - To abort an upload needs s3:AbortMultipartUpload; S3 lets also those abort who began it.
func (s *Server) PutPolicy(ctx context.Context, bucket, policy string) error {
	if policy == "" {
		return s.call(ctx, http.MethodDelete, "/"+bucket, url.Values{"policy": {""}}, nil)
	}
	return s.call(ctx, http.MethodPut, "/"+bucket, url.Values{"policy": {""}}, []byte(policy))
}

// call makes one request as the owner.
func (s *Server) call(ctx context.Context, method, path string, query url.Values, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.Endpoint+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	s.Sign(req, body)
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return err
}
