package client

import (
	"cmp"
	"context"

	"github.com/docker/cli/cli/config"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// DockerCredentials returns those that `docker login` has stored, in docker's
// configuration or by a credential helper, which is then run. dir is docker's
// configuration directory; empty for where docker has it (DOCKER_CONFIG, else ~/.docker).
// Seal says whether the helper may be run; nil lets it.
func DockerCredentials(dir string, seal *sealed.Seal) func(ctx context.Context, host string) (Credentials, error) {
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
		if helper := cmp.Or(stored.CredentialHelpers[key], stored.CredentialsStore); helper != "" {
			if err := seal.Program("docker-credential-" + helper); err != nil {
				return Credentials{}, fault.Wrap(fault.Refused, err, "cannot get the credentials for %s", host)
			}
		}
		c, err := stored.GetAuthConfig(key)
		if err != nil { // the text is the helper's, and may have anything in it
			return Credentials{}, fault.New(fault.Other, "docker's credential helper does not give the credentials for %s", host).
				Advise("Try it: docker login %s. The configuration in %s says which helper it is.", host, dir)
		}
		return Credentials{User: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, ctx.Err()
	}
}
