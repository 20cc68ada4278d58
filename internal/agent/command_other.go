//go:build !unix

package agent

import "os/exec"

// asGroup and killGroup do nothing where there are no groups of processes.
func asGroup(*exec.Cmd) {}

func killGroup(*exec.Cmd) {}
