package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ways are those of the standard library to contact somebody, or to let another
// program do so, by the paths of packages. What is made of them has to ask a
// sealed.Seal.
var ways = map[string][]string{
	"net": {
		"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer", "DefaultResolver", "Resolver",
		"LookupHost", "LookupIP", "LookupAddr", "LookupCNAME", "LookupMX", "LookupNS", "LookupPort", "LookupSRV", "LookupTXT", "ListenPacket", "ListenUDP", "ResolveTCPAddr", "ResolveUDPAddr", "ResolveIPAddr",
	},
	"net/http": {"Get", "Head", "Post", "PostForm", "DefaultClient", "DefaultTransport", "Client", "Transport", "ProxyFromEnvironment"},
	"net/smtp": {"Dial", "SendMail"}, "net/rpc": {"Dial", "DialHTTP"},
	"crypto/tls": {"Dial", "DialWithDialer", "Dialer"},
	"os":         {"StartProcess"}, "os/exec": {"Command", "CommandContext", "Cmd"}, "syscall": {"Exec", "ForkExec", "StartProcess", "Connect"},
	"github.com/docker/cli/cli/connhelper": {"GetConnectionHelper"},
	"github.com/docker/cli/cli/config":     {"Load", "LoadDefaultConfigFile", "LoadFromReader"}, // credential helpers
	"github.com/aws/aws-sdk-go-v2/config":  {"LoadDefaultConfig"},
}

// sealedFiles are those that may use them, and why that goes by the seal.
var sealedFiles = map[string]string{
	"internal/agent/client.go":              "makes a transport that dials by the seal",
	"internal/agent/command.go":             "asks before a command is run",
	"internal/agent/command_unix.go":        "changes a command that command.go makes",
	"internal/agent/command_other.go":       "changes a command that command.go makes",
	"internal/sealed/sealed.go":             "is the seal",
	"internal/sealed/proxy.go":              "dials by a seal of its own",
	"internal/cli/plugin.go":                "talks to the docker command that has started it, on a socket of that",
	"internal/engine/engine.go":             "makes a transport, whose dialer sealedDial replaces",
	"internal/engine/sealed.go":             "dials by the seal",
	"internal/engine/ssh.go":                "runs ssh, which sealedDial has asked the seal about",
	"internal/registry/client/docker.go":    "asks before a helper is run",
	"internal/registry/client/registry.go":  "takes its transport",
	"internal/registry/client/transport.go": "makes one and puts the seal under it",
	"internal/storage/ssh/process.go":       "runs ssh, once Open has asked for it",
	"internal/storage/web/store.go":         "makes its client of that transport",
	"internal/storage/web/transport.go":     "makes one and puts the seal under it",
	"internal/storage/rsync/run.go":         "runs rsync, which Open asks the seal about",
	"internal/storage/s3/sealed.go":         "is given to the SDK by way of the seal",
	"internal/storage/s3/store.go":          "makes its transport of the one that the SDK was given",
}

// TestEverythingGoesByTheSeal finds what could contact somebody without asking.
func TestEverythingGoesByTheSeal(t *testing.T) {
	used := map[string]bool{}
	for _, top := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && slices.Contains(append(testOnly, "enginetest/hello"), filepath.ToSlash(strings.TrimPrefix(path, "../internal/"))) || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, "../"))
			for _, use := range usesOf(t, path) {
				if used[name] = true; sealedFiles[name] == "" {
					t.Errorf("%s:%s: what contacts others or runs a program has to ask a sealed.Seal; where it does, name the file in sealedFiles", name, use)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range sealedFiles {
		if !used[name] {
			t.Errorf("%s uses nothing that has to ask: take it out of sealedFiles", name)
		}
	}
}

// usesOf returns line and name of each use of the ways in a file.
func usesOf(t *testing.T, path string) (uses []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{} // of packages in this file
	for _, i := range file.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if _, there := ways[imported]; !there {
			continue
		}
		names[imported[strings.LastIndexByte(imported, '/')+1:]] = imported
		if i.Name != nil {
			names[i.Name.Name] = imported
			if i.Name.Name == "." {
				uses = append(uses, fmt.Sprintf("%d: import . %q", set.Position(i.Pos()).Line, imported))
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && slices.Contains(ways[names[x.Name]], s.Sel.Name) {
			uses = append(uses, fmt.Sprintf("%d: %s.%s", set.Position(n.Pos()).Line, names[x.Name], s.Sel.Name))
		}
		return true
	})
	return uses
}
