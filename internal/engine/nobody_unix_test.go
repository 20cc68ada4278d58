//go:build unix

package engine

import (
	"os"
	"os/exec"
	"syscall"
)

// asNobody takes root's rights from a command: root may use any socket.
func asNobody(cmd *exec.Cmd) {
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}
