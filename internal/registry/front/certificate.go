package front

import (
	"crypto/tls"

	"github.com/dogestry/dogestry/internal/fault"
)

// certificate is what the server shows. A new one is shown from the next connection on.
type certificate struct {
	files *watched[*tls.Certificate]
}

// newCertificate reads the certificate of the options, nil where they name none.
func newCertificate(o Options) (*certificate, error) {
	if o.CertFile == "" && o.KeyFile == "" {
		return nil, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, fault.New(fault.Usage, "a certificate needs its key, and a key its certificate").Advise("Give both --tls-cert and --tls-key.")
	}
	read := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fault.Wrap(fault.Other, err, "cannot use the certificate %s with the key %s", o.CertFile, o.KeyFile)
		}
		o.Metrics.certificateExpires(c.Leaf.NotAfter)
		return &c, nil
	}
	failed := func(err error) {
		o.Metrics.reloadFailed("certificate")
		o.Log.Error("the certificate has changed and is of no use; the one before it stays", "error", err)
	}
	files, err := watch(read, failed, o.CertFile, o.KeyFile)
	if err != nil {
		return nil, err
	}
	return &certificate{files}, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.files.get(), nil }
