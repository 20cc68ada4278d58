package storage_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
)

func TestValidKey(t *testing.T) {
	for _, key := range []string{"a", "a/b", "a.b", "a/b..", "~ a/ b", "host%3A5000/x", strings.Repeat("k", 1024)} {
		if err := storage.ValidKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/../b", ".a", "a/.b", "a\x00", "a\nb", "a\x7f", "é", "a\xff", strings.Repeat("k", 1025),
	} {
		if err := storage.ValidKey(key); !errors.Is(err, storage.ErrInvalidKey) {
			t.Errorf("%q: %v, want ErrInvalidKey", key, err)
		}
	}
}

func FuzzValidKey(f *testing.F) {
	f.Add("a/b")
	f.Add("../a")
	f.Fuzz(func(t *testing.T, key string) {
		if storage.ValidKey(key) != nil {
			return
		}
		if strings.HasPrefix(key, "/") || strings.Contains("/"+key+"/", "/.") || strings.Contains(key+"/", "//") || len(key) > storage.MaxKey {
			t.Errorf("%q is taken for valid", key)
		}
	})
}
