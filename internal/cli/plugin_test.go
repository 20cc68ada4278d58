package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
)

// TestPluginArgs: docker runs a plugin with its own flags before the plugin's name.
func TestPluginArgs(t *testing.T) {
	type env = map[string]string
	for _, test := range []struct {
		args, want []string
		env        env
	}{
		{args: []string{"dogestry", "push", "--", "-x"}, want: []string{"push", "--", "-x"}},
		{args: []string{"dogestry"}, want: []string{}},
		{args: []string{"list", "dogestry"}, want: []string{"list", "dogestry"}}, // without docker
		{args: []string{"--json", "list", "x"}, want: []string{"--json", "list", "x"}},
		{args: []string{"dogestry", "list", "dogestry"}, want: []string{"list", "dogestry"}},
		{args: []string{"help", "dogestry"}, want: []string{"help"}},
		{args: []string{"help", "dogestry", "push"}, want: []string{"help", "push"}},
		{args: []string{"__complete", "dogestry", "push", ""}, want: []string{"__complete", "push", ""}},
		{
			args: []string{"--config", "/c", "--context=far", "dogestry", "push", "--config-file", "x"}, want: []string{"push", "--config-file", "x"},
			env: env{"DOCKER_CONFIG": "/c", "DOCKER_CONTEXT": "far", "DOCKER_HOST": ""},
		},
		{args: []string{"-H", "tcp://a:1", "dogestry", "pull"}, want: []string{"pull"}, env: env{"DOCKER_HOST": "tcp://a:1", "DOCKER_CONTEXT": ""}},
		{args: []string{"-Htcp://a:1", "dogestry", "pull"}, want: []string{"pull"}, env: env{"DOCKER_HOST": "tcp://a:1", "DOCKER_CONTEXT": ""}},
		{args: []string{"-D", "-l", "warn", "dogestry", "pull", "--", "a"}, want: []string{"--debug", "pull", "--", "a"}},
		{args: []string{"--debug=false", "dogestry", "pull"}, want: []string{"pull"}},
		{
			args: []string{"--tlsverify", "--tlscacert", "/t/ca.pem", "--tlskey=/t/key.pem", "dogestry", "pull"}, want: []string{"pull"},
			env: env{"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/t"},
		},
		{args: []string{"--tlsverify=false", "dogestry", "pull"}, want: []string{"pull"}, env: env{"DOCKER_TLS_VERIFY": ""}},
	} {
		own, got, err := pluginArgs(test.args)
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if test.env == nil {
			test.env = env{}
		}
		if diff := cmp.Diff(test.want, own) + cmp.Diff(test.env, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.args, diff)
		}
	}
	for _, args := range [][]string{{"--config"}, {"--tlscert", "/t/mine.pem", "dogestry"}, {"--tlscert", "/t/cert.pem", "--tlskey", "/u/key.pem", "dogestry"}} {
		if _, _, err := pluginArgs(args); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestIsPlugin: the name of the program decides.
func TestIsPlugin(t *testing.T) {
	for program, want := range map[string]bool{"/usr/libexec/docker/cli-plugins/docker-dogestry": true, "docker-dogestry.exe": true, "/usr/bin/dogestry": false, "docker-dogestry-x": false} {
		if got := isPlugin(program); got != want {
			t.Errorf("%s: %t", program, got)
		}
	}
}
