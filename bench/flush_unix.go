//go:build unix

package main

import (
	"os"
	"syscall"
)

// flush has all that is to be written to disk written.
func flush() { syscall.Sync() }

// peakMemory is the most bytes of memory that an ended process had.
func peakMemory(of *os.ProcessState) int64 {
	usage, ok := of.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return usage.Maxrss * 1024
}
