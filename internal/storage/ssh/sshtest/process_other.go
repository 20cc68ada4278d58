//go:build !unix

package sshtest

import (
	"errors"
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func stopGroup(*os.Process) error { return errors.ErrUnsupported }

func killGroup(p *os.Process) { _ = p.Kill() }
