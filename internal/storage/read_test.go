package storage_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestRead(t *testing.T) {
	s := mem.New()
	if err := s.Put(t.Context(), "key", strings.NewReader("much")); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int64]error{3: storage.ErrTooLarge, 4: nil, 5: nil} {
		b, err := storage.Read(t.Context(), s, "key", most)
		if !errors.Is(err, want) || (want == nil) != (string(b) == "much") {
			t.Errorf("at most %d bytes: %q, error %v", most, b, err)
		}
	}
	if _, err := storage.Read(t.Context(), s, "other", 4); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
}
