package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
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

// verifyFlags are what a pull is told about signatures.
type verifyFlags struct {
	keys     []string
	require  bool
	rollback bool
}

func (v *verifyFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&v.keys, "verify-key", nil, "pull only what the key in `FILE`, a public one, has signed; of several, one suffices")
	c.Flags().BoolVar(&v.require, "require-signature", false, "for scripts: fail where no --verify-key is given")
	c.Flags().BoolVar(&v.rollback, "allow-rollback", false, "with --verify-key: take a tag that was signed earlier than what was pulled before, and forget the newer one")
}

// open reads the keys and returns what verifies the images of a remote; nil where
// nothing is to be verified.
func (v *verifyFlags) open(name string, images []transfer.PullImage) (*trust.Verifier, error) {
	if len(v.keys) == 0 {
		if v.require || v.rollback {
			return nil, fault.New(fault.Usage, "--require-signature and --allow-rollback are about --verify-key, and that is missing").
				Advise("Say which keys may have signed: --verify-key FILE.pub.")
		}
		return nil, nil
	}
	for _, img := range images {
		if !img.Source.Digest.IsZero() {
			return nil, fault.New(fault.Usage, "%s is named by its digest, and signatures are of tags", img.Source).
				Advise("The digest alone says which image it is: pull it without --verify-key. Or name the tag without a digest.")
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
		if err != nil {
			return nil, err
		}
		verifier.Keys = append(verifier.Keys, key)
	}
	return verifier, nil
}
