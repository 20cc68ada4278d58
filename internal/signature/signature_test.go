package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

var (
	someImage = image.DigestOf([]byte("some image"))
	someTime  = time.Date(2026, 11, 25, 21, 45, 7, 120e6, time.UTC)
)

// newKey returns the same key for the same name.
func newKey(t testing.TB, name string) PrivateKey {
	t.Helper()
	seed := image.DigestOf([]byte(name))
	k, err := newPrivate(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func reference(t testing.TB, s string) image.Reference {
	t.Helper()
	ref, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func sign(t testing.TB, k PrivateKey, ref string, id image.ID, at time.Time) []byte {
	t.Helper()
	content, err := k.Sign(Statement{reference(t, ref), id, at})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestExample: the example of docs/format.md is what its key makes of it.
func TestExample(t *testing.T) {
	doc, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	cut := func(begin, end string) []byte {
		_, rest, ok := strings.Cut(string(doc), "\n```\n"+begin)
		text, _, ended := strings.Cut(rest, "\n```\n")
		if !ok || !ended || end != "" && !strings.Contains(text, end) {
			t.Fatalf("docs/format.md has no example that begins with %q", begin)
		}
		return []byte(begin + text + "\n")
	}
	content := cut(domain+version+"\n", "signature ")
	key, err := ParsePrivate(cut("-----BEGIN PRIVATE KEY-----\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(key.PublicKey); err != nil {
		t.Error(err)
	}
	again, err := key.Sign(s.Statement)
	if err != nil || !bytes.Equal(again, content) {
		t.Errorf("%v\n%s\nThe document has\n%s", err, again, content)
	}
	if s.Tag.String() != "localhost:5000/team/myapp:live" || !s.Time.Equal(someTime) {
		t.Errorf("it is read as %+v", s.Statement)
	}
}

func TestSignedIsVerified(t *testing.T) {
	k := newKey(t, "one")
	longest := strings.Repeat("a", 127) + "/" + strings.Repeat("b", 127) + ":" + strings.Repeat("T", 128)
	for _, ref := range []string{"myapp:1", "a/b/c:V1.0_x-y", "localhost:5000/team/myapp:latest", "[::1]:5000/app:1", longest} {
		for _, at := range []time.Time{
			someTime, someTime.Truncate(time.Second), time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
			someTime.In(time.FixedZone("elsewhere", 5*3600)),
		} {
			content := sign(t, k, ref, someImage, at)
			got, err := k.Verify(content, reference(t, ref), someImage)
			if err != nil || !got.Equal(at) {
				t.Errorf("%.40s at %s: %s, %v", ref, at, got, err)
			}
			if len(content) > MaxSize/4 {
				t.Errorf("%.40s: %d bytes", ref, len(content))
			}
		}
	}
}

// TestWhatCannotBeSigned: a statement that could be read in another way than it
// was meant is not made.
func TestWhatCannotBeSigned(t *testing.T) {
	good := Statement{reference(t, "myapp:1"), someImage, someTime}
	for what, change := range map[string]func(*Statement){
		"no tag":              func(s *Statement) { s.Tag.Tag = "" },
		"no repository":       func(s *Statement) { s.Tag.Repository = "" },
		"a digest":            func(s *Statement) { s.Tag.Digest = someImage },
		"a line in the tag":   func(s *Statement) { s.Tag.Tag = "1\nimage x" },
		"a repository's line": func(s *Statement) { s.Tag.Repository = "myapp\ntag 2" },
		"a long repository":   func(s *Statement) { s.Tag.Repository = strings.Repeat("a/", 300) + "b" },
		"a longer form":       func(s *Statement) { s.Tag.Repository = "docker.io/library/myapp" },
		"no image":            func(s *Statement) { s.Image = image.ID{} },
		"no time":             func(s *Statement) { s.Time = time.Time{} },
		"microseconds":        func(s *Statement) { s.Time = s.Time.Add(time.Microsecond) },
		"the year 10000":      func(s *Statement) { s.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"the year 1969":       func(s *Statement) { s.Time = time.Unix(-1, 0) },
	} {
		s := good
		change(&s)
		if content, err := newKey(t, "one").Sign(s); err == nil {
			t.Errorf("%s: signed\n%s", what, content)
		}
	}
}

// TestEveryBitCounts: no bit of a signature can be changed, no byte be left out,
// and none be added.
func TestEveryBitCounts(t *testing.T) {
	k, ref := newKey(t, "one"), reference(t, "team/myapp:live")
	content := sign(t, k, "team/myapp:live", someImage, someTime)
	if _, err := k.Verify(content, ref, someImage); err != nil {
		t.Fatal(err)
	}
	refused := func(changed []byte, what string, at int) {
		t.Helper()
		if _, err := k.Verify(changed, ref, someImage); err == nil {
			t.Errorf("%s at %d: verified\n%q", what, at, changed)
		}
	}
	for i := range content {
		for bit := range 8 {
			changed := bytes.Clone(content)
			changed[i] ^= 1 << bit
			refused(changed, "a bit", i)
		}
		refused(content[:i], "cut off", i)
		refused(slices.Delete(bytes.Clone(content), i, i+1), "without the byte", i)
		for _, more := range []string{" ", "\n", "\r", "x", "\x00"} {
			refused(slices.Insert(bytes.Clone(content), i, []byte(more)...), fmt.Sprintf("with %q", more), i)
		}
	}
	for _, more := range []string{"\n", " ", "x", string(content), strings.Repeat("x", MaxSize)} {
		refused(append(bytes.Clone(content), more...), "with more behind it", len(content))
	}
}

// TestOneWayToWrite: what means the same to a lenient reader is refused, also
// where the signature of the bytes would be good.
func TestOneWayToWrite(t *testing.T) {
	k, ref := newKey(t, "one"), reference(t, "myapp:live")
	message, _, _ := strings.Cut(string(sign(t, k, "myapp:live", someImage, someTime)), "signature ")
	resigned := func(message string) []byte { return marshal([]byte(message), ed25519.Sign(k.private, []byte(message))) }
	if _, err := k.Verify(resigned(message), ref, someImage); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(message, "\n")
	swapped := slices.Clone(lines)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	for what, message := range map[string]string{
		"another order":     strings.Join(swapped, ""),
		"a line more":       message + "expires never\n",
		"a line twice":      strings.Replace(message, lines[2], lines[2]+lines[2], 1),
		"a line less":       strings.Replace(message, lines[2], "", 1),
		"carriage returns":  strings.ReplaceAll(message, "\n", "\r\n"),
		"upper case":        strings.Replace(message, someImage.Hex(), strings.ToUpper(someImage.Hex()), 1),
		"a bare id":         strings.Replace(message, "sha256:", "", 1),
		"a longer name":     strings.Replace(message, "repository myapp", "repository docker.io/library/myapp", 1),
		"encoded":           strings.Replace(message, "repository myapp", "repository localhost%3A5000/myapp", 1),
		"two spaces":        strings.Replace(message, "tag live", "tag  live", 1),
		"less time":         strings.Replace(message, "07.120Z", "07.12Z", 1),
		"more time":         strings.Replace(message, "07.120Z", "07.1200Z", 1),
		"a comma":           strings.Replace(message, "07.120Z", "07,120Z", 1),
		"a zone":            strings.Replace(message, "07.120Z", "07.120+00:00", 1),
		"no such second":    strings.Replace(message, "07.120Z", "61.120Z", 1),
		"another version":   strings.Replace(message, "tag 1\n", "tag 2\n", 1),
		"another purpose":   strings.Replace(message, "dogestry", "catestry", 1),
		"a longer key":      strings.Replace(message, string(k.ID()), string(k.ID())+"00", 1),
		"a digest in a tag": strings.Replace(message, "tag live", "tag live@"+someImage.String(), 1),
	} {
		if message == strings.Join(lines, "") {
			t.Fatalf("%s changes nothing", what)
		}
		if _, err := k.Verify(resigned(message), ref, someImage); err == nil {
			t.Errorf("%s: verified\n%s", what, message)
		}
	}
	if _, err := Parse(resigned(strings.Replace(message, "tag 1\n", "tag 2\n", 1))); err == nil || !strings.Contains(err.Error(), `version "2"`) {
		t.Errorf("a newer version: %v", err)
	}
	signature := ed25519.Sign(k.private, []byte(message))
	encoded := base64.StdEncoding.EncodeToString(signature)
	for what, end := range map[string]string{
		"no padding":       base64.RawStdEncoding.EncodeToString(signature),
		"other characters": strings.NewReplacer("+", "-", "/", "_").Replace(encoded),
		"other spare bits": encoded[:85] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", encoded[85])^1]) + "==",
		"folded":           encoded[:40] + "\r" + encoded[40:],
		"s + L":            base64.StdEncoding.EncodeToString(plusOrder(signature)),
		"short":            base64.StdEncoding.EncodeToString(signature[:63]),
		"long":             base64.StdEncoding.EncodeToString(append(bytes.Clone(signature), 0)),
		"empty":            "",
	} {
		if end == encoded {
			continue // it has neither + nor /
		}
		if _, err := k.Verify([]byte(message+"signature "+end+"\n"), ref, someImage); err == nil {
			t.Errorf("%s: verified", what)
		}
	}
}

// plusOrder returns the other signature that a verifier which does not compare
// with the group's order takes as well (RFC 8032, 8.4).
func plusOrder(signature []byte) []byte {
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	half := slices.Clone(signature[32:])
	slices.Reverse(half)
	sum := order.Add(order, new(big.Int).SetBytes(half)).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	return append(slices.Clone(signature[:32]), sum...)
}

// TestAttacks: a good signature proves one tag, one image, one key.
func TestAttacks(t *testing.T) {
	one, two := newKey(t, "one"), newKey(t, "two")
	ref, other := reference(t, "myapp:live"), image.DigestOf([]byte("another image"))
	content := sign(t, one, "myapp:live", someImage, someTime)
	if _, err := one.Verify(content, ref, someImage); err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(sign(t, two, "myapp:live", someImage, someTime), []byte(two.ID()), []byte(one.ID()), 1)
	s, err := Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := Statement{ref, someImage, someTime}.message(one.ID())
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		key     PublicKey
		content []byte
		ref     string
		id      image.ID
		want    string
	}{
		"another tag":           {one.PublicKey, content, "myapp:test", someImage, "of myapp:live"},
		"another repository":    {one.PublicKey, content, "your/myapp:live", someImage, "of myapp:live"},
		"another image":         {one.PublicKey, content, "myapp:live", other, "of the image " + someImage.Short()},
		"another key":           {two.PublicKey, content, "myapp:live", someImage, "of the key " + string(one.ID())},
		"another key's":         {one.PublicKey, forged, "myapp:live", someImage, "not made with the key " + string(one.ID())},
		"signed by another key": {one.PublicKey, marshal(claimed, ed25519.Sign(two.private, claimed)), "myapp:live", someImage, "not made with"},
		"another's signature": {
			one.PublicKey, marshal(bytes.Replace(s.signed, []byte("07.120"), []byte("07.121"), 1), s.signature), "myapp:live", someImage, "not made with",
		},
		"no key": {PublicKey{}, content, "myapp:live", someImage, "of the key"},
	} {
		_, err := c.key.Verify(c.content, reference(t, c.ref), c.id)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

// FuzzParse: what is read as a signature is written in the one way, and whatever
// is not signed by the key does not verify.
func FuzzParse(f *testing.F) {
	k := newKey(f, "one")
	good := sign(f, k, "localhost:5000/team/myapp:live", someImage, someTime)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bytes.Replace(good, []byte("live"), []byte("test"), 1))
	f.Add(bytes.Replace(good, []byte("07.120"), []byte("07.12 "), 1))
	f.Add([]byte(domain + version + "\n"))
	f.Add([]byte(domain + "2\n"))
	f.Add([]byte(strings.Repeat("\n", 100)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := Parse(content)
		if err != nil {
			if s != nil {
				t.Error("a signature and an error")
			}
			return
		}
		message, err := s.message(s.Key)
		if err != nil || !bytes.Equal(marshal(message, s.signature), content) {
			t.Errorf("%q is written as %q, %v", content, marshal(message, s.signature), err)
		}
		if s.Verify(k.PublicKey) == nil && !bytes.Equal(content, good) {
			t.Errorf("%q verifies", content)
		}
	})
}

// TestStays: what is there is replaced by what is newer, and where it is no statement
// of the same.
func TestStays(t *testing.T) {
	k, other := newKey(t, "much"), newKey(t, "other")
	now := sign(t, k, "app:1", someImage, someTime)
	for what, c := range map[string]struct {
		there, came []byte
		stays       bool
	}{
		"the same":         {now, now, true},
		"older came":       {now, sign(t, k, "app:1", someImage, someTime.Add(-Tick)), true},
		"newer came":       {now, sign(t, k, "app:1", someImage, someTime.Add(Tick)), false},
		"nonsense came":    {now, []byte("much"), true},
		"nonsense":         {[]byte("much"), now, false},
		"of another tag":   {sign(t, k, "app:2", someImage, someTime.Add(Tick)), now, false},
		"of another image": {sign(t, k, "app:1", image.DigestOf(nil), someTime.Add(Tick)), now, false},
		"by another key":   {sign(t, other, "app:1", someImage, someTime.Add(Tick)), now, false},
	} {
		if got := Stays(c.there, c.came); got != c.stays {
			t.Errorf("%s: stays: %v", what, got)
		}
	}
}
