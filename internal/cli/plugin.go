package cli

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
)

// As docker-dogestry in a directory of docker's plugins the program is `docker
// dogestry`. Docker asks a plugin what it is, and runs it with the whole of its own
// command line: flags of docker's, the plugin's name, then what is for the plugin.

const (
	pluginName     = "docker-dogestry"
	pluginWord     = "dogestry" // docker's command
	pluginMetadata = "docker-cli-plugin-metadata"

	// pluginSocket names a socket that docker closes when it is told to end and no
	// terminal tells the plugin so.
	pluginSocket = "DOCKER_CLI_PLUGIN_SOCKET"
)

// isPlugin reports whether the program is called as docker's plugins are.
func isPlugin(program string) bool {
	return strings.TrimSuffix(filepath.Base(program), ".exe") == pluginName
}

// printMetadata answers docker's question.
func (a *app) printMetadata() {
	a.printJSON(struct {
		SchemaVersion, Vendor, Version, ShortDescription, URL string
	}{"0.1.0", "dogestry", Version, "Store and ship images with nothing but a directory or a bucket", "https://github.com/dogestry/dogestry"})
}

// dockerFlags are docker's own flags, and whether a value follows.
var dockerFlags = map[string]bool{
	"--config": true, "--context": true, "-c": true, "--host": true, "-H": true, "--log-level": true, "-l": true,
	"--tlscacert": true, "--tlscert": true, "--tlskey": true, "--tls": false, "--tlsverify": false, "--debug": false, "-D": false,
}

// pluginArgs returns what of docker's command line is for the plugin, and what that
// sets in the environment, in which all of docker's flags have a place. An empty value
// unsets.
func pluginArgs(args []string) (own []string, env map[string]string, err error) {
	said := map[string]string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		flag, value, attached := strings.Cut(args[0], "=")
		if !strings.HasPrefix(flag, "--") && len(flag) > 2 { // -Hvalue
			flag, value, attached = args[0][:2], strings.TrimPrefix(args[0][2:], "="), true
		}
		valued, known := dockerFlags[flag]
		if !known {
			break // the own ones, of who runs docker-dogestry without docker
		}
		args = args[1:]
		if valued && !attached {
			if len(args) == 0 {
				return nil, nil, fault.New(fault.Usage, "%s lacks its value", flag)
			}
			value, args = args[0], args[1:]
		}
		if !valued && !attached {
			value = "true"
		}
		said[flag] = value
	}
	if i := slices.Index(args, pluginWord); i == 0 || i == 1 && (args[0] == "help" || strings.HasPrefix(args[0], "__complete")) {
		args = slices.Delete(slices.Clone(args), i, i+1)
	}
	if on := said["--debug"] + said["-D"]; on != "" && on != "false" && len(args) > 0 && !strings.HasPrefix(args[0], "__complete") {
		args = append([]string{"--debug"}, args...)
	}
	env, err = dockerEnvironment(said)
	return args, env, err
}

// dockerEnvironment says in docker's variables what its flags say.
func dockerEnvironment(said map[string]string) (map[string]string, error) {
	env := map[string]string{}
	put := func(variable string, flags ...string) {
		for _, f := range flags {
			if value, ok := said[f]; ok {
				env[variable] = value
			}
		}
	}
	put("DOCKER_CONFIG", "--config")
	put("DOCKER_CONTEXT", "--context", "-c")
	put("DOCKER_HOST", "--host", "-H")
	if env["DOCKER_CONTEXT"] != "" { // a flag goes before the other's variable
		env["DOCKER_HOST"] = ""
	} else if env["DOCKER_HOST"] != "" {
		env["DOCKER_CONTEXT"] = ""
	}
	for flag, variable := range map[string]string{"--tls": "DOCKER_TLS", "--tlsverify": "DOCKER_TLS_VERIFY"} {
		if value, ok := said[flag]; ok {
			if env[variable] = "1"; value == "false" {
				env[variable] = ""
			}
		}
	}
	for flag, name := range map[string]string{"--tlscacert": "ca.pem", "--tlscert": "cert.pem", "--tlskey": "key.pem"} {
		path, ok := said[flag]
		if !ok {
			continue
		}
		dir := filepath.Dir(path)
		if before, is := env["DOCKER_CERT_PATH"]; filepath.Base(path) != name || is && before != dir {
			return nil, fault.New(fault.Usage, "docker's %s %s: dogestry takes ca.pem, cert.pem and key.pem of one directory", flag, path).
				Advise("Put them there and set DOCKER_CERT_PATH, or make a context: docker context create.")
		}
		env["DOCKER_CERT_PATH"] = dir
	}
	return env, nil
}

// asPlugin readies the process to be docker's plugin, and returns its arguments.
func asPlugin(args []string) ([]string, error) {
	args, env, err := pluginArgs(args)
	for variable, value := range env {
		set := func() error { return os.Setenv(variable, value) }
		if value == "" {
			set = func() error { return os.Unsetenv(variable) }
		}
		err = errors.Join(err, set())
	}
	return args, err
}

// whenDockerEnds calls end once docker has been told to end, where no terminal tells
// this process too: as long as docker waits for it, its socket stays open.
func whenDockerEnds(end func()) {
	address := os.Getenv(pluginSocket)
	if address == "" {
		return
	}
	c, err := net.Dial("unix", address)
	if err != nil { // an older docker has left it, or docker is gone
		return
	}
	go func() {
		defer c.Close()
		for {
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				end()
				return
			} else if err != nil {
				return
			}
		}
	}()
}
