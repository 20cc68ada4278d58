package transfer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

var errUnsigned = errors.New("much unsigned")

// asked notes what Sign or Verify was called with, and what the remote had then.
type asked struct {
	calls []string
	then  []string // tags
	err   error
}

func (a *asked) hook(tags func() []string) func(context.Context, image.Reference, image.ID) (string, error) {
	return func(_ context.Context, ref image.Reference, id image.ID) (string, error) {
		a.calls = append(a.calls, ref.String()+" "+id.Short())
		a.then = tags()
		return "a key", a.err
	}
}

// TestPushSignsBeforeTheTag, what it is about to tag, by the remote's name.
func TestPushSignsBeforeTheTag(t *testing.T) {
	m := layered("1", "a", "b")
	client := newClassic(m).connect(t)
	r := remoteOn(t, mem.New(), codec.None)
	var signed asked
	as := reference(t, "such:live")
	o := Options{Sign: signed.hook(func() []string { return tagsOf(t, r) })}
	for range 2 { // also where nothing moves
		results, err := Push(t.Context(), client, r, []PushImage{{Source: "much:1", Target: as}}, o)
		if err != nil || results[0].SignedBy != "a key" {
			t.Fatalf("%+v, %v", results, err)
		}
		id, err := r.Resolve(t.Context(), as)
		if err != nil {
			t.Fatal(err)
		}
		if want := "such:live " + id.Short(); signed.calls[len(signed.calls)-1] != want {
			t.Errorf("signed %q, want %q", signed.calls, want)
		}
		if len(signed.calls) == 1 && len(signed.then) > 0 {
			t.Errorf("signed behind the tag: %q", signed.then)
		}
	}
	if len(signed.calls) != 2 {
		t.Errorf("signed %q", signed.calls)
	}
}

// TestPushThatCannotSign writes no tag.
func TestPushThatCannotSign(t *testing.T) {
	r := remoteOn(t, mem.New(), codec.None)
	signed := asked{err: errUnsigned}
	o := Options{Sign: signed.hook(func() []string { return nil })}
	results, err := Push(t.Context(), newClassic(layered("1", "a")).connect(t), r, pushes(t, "much:1"), o)
	if !errors.Is(err, errUnsigned) || len(results) > 0 || len(tagsOf(t, r)) > 0 {
		t.Errorf("%+v, %v, tags %q", results, err, tagsOf(t, r))
	}
}

// TestDryRunSignsNothing, and verifies all the same.
func TestDryRunSignsNothing(t *testing.T) {
	m := layered("1", "a")
	r := remoteOn(t, mem.New(), codec.None)
	client := newClassic(m).connect(t)
	var signed, verified asked
	o := Options{DryRun: true, Sign: signed.hook(func() []string { return nil }), Verify: verified.hook(func() []string { return nil })}
	if results, err := Push(t.Context(), client, r, pushes(t, "much:1"), o); err != nil || results[0].SignedBy != "" || len(signed.calls) > 0 {
		t.Errorf("%+v, %v, signed %q", results, err, signed.calls)
	}
	mustPush(t, client, r, "much:1")
	if results, err := Pull(t.Context(), r, client, pulls(t, "much:1"), o); err != nil || results[0].SignedBy != "a key" || len(verified.calls) != 1 {
		t.Errorf("%+v, %v, verified %q", results, err, verified.calls)
	}
}

// TestPullVerifiesFirst: all images, before anything of one is read, and what it verifies it pulls.
func TestPullVerifiesFirst(t *testing.T) {
	one, two := layered("1", "a"), layered("2", "a", "b")
	r := stocked(t, one, two)
	var verified asked
	e := newClassic()
	client := e.connect(t)
	verify := verified.hook(e.names)
	results, err := Pull(t.Context(), r, client, pulls(t, "much:1", "much:2"), Options{Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"much:1 " + results[0].ID.Short(), "much:2 " + results[1].ID.Short()}
	if !slices.Equal(verified.calls, want) || len(verified.then) > 0 || results[1].SignedBy != "a key" {
		t.Errorf("verified %q, want %q; the engine had %q; %+v", verified.calls, want, verified.then, results)
	}

	e = newClassic()
	client = e.connect(t)
	changed := e.changed
	refuse := func(_ context.Context, ref image.Reference, _ image.ID) (string, error) {
		if ref.Tag == "2" {
			return "", fault.New(fault.Refused, "%s is not signed", ref)
		}
		return "a key", nil
	}
	results, err = Pull(t.Context(), noDocuments{r, results[1].ID}, client, pulls(t, "much:1", "much:2"), Options{Verify: refuse})
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "much:2") || len(results) > 0 || e.changed != changed || len(e.names()) > 0 {
		t.Errorf("%+v, %v; the engine has %q", results, err, e.names())
	}
}

// noDocuments is a remote whose document nobody may read.
type noDocuments struct {
	remote.Source
	id image.ID
}

func (n noDocuments) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if id == n.id {
		return nil, errors.New("a document of what is not verified was read")
	}
	return n.Source.Document(ctx, id)
}

// TestSignatureStays: a copy and an import, also of what is there, leave a signature
// as it is that the target is to keep, and what is the same is not written again.
func TestSignatureStays(t *testing.T) {
	from := newStock(t)
	sign(t, from, "app:1")
	bundle := mustExport(t, from, nil, "app:1")
	ref, key := reference(t, "app:1"), strings.Repeat("a", 16)
	stays := func(there, came []byte) bool { return string(there) == "newer" && string(came) == "signed app:1" }
	for how, bring := range map[string]func(to remote.Target) error{
		"copy": func(to remote.Target) error {
			_, err := Copy(t.Context(), from, to, copies(t, "app:1"), CopyOptions{Options: Options{SignatureStays: stays}})
			return err
		},
		"import": func(to remote.Target) error {
			b, err := repo.OpenBundle(bytes.NewReader(bundle), "in.tar")
			if err == nil {
				_, err = Import(t.Context(), b, to, ImportOptions{Options: Options{SignatureStays: stays}})
			}
			return err
		},
	} {
		store := &logbook{Store: mem.New()}
		to := remoteOn(t, store, codec.LZ4)
		if err := bring(to); err != nil {
			t.Fatal(err)
		}
		id, err := to.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for there, want := range map[string]string{
			"newer": "newer", "older": "signed app:1", "signed app:1": "signed app:1", strings.Repeat("x", 5000): "signed app:1",
		} {
			write(t, store.Store, "signatures/app/1@"+id.Hex()+"."+key, there)
			store.puts = nil
			if err := bring(to); err != nil {
				t.Fatal(err)
			}
			if got, err := to.Signature(t.Context(), ref, id, key); err != nil || string(got) != want {
				t.Errorf("%s: over %.10q it wrote %q, want %q: %v", how, there, got, want, err)
			}
			written := slices.ContainsFunc(store.puts, func(k string) bool { return strings.HasPrefix(k, "signatures/") })
			if written != (there != want) {
				t.Errorf("%s: over %.10q %q was written", how, there, store.puts)
			}
		}
	}
}
