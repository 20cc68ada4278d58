package storage

import (
	"errors"
	"fmt"
	"strings"
)

// MaxKey is how long a key may be, in bytes (S3's limit).
const MaxKey = 1024

// ErrInvalidKey is returned, wrapped with the key and the reason, for a key that breaks the rules of Store.
var ErrInvalidKey = errors.New("invalid key")

// ValidKey returns nil for what may be a key (see Store), else an error that
// wraps ErrInvalidKey. Every Store refuses other keys with it before any I/O.
func ValidKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w %.40q…: longer than %d bytes", ErrInvalidKey, key, MaxKey)
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return fmt.Errorf("%w %q: not printable ASCII", ErrInvalidKey, key)
		}
	}
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "":
			return fmt.Errorf("%w %q: an element is empty", ErrInvalidKey, key)
		case element[0] == '.':
			return fmt.Errorf("%w %q: an element begins with a dot", ErrInvalidKey, key)
		}
	}
	return nil
}
