package repo_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/ssh"
	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
)

func TestRemoteSSH(t *testing.T) {
	if testing.Short() {
		t.Skip("the store's own suite runs")
	}
	server := sshtest.Start(t, sshtest.Options{})
	remotetest.Run(t, remotetest.Harness{
		Brief:     !*every,
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true, Exclusive: true,
		Open: func(t *testing.T) remotetest.Target {
			dir := t.TempDir()
			return target(t, openSSH(t, server.URL(dir)), openSSH(t, server.URL(dir)), codec.LZ4)
		},
		Lasting: []goleak.Option{ // connections, at both ends
			goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"),
			goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"),
			goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx.func1"),
			goleak.IgnoreAnyFunction("github.com/pkg/sftp.(*clientConn).recv"),
		},
	})
}

func openSSH(t *testing.T, url string) *ssh.Store {
	t.Helper()
	o, err := ssh.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
