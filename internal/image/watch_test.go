package image

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWatched(t *testing.T) {
	trouble := errors.New("much trouble")
	w := &Watched{R: io.MultiReader(strings.NewReader("such"), iotest.ErrReader(trouble))}
	if _, err := io.ReadAll(w); !errors.Is(err, trouble) || !errors.Is(w.Err(), trouble) || w.Count() != 4 {
		t.Errorf("%v; it knows %v and %d bytes", err, w.Err(), w.Count())
	}
	whole := &Watched{R: strings.NewReader("wow")}
	if _, err := io.ReadAll(whole); err != nil || whole.Err() != nil || whole.Count() != 3 {
		t.Errorf("%v; it knows %v and %d bytes", err, whole.Err(), whole.Count())
	}
}
