package image

import (
	"encoding/json"
	"strings"
	"testing"
)

// helloHex is the sha256 of "hello", by sha256sum.
const helloHex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

var hello = DigestOf([]byte("hello"))

func TestDigest(t *testing.T) {
	if hello.Hex() != helloHex || hello.String() != "sha256:"+helloHex || hello.Short() != "2cf24dba5fb0" {
		t.Errorf("digest of hello is %s, short %s", hello, hello.Short())
	}
	if hello.IsZero() || !(Digest{}).IsZero() {
		t.Error("IsZero")
	}
	for _, parse := range []func() (Digest, error){
		func() (Digest, error) { return ParseDigest("sha256:" + helloHex) },
		func() (Digest, error) { return ParseHex(helloHex) },
		func() (d Digest, err error) { err = json.Unmarshal([]byte(`"sha256:`+helloHex+`"`), &d); return d, err },
	} {
		if d, err := parse(); err != nil || d != hello {
			t.Errorf("got %s, %v", d, err)
		}
	}
	if b, err := json.Marshal(hello); err != nil || string(b) != `"sha256:`+helloHex+`"` {
		t.Errorf("as JSON: %s, %v", b, err)
	}
}

func TestDigestRefused(t *testing.T) {
	for _, s := range []string{
		"", "sha256:", helloHex, "sha256:" + helloHex[1:], "sha256:" + helloHex + "0",
		"sha256:" + strings.ToUpper(helloHex), "sha256:" + helloHex[:63] + "g", "sha256:" + helloHex[:63] + "é",
		"SHA256:" + helloHex, "sha512:" + helloHex + helloHex, " sha256:" + helloHex, "sha256:" + helloHex + "\n",
	} {
		if d, err := ParseDigest(s); err == nil || !d.IsZero() {
			t.Errorf("ParseDigest(%q) = %s, %v", s, d, err)
		}
	}
	long := strings.Repeat("x", 1<<20)
	for _, parse := range []func(string) (Digest, error){ParseDigest, ParseHex} {
		if _, err := parse(long); err == nil || len(err.Error()) > 300 {
			t.Error("a long digest is accepted, or repeated in full")
		}
	}
}

// TestChainIDs: by hand, printf '%s %s' chain diff | sha256sum.
func TestChainIDs(t *testing.T) {
	if got := ChainIDs(nil); len(got) != 0 {
		t.Errorf("chain of nothing: %v", got)
	}
	a, b, c := DigestOf([]byte("a")), DigestOf([]byte("b")), DigestOf([]byte("c"))
	want := []string{
		"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
		"sha256:51c0c8ace48498d6f5fee6b0592cc06f2da0f3cbe09c5a34a97dce85c3889676",
		"sha256:2fce7f8ce91bcf0a1428b36e1024639fdbd9469eea762dba98aa749631885106",
	}
	for i, got := range ChainIDs([]DiffID{a, b, c}) {
		if got.String() != want[i] {
			t.Errorf("chain of %d layers is %s, want %s", i+1, got, want[i])
		}
	}
}
