package enginetest

import (
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestHelloRuns(t *testing.T) {
	e := For(t)
	ref := e.LoadFor(t, Hello)
	out, err := e.Docker(t.Context(), nil, "run", "--rm", "--network=none", ref, "much", "argument")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "hello from dogestry\nmuch\nargument\n"; got != want {
		t.Errorf("hello printed %q, want %q", got, want)
	}
}

// TestTroubleImagesRoundTrip proves, for each trouble image, what the other packages' tests build on: the engine takes it,
// gives it the ID that was predicted, and gives its layers back byte for byte.
func TestTroubleImagesRoundTrip(t *testing.T) {
	e := For(t)
	for _, tr := range Trouble() {
		t.Run(tr.Name, func(t *testing.T) {
			ctx := t.Context()
			if err := e.LoadImage(ctx, tr.Image); err != nil {
				t.Fatal(err)
			}
			for _, ref := range append(tr.Tags(), tr.Ref) {
				if id, ok, err := e.ImageID(ctx, ref); id != tr.ID() || !ok || err != nil {
					t.Errorf("%s is %q (%v), want %s", ref, id, err, tr.ID())
				}
			}
			saved, err := e.Saved(ctx, tr.Ref)
			switch {
			case tr.NotSaved != "":
				if err == nil {
					err = saved.Check(tr.Image)
				}
				if err == nil || !strings.Contains(err.Error(), tr.NotSaved) {
					t.Errorf("saved with error %v, want %q", err, tr.NotSaved)
				}
			case err != nil:
				t.Error(err)
			default:
				if err := saved.Check(tr.Image); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOldSparseIsRefused(t *testing.T) {
	e := For(t)
	version, err := e.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = e.LoadImage(t.Context(), OldSparse())
	if strings.HasPrefix(version, "20.10.") && (err == nil || !strings.Contains(err.Error(), "unhandled tar header type 83")) {
		t.Errorf("engine %s loads it with error %v: if it can now, it belongs to Trouble", version, err)
	}
}
