package cache

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTrim: what was stored the longest time ago goes, and no more than that.
func TestTrim(t *testing.T) {
	dir := t.TempDir()
	if err := Trim(dir, "such", 1); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	file := func(n int) File { return New(dir, "such", fmt.Sprint(n), "mark ") }
	other := New(dir, "other", "1", "mark ")
	if err := other.Store("stays"); err != nil {
		t.Fatal(err)
	}
	var size int64
	for n := range 5 {
		if err := file(n).Store(strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(n-10) * time.Minute)
		if err := os.Chtimes(file(n).Path(), at, at); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file(n).Path())
		if err != nil {
			t.Fatal(err)
		}
		size = info.Size()
	}
	if err := Trim(dir, "such", 2*size); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		var s string
		err := file(n).Load(&s)
		if stays := n >= 3; stays != (err == nil) || !stays && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("file %d: %v", n, err)
		}
	}
	var s string
	if err := other.Load(&s); err != nil {
		t.Errorf("another kind: %v", err)
	}
}
