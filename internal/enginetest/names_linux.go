package enginetest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// names is the name server of a namespace: it knows no name, and notes for which it was asked.
type names struct {
	server  net.PacketConn
	running sync.WaitGroup
}

// configureNames lets programs in the namespace ask a name server of its own, and no other way (see [Namespace.Command]).
func (n *Namespace) configureNames() error {
	const address = "127.0.0.1" // also where there is no resolv.conf
	for name, content := range map[string]string{
		"resolv.conf":   "nameserver " + address + "\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return n.within(func() (err error) {
		n.names.server, err = net.ListenPacket("udp4", net.JoinHostPort(address, "53"))
		if err == nil {
			n.names.running.Go(func() { n.answer(n.names.server) })
		}
		return err
	})
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

// close ends it.
func (s *names) close() {
	if s.server != nil {
		s.server.Close()
	}
	s.running.Wait()
}
