//go:build !linux

package main

import (
	"errors"
	"time"
)

func usage(int) (time.Duration, int64, error) {
	return 0, 0, errors.New("what a process uses is read from /proc: it needs Linux")
}
