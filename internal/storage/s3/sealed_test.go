package s3_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

func sealOf(t *testing.T, o sealed.Options) *sealed.Seal {
	t.Helper()
	o.From = "--sealed"
	s, err := sealed.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealedCredentials: sealed, nobody is asked for credentials whom the
// configuration does not name, whichever client of the SDK would ask; who is named, is.
func TestSealedCredentials(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	proxy := server.ProxyFor(t)
	proxy.SetFault(s3test.Always(s3test.Any, s3test.Ignore("X-Amz-Security-Token")))
	inner := fakeServices(t, server.Account)
	var asked atomic.Int64
	services := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		inner.Config.Handler.ServeHTTP(w, r)
	}))
	defer services.Close()
	host, err := url.Parse(services.URL)
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	ways := sources(server.Account)
	ways["process"] = func(t *testing.T, _ string) {
		process(t, "echo >"+ran+"\necho '"+printed(server.Account, time.Now().Add(time.Hour))+"'")
	}
	for name, set := range ways {
		t.Run(name, func(t *testing.T) {
			var told notes
			_, err := tryOpen(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) {
				o.Seal, o.Notify = sealOf(t, sealed.Options{}), told.add
				without(t)
				set(t, services.URL)
			})
			what := host.Host
			if name == "process" {
				what = "process was not run"
			}
			if fault.KindOf(err) != fault.Refused || !errors.Is(err, sealed.ErrSealed) || !strings.Contains(err.Error(), sealed.ErrSealed.Error()) ||
				!strings.Contains(err.Error(), what) || !strings.Contains(advice(err), "sealed-") {
				t.Errorf("%v (%s)", err, advice(err))
			}
			if _, err := os.Stat(ran); err == nil || asked.Load() > 0 || told.all() != "" {
				t.Errorf("somebody was asked, %d times; told %q", asked.Load(), told.all())
			}
			s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) {
				without(t)
				set(t, services.URL)
				o.Seal = sealOf(t, sealed.Options{Allow: []string{host.Host}, Programs: []string{credentialProgram(t)}})
			})
			put(t, s, "key", []byte(name))
			holds(t, s, "key", []byte(name))
			asked.Store(0)
			_ = os.Remove(ran)
		})
	}
}

// credentialProgram is the credential_process of the profile, if it has one.
func credentialProgram(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(os.Getenv("AWS_CONFIG_FILE"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(content), "credential_process = ")
	return strings.TrimSpace(program)
}

// TestSealedBucket: a bucket is reached at its own host, and where a server sends a
// client to another one, nobody goes.
func TestSealedBucket(t *testing.T) {
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another server was asked") }))
	defer far.Close()
	near := httptest.NewServer(http.RedirectHandler(far.URL+"/bucket/key", http.StatusTemporaryRedirect))
	defer near.Close()
	s := open(t, s3test.Account{AccessKey: "AKID", SecretKey: "secret"}, near.URL, "bucket", func(o *s3.Options) { o.Seal = sealOf(t, sealed.Options{}) })
	if _, err := s.Stat(t.Context(), "key"); err == nil || sealed.Refusal(err) != nil {
		t.Errorf("redirected: %v", err)
	}
}

// TestSealedContainerName: the SDK would look up the name in the URL of a container's endpoint by itself.
func TestSealedContainerName(t *testing.T) {
	_, err := tryOpen(t, s3test.Account{}, "http://127.0.0.1:1", "bucket", func(o *s3.Options) {
		o.Seal = sealOf(t, sealed.Options{})
		without(t)
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://credentials.invalid/container")
	})
	if !errors.Is(err, sealed.ErrSealed) || !strings.Contains(err.Error(), "credentials.invalid:80 was not contacted") {
		t.Error(err)
	}
}
