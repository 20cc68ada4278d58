package client

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// hubKey is what docker calls Docker Hub where credentials are kept.
const hubKey = "https://index.docker.io/v1/"

// DockerCredentials returns those that `docker login` or StoreCredentials has stored, in
// docker's configuration or by a credential helper, which is then run. dir is docker's
// configuration directory; empty for where docker has it (DOCKER_CONFIG, else ~/.docker).
// Seal says whether the helper may be run; nil lets it.
func DockerCredentials(dir string, seal *sealed.Seal) func(ctx context.Context, host string) (Credentials, error) {
	return func(ctx context.Context, host string) (Credentials, error) {
		k, err := openKeeper(dir, host, seal)
		if err != nil {
			return Credentials{}, fault.Wrap(fault.KindOf(err), err, "cannot get the credentials for %s", host)
		}
		c, err := k.file.GetAuthConfig(k.key)
		if err != nil { // the text is the helper's, and may have anything in it
			return Credentials{}, fault.New(fault.Other, "docker's credential helper does not give the credentials for %s", host).
				Advise("Try it: docker login %s. The configuration in %s says which helper it is.", host, k.dir)
		}
		return Credentials{User: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, ctx.Err()
	}
}

// StoreCredentials keeps credentials where `docker login` does: with a credential helper,
// which is then run, else in docker's configuration, unencrypted, of which docker's own
// warning on the process's stderr tells. dir and seal are those of DockerCredentials.
func StoreCredentials(dir, host string, c Credentials, seal *sealed.Seal) error {
	k, err := openKeeper(dir, host, seal)
	if err == nil && k.helper == "" && !k.file.ContainsAuth() { // the first: as docker does
		if helper := credentials.DetectDefaultStore(""); helper != "" {
			k.helper, k.file.CredentialsStore = helper, helper
			err = k.allowed(seal)
		}
	}
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "cannot store the credentials for %s", host)
	}
	err = k.file.GetCredentialsStore(k.key).Store(types.AuthConfig{
		ServerAddress: k.key, Username: c.User, Password: c.Password, IdentityToken: c.IdentityToken,
	})
	return k.failure(err, "store", host)
}

// EraseCredentials forgets the credentials for a registry, and reports whether there were any.
func EraseCredentials(dir, host string, seal *sealed.Seal) (were bool, err error) {
	k, err := openKeeper(dir, host, seal)
	if err != nil {
		return false, fault.Wrap(fault.KindOf(err), err, "cannot erase the credentials for %s", host)
	}
	c, err := k.file.GetAuthConfig(k.key)
	if err == nil {
		if were = c.Username != "" || c.Password != "" || c.IdentityToken != "" || c.RegistryToken != ""; !were {
			return false, nil
		}
		err = k.file.GetCredentialsStore(k.key).Erase(k.key)
	}
	return were, k.failure(err, "erase", host)
}

// keeper is what keeps the credentials for a registry.
type keeper struct {
	dir, key string
	file     *configfile.ConfigFile
	helper   string // "" is the file itself
}

func openKeeper(dir, host string, seal *sealed.Seal) (*keeper, error) {
	if dir == "" {
		dir = config.Dir()
	}
	file, err := config.Load(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot read docker's configuration")
	}
	k := &keeper{dir: dir, key: host, file: file}
	if host == hub {
		k.key = hubKey
	}
	k.helper = cmp.Or(file.CredentialHelpers[k.key], file.CredentialsStore)
	return k, k.allowed(seal)
}

func (k *keeper) allowed(seal *sealed.Seal) error {
	if k.helper == "" {
		return nil
	}
	return seal.Program("docker-credential-" + k.helper)
}

// failure says what the keeper did not do. What a helper says may have anything in it.
func (k *keeper) failure(err error, verb, host string) error {
	switch {
	case err == nil:
		return nil
	case k.helper != "":
		return fault.New(fault.Other, "docker's credential helper docker-credential-%s does not %s the credentials for %s", k.helper, verb, host).
			Advise("Try it: docker login %s. The configuration in %s says which helper it is.", host, k.dir)
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Refused, err, "cannot %s the credentials for %s", verb, host)
	}
	return fault.Wrap(fault.Other, err, "cannot %s the credentials for %s", verb, host)
}

// Login asks the registry whether it takes the credentials of the options. It refuses
// those that it does not take; what takes anybody takes them.
func Login(ctx context.Context, o Options) error {
	r, err := Open(o)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing is written
	at, err := r.url(ctx, "/v2/")
	if err != nil {
		return r.failure(ctx, err, "cannot log in at %s", o.Host)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err == nil {
		if resp.StatusCode == http.StatusOK {
			drain(resp)
			return nil
		}
		err = answered(resp)
	}
	if isStatus(err, http.StatusUnauthorized) {
		return fault.New(fault.Refused, "%s does not take this user and password", o.Host)
	}
	return r.failure(ctx, err, "cannot log in at %s", o.Host)
}
