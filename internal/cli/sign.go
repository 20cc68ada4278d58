package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/trust"
)

// signFlag adds what makes a push sign.
func signFlag(c *cobra.Command, key *string) {
	c.Flags().StringVar(key, "sign-key", "", "sign the tags with the private key in `FILE`: see `dogestry keygen`")
}

// openSigner reads the key that a push signs with; nil where it is not to. An
// empty name is most likely a variable that was not set.
func openSigner(c *cobra.Command, key string) (*trust.Signer, error) {
	if !c.Flags().Changed("sign-key") {
		return nil, nil
	}
	if key == "" {
		return nil, fault.New(fault.Usage, "--sign-key is empty").Advise("Name the file of a private key, or leave --sign-key out.")
	}
	private, err := trust.ReadPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &trust.Signer{Key: private}, nil
}

// verifyFlags are what a pull is told about signatures, on the command line and
// else in the configuration.
type verifyFlags struct {
	keys     []string
	require  bool
	rollback bool

	keysFrom, requireFrom string // a file and a line, or a variable; "" is the command line
}

func (v *verifyFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&v.keys, "verify-key", nil, "pull only what the key in `FILE`, a public one, has signed; of several, one suffices (default: those of the configuration)")
	c.Flags().BoolVar(&v.require, "require-signature", false, "fail where no --verify-key is given, nor in the configuration; =false pulls although the configuration asks for signatures")
	c.Flags().BoolVar(&v.rollback, "allow-rollback", false, "with --verify-key: take a tag that was signed earlier than what was pulled before, and forget the newer one")
}

// configure takes from the configuration what the command line does not say. What
// says in so many words that no signature is required gets no keys from there either.
func (v *verifyFlags) configure(c *cobra.Command, set *config.Config) {
	said := c.Flags().Changed("require-signature")
	if said && !v.require {
		return
	}
	if !said {
		v.require, v.requireFrom = set.RequireSignature.Value, set.RequireSignature.From
	}
	if !c.Flags().Changed("verify-key") {
		v.keys, v.keysFrom = set.VerifyKeys.Value, set.VerifyKeys.From
	}
}

// asker is who asks for signatures in the configuration, if anything there does.
func (v *verifyFlags) asker() string {
	if v.require && v.requireFrom != "" {
		return v.requireFrom
	}
	return v.keysFrom
}

// open reads the keys and returns what verifies the images of a remote; nil where
// nothing is to be verified.
func (v *verifyFlags) open(name string, images []transfer.PullImage) (*trust.Verifier, error) {
	if len(v.keys) == 0 {
		return nil, v.withoutKeys()
	}
	for _, img := range images {
		if img.Source.Digest.IsZero() {
			continue
		}
		switch {
		case v.keysFrom == "":
			return nil, fault.New(fault.Usage, "%s is named by its digest, and signatures are of tags", img.Source).
				Advise("The digest alone says which image it is: pull it without --verify-key. Or name the tag without a digest.")
		case v.require:
			return nil, fault.New(fault.Refused, "%s asks for signatures, and %s is named by its digest: signatures are of tags", v.asker(), img.Source).
				Advise("Name the tag without a digest. Where the digest is enough: --require-signature=false.")
		}
	}
	dir, err := stateDir()
	if err != nil {
		return nil, fault.Wrap(fault.Refused, err, "there is no place to remember what was accepted").
			Advise("Set XDG_STATE_HOME to a directory that lasts: an old tag that comes back is noticed by what is in it.")
	}
	verifier := &trust.Verifier{
		Name: name, AllowRollback: v.rollback,
		Memory: trust.Memory{Dir: filepath.Join(dir, "tags"), Remote: canonical(name)},
	}
	for _, file := range v.keys {
		if file == "" {
			return nil, fault.New(fault.Usage, "--verify-key is empty").Advise("Name the file of a public key.")
		}
		key, err := trust.ReadPublicKey(file)
		if err != nil && v.keysFrom != "" {
			err = fmt.Errorf("%s: %w", v.keysFrom, err)
		}
		if err != nil {
			return nil, err
		}
		verifier.Keys = append(verifier.Keys, key)
	}
	return verifier, nil
}

// withoutKeys says why a pull without keys is refused, if it is.
func (v *verifyFlags) withoutKeys() error {
	switch {
	case v.require && v.requireFrom != "":
		return fault.New(fault.Refused, "%s asks for signatures, and no key is known to verify them with", v.requireFrom).
			Advise("Say which keys may have signed: verify-key in the configuration, or --verify-key FILE.pub. To pull without, once: --require-signature=false.")
	case v.require || v.rollback:
		return fault.New(fault.Usage, "--require-signature and --allow-rollback are about --verify-key, and that is missing").
			Advise("Say which keys may have signed: --verify-key FILE.pub.")
	}
	return nil
}

// verify is what verifier finds, and tells where in the configuration it was asked for.
func (v *verifyFlags) verify(verifier *trust.Verifier) func(context.Context, image.Reference, image.ID) (string, error) {
	asker := v.asker()
	if asker == "" {
		return verifier.Verify
	}
	return func(ctx context.Context, ref image.Reference, id image.ID) (string, error) {
		if !ref.Digest.IsZero() {
			return "", nil // it says which image it is
		}
		by, err := verifier.Verify(ctx, ref, id)
		if fault.Is(err, fault.Refused) {
			err = fmt.Errorf("%s asks for signatures: %w", asker, err)
		}
		return by, err
	}
}
