package s3_test

import (
	"crypto/sha1" // names a file of the AWS command line
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// Of whom gives credentials in these tests.
const (
	sessionToken = "token-of-the-session"
	askToken     = "token-to-ask-with"
)

// fakeServices is every service of AWS that gives credentials, as far as a client
// sees it: all give those of one account, for an hour.
func fakeServices(t *testing.T, a s3test.Account) *httptest.Server {
	t.Helper()
	expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	asked := func(r *http.Request, header, value string) bool { return r.Header.Get(header) == value }
	mux := http.NewServeMux()
	give := func(w http.ResponseWriter, ok bool, format string, args ...any) {
		if !ok {
			http.Error(w, "who asks?", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, format, args...)
	}
	mux.HandleFunc("GET /container", func(w http.ResponseWriter, r *http.Request) {
		give(w, asked(r, "Authorization", askToken), `{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": %q, "Expiration": %q}`,
			a.AccessKey, a.SecretKey, sessionToken, expires)
	})
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		give(w, true, askToken)
	})
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/", func(w http.ResponseWriter, r *http.Request) {
		ok := asked(r, "X-Aws-Ec2-Metadata-Token", askToken)
		if !strings.HasSuffix(r.URL.Path, "/the-role") {
			give(w, ok, "the-role")
			return
		}
		give(w, ok, `{"Code": "Success", "AccessKeyId": %q, "SecretAccessKey": %q, "Token": %q, "Expiration": %q}`,
			a.AccessKey, a.SecretKey, sessionToken, expires)
	})
	mux.HandleFunc("POST /sts", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		action := r.PostForm.Get("Action")
		ok := r.PostForm.Get("RoleArn") == "arn:aws:iam::1:role/images" &&
			(action == "AssumeRole" && strings.Contains(r.Header.Get("Authorization"), "Credential=BASE/") ||
				action == "AssumeRoleWithWebIdentity" && r.PostForm.Get("WebIdentityToken") == askToken)
		give(w, ok, `<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%s</AccessKeyId>`+
			`<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			action, a.AccessKey, a.SecretKey, sessionToken, expires)
	})
	mux.HandleFunc("GET /federation/credentials", func(w http.ResponseWriter, r *http.Request) {
		give(w, asked(r, "X-Amz-Sso_bearer_token", askToken) && r.URL.Query().Get("role_name") == "images",
			`{"roleCredentials": {"accessKeyId": %q, "secretAccessKey": %q, "sessionToken": %q, "expiration": %d}}`,
			a.AccessKey, a.SecretKey, sessionToken, time.Now().Add(time.Hour).UnixMilli())
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// without leaves a store no credentials but what a test then sets.
func without(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY": "", "AWS_SECRET_KEY": "",
		"AWS_CONFIG_FILE": filepath.Join(home, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "credentials"),
	} {
		t.Setenv(name, value)
	}
}

func profile(t *testing.T, text string) {
	t.Helper()
	file(t, os.Getenv("AWS_CONFIG_FILE"), text)
}

func file(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil { // some are scripts
		t.Fatal(err)
	}
	return path
}

// process is a profile with a credential_process that runs a script.
func process(t *testing.T, script string) {
	t.Helper()
	profile(t, "[default]\ncredential_process = "+file(t, filepath.Join(t.TempDir(), "process"), "#!/bin/sh\n"+script+"\n")+"\n")
}

func printed(a s3test.Account, expires time.Time) string {
	return fmt.Sprintf(`{"Version": 1, "AccessKeyId": %q, "SecretAccessKey": %q, "SessionToken": %q, "Expiration": %q}`,
		a.AccessKey, a.SecretKey, sessionToken, expires.UTC().Format(time.RFC3339Nano))
}

// sources are the ways to credentials, by what has to be set.
func sources(a s3test.Account) map[string]func(t *testing.T, services string) {
	return map[string]func(t *testing.T, services string){
		"container": func(t *testing.T, services string) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", services+"/container")
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", askToken)
		},
		"instance": func(t *testing.T, services string) {
			t.Setenv("AWS_EC2_METADATA_DISABLED", "")
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", services)
		},
		"web identity": func(t *testing.T, services string) {
			t.Setenv("AWS_ENDPOINT_URL_STS", services+"/sts")
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/images")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, filepath.Join(t.TempDir(), "token"), askToken))
		},
		"process": func(t *testing.T, _ string) {
			process(t, "echo '"+printed(a, time.Now().Add(time.Hour))+"'")
		},
		"role of a profile": func(t *testing.T, services string) {
			t.Setenv("AWS_ENDPOINT_URL_STS", services+"/sts")
			profile(t, "[default]\nrole_arn = arn:aws:iam::1:role/images\nsource_profile = base\n"+
				"[profile base]\naws_access_key_id = BASE\naws_secret_access_key = secret\n")
		},
		"sso": func(t *testing.T, services string) {
			t.Setenv("AWS_ENDPOINT_URL_SSO", services)
			const start = "https://start.example"
			profile(t, "[default]\nsso_start_url = "+start+"\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = images\n")
			name := sha1.Sum([]byte(start))
			file(t, filepath.Join(os.Getenv("HOME"), ".aws/sso/cache", hex.EncodeToString(name[:])+".json"),
				fmt.Sprintf(`{"accessToken": %q, "expiresAt": %q, "startUrl": %q}`, askToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), start))
		},
	}
}

// TestSources gets credentials in each way, and makes sure that these sign.
func TestSources(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	proxy := server.ProxyFor(t)
	var signed atomic.Int64
	proxy.SetFault(func(r *http.Request) s3test.Fault {
		if strings.Contains(r.Header.Get("Authorization"), "Credential="+server.AccessKey+"/") {
			signed.Add(1)
		}
		return s3test.Ignore("X-Amz-Security-Token") // this server has no sessions
	})
	services := fakeServices(t, server.Account)
	for name, set := range sources(server.Account) {
		t.Run(name, func(t *testing.T) {
			signed.Store(0)
			s := open(t, server.Account, proxy.Endpoint, b, func(*s3.Options) { without(t); set(t, services.URL) })
			put(t, s, "key", []byte(name))
			holds(t, s, "key", []byte(name))
			if signed.Load() == 0 {
				t.Error("signed by nobody")
			}
		})
	}
}

// TestNoCredentials has each of them fail: the error says which it was and what
// to do, and blames no bucket.
func TestNoCredentials(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `{"Code": "no luck", "Message": %q}`, server.SecretKey)
	}))
	t.Cleanup(broken.Close)
	ways := sources(server.Account)
	ways["process"] = func(t *testing.T, _ string) { process(t, "exit 3") }
	wants := map[string][2]string{ // in the text, in the advice
		"container":         {"the container's endpoint (the answer was 500", "AWS_CONTAINER_CREDENTIALS"},
		"instance":          {"the instance's role (the answer was 500", "role of the instance"},
		"web identity":      {"the web identity token (", "AWS_ROLE_ARN"},
		"process":           {"the credential_process of the profile (exit status 3)", "by hand"},
		"role of a profile": {"the role of the profile (", "role_arn"},
		"sso":               {"the SSO session (", "aws sso login"},
	}
	for name, set := range ways {
		t.Run(name, func(t *testing.T) {
			var told notes
			_, err := tryOpen(t, server.Account, server.Endpoint, b, func(o *s3.Options) {
				o.Notify = told.add
				without(t)
				set(t, broken.URL)
			})
			if err == nil || fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), wants[name][0]) || !strings.Contains(advice(err), wants[name][1]) {
				t.Errorf("%v (%s)", err, advice(err))
			}
			if text := fmt.Sprint(err, advice(err), told.all()); strings.Contains(text, server.SecretKey) || strings.Contains(text, "the bucket does not") {
				t.Errorf("told: %s", text)
			}
			if name == "web identity" && !strings.Contains(told.all(), "gives AWS credentials") {
				t.Errorf("told %q", told.all())
			}
		})
	}
}

// TestProcessOutput has a credential_process that prints a warning before its
// JSON: the SDK's error has all of it.
func TestProcessOutput(t *testing.T) {
	server := s3test.For(t)
	_, err := tryOpen(t, server.Account, server.Endpoint, server.Bucket(t), func(*s3.Options) {
		without(t)
		process(t, "echo 'Warning: old version'\necho '"+printed(server.Account, time.Now().Add(time.Hour))+"'")
	})
	if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), "credential_process") || !strings.Contains(advice(err), "one JSON document") {
		t.Errorf("%v (%s)", err, advice(err))
	}
	for ; err != nil; err = errors.Unwrap(err) { // whoever looks into it finds nothing either
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, server.SecretKey) || strings.Contains(text, sessionToken) || strings.Contains(text, "Warning") {
			t.Errorf("it shows what was printed: %s", text)
		}
	}
}

// TestExpireMeanwhile has credentials that expire while a store is used, and are
// not renewed: running the same command again would not help.
func TestExpireMeanwhile(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	proxy := server.ProxyFor(t)
	proxy.SetFault(s3test.Always(s3test.Any, s3test.Ignore("X-Amz-Security-Token")))
	begin := time.Now()
	put(t, open(t, server.Account, proxy.Endpoint, b, nil), "key", []byte("w"))
	expires := time.Now().Add(max(4*time.Second, 20*time.Since(begin))) // enough for one Put, also on a busy machine
	calls := filepath.Join(t.TempDir(), "calls")
	var told notes
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) {
		o.Notify = told.add
		without(t)
		process(t, "[ ! -e "+calls+" ] || { echo >>"+calls+"; exit 1; }\necho >"+calls+"\necho '"+printed(server.Account, expires)+"'")
	})
	put(t, s, "key", []byte("x"))
	time.Sleep(time.Until(expires) + 100*time.Millisecond)
	proxy.Reset()
	for name, run := range map[string]func() error{
		"put":   func() error { return s.Put(t.Context(), "key", strings.NewReader("y")) },
		"get":   func() error { _, err := content(t.Context(), s, "key"); return err },
		"stat":  func() error { _, err := s.Stat(t.Context(), "key"); return err },
		"sweep": func() error { _, err := s.Sweep(t.Context(), "", 0); return err },
	} {
		if err := os.WriteFile(calls, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := run()
		if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), "have expired") || !strings.HasPrefix(advice(err), "Log in again") || !strings.Contains(advice(err), "what is stored stays") {
			t.Errorf("%s: %v (%s)", name, err, advice(err))
		}
		if n, err := os.ReadFile(calls); len(n) != 1 || err != nil {
			t.Errorf("%s: asked %d times, %v", name, len(n), err)
		}
	}
	if proxy.Count() != 0 || told.all() != "" {
		t.Errorf("%d requests, told %q", proxy.Count(), told.all())
	}
}

// TestEndpointWithPassword has one in the environment, where nobody refuses it.
func TestEndpointWithPassword(t *testing.T) {
	s := open(t, s3test.Account{AccessKey: "AKID", SecretKey: "secret"}, "http://127.0.0.1:1", "bucket", func(o *s3.Options) {
		o.Endpoint = ""
		t.Setenv("AWS_ENDPOINT_URL_S3", "http://user:hunter2@127.0.0.1:1")
	})
	_, err := s.Stat(t.Context(), "key")
	if text := fmt.Sprint(err, advice(err)); !strings.Contains(text, "127.0.0.1:1") || strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}
