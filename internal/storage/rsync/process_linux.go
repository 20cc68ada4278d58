package rsync

import "syscall"

// session lets rsync run apart from this process's terminal, which it would ask for a
// password, and end with this process, however that ends.
func session() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
