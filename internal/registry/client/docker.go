package client

import (
	"context"

	"github.com/docker/cli/cli/config"

	"github.com/dogestry/dogestry/internal/fault"
)

// DockerCredentials returns those that `docker login` has stored, in docker's
// configuration or by a credential helper, which is then run. dir is docker's
// configuration directory; empty for where docker has it (DOCKER_CONFIG, else ~/.docker).
func DockerCredentials(dir string) func(ctx context.Context, host string) (Credentials, error) {
	return func(ctx context.Context, host string) (Credentials, error) {
		if dir == "" {
			dir = config.Dir()
		}
		stored, err := config.Load(dir)
		if err != nil {
			return Credentials{}, fault.Wrap(fault.Other, err, "cannot read docker's configuration")
		}
		key := host
		if host == hub {
			key = "https://index.docker.io/v1/" // as docker calls it
		}
		c, err := stored.GetAuthConfig(key)
		if err != nil { // the text is the helper's, and may have anything in it
			return Credentials{}, fault.New(fault.Other, "docker's credential helper does not give the credentials for %s", host).
				Advise("Try it: docker login %s. The configuration in %s says which helper it is.", host, dir)
		}
		return Credentials{User: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, ctx.Err()
	}
}
