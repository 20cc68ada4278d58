package mem_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storagetest.Run(t, storagetest.Harness{
		Open: func(*testing.T) storagetest.Target {
			s := mem.New()
			return storagetest.Target{A: s, B: s}
		},
		Create:    true,
		Swap:      true,
		Remove:    true,
		Ranges:    true,
		Conflicts: true,
		Large:     2 << 20, // there are no pieces
	})
}

// TestVersion proves that an object's version follows from its bytes, as S3's does.
func TestVersion(t *testing.T) {
	s := mem.New()
	var versions []string
	for _, content := range []string{"one", "two", "one", ""} {
		if err := s.Put(t.Context(), "key", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		info, err := s.Stat(t.Context(), "key")
		if err != nil {
			t.Fatal(err)
		}
		for listed, err := range s.List(t.Context(), "") {
			if err != nil || listed != info {
				t.Errorf("listed as %+v, %v, want %+v", listed, err, info)
			}
		}
		versions = append(versions, info.Version)
	}
	if v := versions; v[0] == "" || v[0] == v[1] || v[0] != v[2] || v[3] == "" || v[3] == v[0] || v[3] == v[1] {
		t.Errorf("versions %q", v)
	}
}
