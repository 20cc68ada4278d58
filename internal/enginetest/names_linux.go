package enginetest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// names are the machine's name servers as a namespace has them: they know no name, and note for which they were asked.
type names struct {
	servers []net.PacketConn
	running sync.WaitGroup
}

// listenForNames stands in for the name servers that programs in the namespace would ask.
func (n *Namespace) listenForNames() error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(resolv)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		ip := net.ParseIP(words[1])
		if ip.To4() == nil {
			continue // what leaves for one of IPv6 is seen elsewhere, or cannot leave
		}
		if !ip.IsLoopback() {
			_ = exec.Command("ip", "-n", filepath.Base(n.path), "addr", "add", words[1]+"/32", "dev", "lo").Run() // it may be there twice
		}
		err := n.within(func() error {
			server, err := net.ListenPacket("udp4", net.JoinHostPort(words[1], "53"))
			if err == nil {
				n.names.servers = append(n.names.servers, server)
				n.names.running.Go(func() { n.answer(server) })
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// answer says of every name that there is none (RFC 1035, section 4).
func (n *Namespace) answer(server net.PacketConn) {
	query := make([]byte, 512)
	for {
		read, from, err := server.ReadFrom(query)
		if err != nil {
			return
		}
		const header = 12
		if read < header {
			continue
		}
		var labels []string
		for at := header; at < read && query[at] != 0; at += 1 + int(query[at]) {
			labels = append(labels, string(query[at+1:min(read, at+1+int(query[at]))]))
		}
		n.mu.Lock()
		n.left = append(n.left, "a query for "+strings.Join(labels, "."))
		n.arrived.Broadcast()
		n.mu.Unlock()
		answer := append([]byte{}, query[:read]...)
		answer[2], answer[3] = answer[2]|0x80, 0x83 // an answer: no such name
		_, _ = server.WriteTo(answer, from)
	}
}

// close ends them.
func (s *names) close() {
	for _, server := range s.servers {
		server.Close()
	}
	s.running.Wait()
}
