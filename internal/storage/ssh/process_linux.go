package ssh

import "syscall"

// attributes let ssh end with this process. Where it asks nothing, an interrupt on the
// terminal is not for it: it still carries what is to be removed then.
func attributes(ask bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: !ask}
}
