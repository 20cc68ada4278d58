package trust

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/signature"
)

const (
	// PublicSuffix makes the name of the file with the public key from that with
	// the private one.
	PublicSuffix = ".pub"

	maxKeyFile = 64 << 10 // bytes
)

// WriteKeys makes a key pair and writes the private key to a new file, which only its
// owner may read, and the public one beside it. It overwrites nothing, and
// leaves nothing after a failure. It returns the ID of the pair.
func WriteKeys(path string) (id string, err error) {
	key, err := signature.Generate()
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot make a key")
	}
	private, err := key.PEM()
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot make a key")
	}
	public, err := key.PublicKey.PEM()
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot make a key")
	}
	if err := writeNew(path+PublicSuffix, public, 0o644); err != nil {
		return "", err
	}
	if err := writeNew(path, private, 0o600); err != nil {
		return "", errors.Join(err, os.Remove(path+PublicSuffix))
	}
	return string(key.ID()), nil
}

// writeNew writes a file that is not there yet, durably, or nothing.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fault.New(fault.Refused, "%s exists", path).
			Advise("A key that was overwritten would be lost, and all who verify with it would refuse what a new one signs. Choose another name.")
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(fault.NotFound, err, "cannot write a key").Advise("Make its directory first.")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Refused, err, "cannot write a key")
	case err != nil:
		return fault.Wrap(fault.Other, err, "cannot write a key")
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.Wrap(fault.Other, errors.Join(err, os.Remove(path)), "cannot write a key to %s", path)
	}
	return nil
}

// ReadPrivateKey reads a key to sign with. As ssh does, it refuses a file that others than
// its owner may read.
func ReadPrivateKey(path string) (signature.PrivateKey, error) {
	content, mode, err := readKey(path)
	if err != nil {
		return signature.PrivateKey{}, err
	}
	key, err := signature.ParsePrivate(content)
	if errors.Is(err, signature.ErrPublic) { // which all may read
		return signature.PrivateKey{}, fault.Wrap(fault.Usage, err, "cannot sign with %s", path).
			Advise("Give the private key of the pair with --sign-key: `dogestry keygen` writes it without %s.", PublicSuffix)
	}
	if open := mode.Perm() & 0o077; open != 0 && runtime.GOOS != "windows" { // where rights are something else
		return signature.PrivateKey{}, fault.New(fault.Refused, "the private key %s may be used by others than its owner: its rights are %04o", path, mode.Perm()).
			Advise("If nobody has read it: chmod 600 %q. Else make a new one with `dogestry keygen`.", path)
	}
	if err != nil {
		return signature.PrivateKey{}, fault.Wrap(fault.Usage, err, "cannot sign with %s", path).Advise("A key is made by `dogestry keygen FILE`.")
	}
	return key, nil
}

// ReadPublicKey reads a key to verify with.
func ReadPublicKey(path string) (signature.PublicKey, error) {
	content, _, err := readKey(path)
	if err != nil {
		return signature.PublicKey{}, err
	}
	key, err := signature.ParsePublic(content)
	if err != nil {
		f := fault.Wrap(fault.Usage, err, "cannot verify with %s", path)
		if errors.Is(err, signature.ErrPrivate) {
			return signature.PublicKey{}, f.Advise("Give the public key of the pair with --verify-key: `dogestry keygen` writes it to FILE%s.", PublicSuffix)
		}
		return signature.PublicKey{}, f.Advise("A key is made by `dogestry keygen FILE`; FILE%s is the public one.", PublicSuffix)
	}
	return key, nil
}

func readKey(path string) (content []byte, mode fs.FileMode, err error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil {
			mode = info.Mode()
			content, err = io.ReadAll(io.LimitReader(f, maxKeyFile+1))
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fault.Wrap(fault.NotFound, err, "no key").Advise("A key is made by `dogestry keygen FILE`.")
	case errors.Is(err, fs.ErrPermission):
		return nil, 0, fault.Wrap(fault.Refused, err, "cannot read the key %s", path)
	case err != nil:
		return nil, 0, fault.Wrap(fault.Other, err, "cannot read the key %s", path)
	case len(content) > maxKeyFile:
		return nil, 0, fault.New(fault.Usage, "%s is no key: it is larger than %d bytes", path, maxKeyFile)
	}
	return content, mode, nil
}
