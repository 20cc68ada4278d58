package enginetest

import (
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestHelloRuns(t *testing.T) {
	Each(t, testHelloRuns)
	EachContainerd(t, testHelloRuns)
}

func testHelloRuns(t *testing.T, e *Engine) {
	ref := e.LoadFor(t, Hello)
	// Not attached: a busy engine waits two seconds for what a container wrote last, and then ends the attachment without it.
	docker := func(args ...string) string {
		t.Helper()
		out, err := e.Docker(t.Context(), nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	container := strings.TrimSpace(docker("create", "--network=none", ref, "much", "argument"))
	docker("start", container)
	if code := docker("wait", container); code != "0\n" {
		t.Errorf("hello ended with %q", code)
	}
	if got, want := docker("logs", container), "hello from dogestry\nmuch\nargument\n"; got != want {
		t.Errorf("hello printed %q, want %q", got, want)
	}
	docker("rm", container)
}

// TestTroubleImagesRoundTrip proves, for each trouble image, what the other packages' tests build on: the engine takes it,
// gives it the ID that was predicted, and gives its layers back byte for byte.
func TestTroubleImagesRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: nothing but the docker command works here, and other packages build on the same")
	}
	Each(t, testTroubleImagesRoundTrip)
	EachContainerd(t, testTroubleImagesRoundTrip)
}

func testTroubleImagesRoundTrip(t *testing.T, e *Engine) {
	containerd, err := e.ContainerdStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range Trouble() {
		if tr.Name == "layers-120" && !*every {
			continue // the tests of internal/transfer have it on every kind of engine, and take as long
		}
		t.Run(tr.Name, func(t *testing.T) {
			ctx := t.Context()
			if err := e.LoadImage(ctx, tr.Image); err != nil {
				t.Fatal(err)
			}
			if containerd { // IDs of its own, and no layer is put together again
				tr.NotSaved = ""
				if len(tr.Tags()) == 0 {
					return
				}
			}
			for _, ref := range append(tr.Tags(), tr.Ref) {
				id, ok, err := e.ImageID(ctx, ref)
				if !ok || err != nil || (id != tr.ID() && !containerd) {
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

func TestOldSparseIsRefused(t *testing.T) { Each(t, testOldSparseIsRefused) }

func testOldSparseIsRefused(t *testing.T, e *Engine) {
	err := e.LoadImage(t.Context(), OldSparse())
	if err == nil || !strings.Contains(err.Error(), "unhandled tar header type 83") {
		t.Errorf("loaded with error %v: if the engine can load it now, it belongs to Trouble", err)
	}
}
