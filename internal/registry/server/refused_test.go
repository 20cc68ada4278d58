package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// denied is a store that permits nothing to be written.
type denied struct{ *mem.Store }

const secret = "s3-internal.example AccessDenied arn:aws:iam::1:user/serve"

var errDenied = fmt.Errorf("%s: %w", secret, storage.ErrPermission)

func (denied) Put(context.Context, string, io.Reader) error    { return errDenied }
func (denied) Create(context.Context, string, io.Reader) error { return errDenied }
func (denied) Swap(context.Context, string, string, io.Reader) (string, error) {
	return "", errDenied
}
func (denied) Delete(context.Context, string) error           { return errDenied }
func (denied) DeleteIf(context.Context, string, string) error { return errDenied }

// TestStorageIsNotTold: what the storage says of itself is for the log alone.
func TestStorageIsNotTold(t *testing.T) {
	store := mem.New()
	full := open(t, store)
	a := gzipped(t, testImage(t, "app"))
	full.pushed("app", "1", a)
	r := open(t, denied{store})
	for _, c := range []struct {
		method, path string
		body         []byte
	}{
		{"POST", "/v2/app/blobs/uploads/", nil},
		{"POST", "/v2/app/blobs/uploads/?digest=" + digestOf([]byte("new")), []byte("new")},
		{"PUT", "/v2/app/manifests/2", a.manifest},
		{"PUT", "/v2/app/manifests/" + a.digest(), a.manifest},
		{"DELETE", "/v2/app/manifests/1", nil},
		{"DELETE", "/v2/app/manifests/" + a.digest(), nil},
	} {
		got := r.do(c.method, c.path, bytes.NewReader(c.body))
		if got.status != 403 && got.status != 409 {
			t.Errorf("%s %s: %d: %s", c.method, c.path, got.status, got.body)
		}
		for _, told := range []string{secret, "AccessDenied", "the remote", "run/", "digests/"} {
			if strings.Contains(string(got.body), told) {
				t.Errorf("%s %s tells %q: %s", c.method, c.path, told, got.body)
			}
		}
	}
}

// TestRefusedIsNoMember: a manifest whose tag is refused does not stay in the
// repository, unless it was there before.
func TestRefusedIsNoMember(t *testing.T) {
	r := open(t, mem.New())
	a := gzipped(t, testImage(t, "app"))
	r.pushed("team/app", "1", a)
	key := "digests/team/" + image.DigestOf(a.manifest).Hex()
	there := func() bool { return slices.Contains(r.keys("digests/team/"), key) }
	r.refused(403, "DENIED", "PUT", "/v2/team/manifests/app", bytes.NewReader(a.manifest))
	if there() {
		t.Errorf("%s is left", key)
	}
	r.want(201, "PUT", "/v2/team/manifests/"+a.digest(), bytes.NewReader(a.manifest))
	r.refused(403, "DENIED", "PUT", "/v2/team/manifests/app", bytes.NewReader(a.manifest))
	if !there() {
		t.Errorf("%s was put, and is gone", key)
	}
}

// signed pushes something that refers to a manifest.
func (r *registry) signed(name, what string, subject []byte) artifact {
	r.Helper()
	empty := []byte("{}")
	a := artifact{manifestOf(r, describe("application/vnd.oci.empty.v1+json", empty), []descriptor{}, map[string]any{
		"subject": describe("application/vnd.oci.image.manifest.v1+json", subject), "artifactType": what,
	}), [][]byte{empty}}
	r.pushed(name, a.digest(), a)
	return a
}

// TestDeleteTorn: what cannot be read any more can be taken out of a repository all
// the same, be it a member, a referrer or an image with a tag.
func TestDeleteTorn(t *testing.T) {
	for what, tear := range map[string]func(*registry, string){
		"missing": func(r *registry, key string) {
			if err := r.store.Delete(r.Context(), key); err != nil {
				r.Fatal(err)
			}
		},
		"damaged": (*registry).flip,
	} {
		t.Run(what, func(t *testing.T) {
			r := open(t, mem.New())
			member, tagged := gzipped(t, testImage(t, "member")), gzipped(t, testImage(t, "tagged"))
			r.pushed("app", member.digest(), member)
			r.pushed("app", "1", tagged)
			referrer := r.signed("app", "example/signature", member.manifest)
			r.want(404, "DELETE", "/v2/app/manifests/"+digestOf(tagged.blobs[0]), nil) // a config is no manifest
			for _, a := range []artifact{referrer, member, tagged} {
				tear(r, "images/"+image.DigestOf(a.manifest).Hex()+"/json")
				r.want(404, "DELETE", "/v2/other/manifests/"+a.digest(), nil)
				r.want(202, "DELETE", "/v2/app/manifests/"+a.digest(), nil)
				r.want(404, "DELETE", "/v2/app/manifests/"+a.digest(), nil)
			}
			for _, prefix := range []string{"digests/", "referrers/", "repositories/"} {
				if left := r.keys(prefix); len(left) > 0 {
					t.Errorf("%s are left", left)
				}
			}
		})
	}
}

// TestDamagedReferrer: one that is damaged is told, and does not hide the others.
func TestDamagedReferrer(t *testing.T) {
	var told atomic.Int32
	r := open(t, mem.New(), func(s *settings) { s.server.Damage = func(error) { told.Add(1) } })
	a := gzipped(t, testImage(t, "app"))
	r.pushed("app", "1", a)
	good, bad := r.signed("app", "example/good", a.manifest), r.signed("app", "example/bad", a.manifest)
	r.flip("images/" + image.DigestOf(bad.manifest).Hex() + "/json")
	// A key that names what is no manifest at all.
	r.put("referrers/app/"+image.DigestOf(a.manifest).Hex()+"/"+image.DigestOf(a.blobs[0]).Hex(), nil)
	var list struct{ Manifests []descriptor }
	if err := json.Unmarshal(r.want(200, "GET", "/v2/app/referrers/"+a.digest(), nil).body, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != good.digest() {
		t.Errorf("%+v", list.Manifests)
	}
	if n := told.Load(); n != 2 {
		t.Errorf("%d of 2 are told", n)
	}
}
