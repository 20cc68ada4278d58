//go:build !unix

package main

import "os"

// flush does nothing where one file at a time is flushed: engines, and so benchmarks, run elsewhere.
func flush() {}

// peakMemory is not known here.
func peakMemory(*os.ProcessState) int64 { return 0 }
