package bus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats.go"
)

// tlsOptions are those of the certificates that were named. The files are read here,
// so that one that is missing or wrong is an error before anything is tried, and
// again with every connection, so that renewed ones need no restart.
func (o Options) tlsOptions() ([]nats.Option, error) {
	var out []nats.Option
	if o.CAFile != "" {
		ca := nats.RootCAs(o.CAFile)
		if err := ca(&nats.Options{}); err != nil {
			return nil, fmt.Errorf("certificate authority file %s: %w", o.CAFile, err)
		}
		out = append(out, ca)
	}
	switch {
	case o.ClientCertFile == "" && o.ClientKeyFile == "":
	case o.ClientCertFile == "" || o.ClientKeyFile == "":
		return nil, fmt.Errorf("client certificate file %q and client key file %q: give both or none", o.ClientCertFile, o.ClientKeyFile)
	default:
		own := nats.ClientCert(o.ClientCertFile, o.ClientKeyFile)
		if err := own(&nats.Options{}); err != nil {
			return nil, fmt.Errorf("client certificate file %s with key file %s: %w", o.ClientCertFile, o.ClientKeyFile, err)
		}
		out = append(out, own)
	}
	return out, nil
}

// tlsRefusal explains an error of the handshake that trying again does not mend. It is
// an ErrTLS, or nil for all other errors.
func tlsRefusal(err error) error {
	explain := func(mend string) error { return fmt.Errorf("%w: %w; %s", ErrTLS, err, mend) }
	if errors.Is(err, nats.ErrSecureConnWanted) {
		return explain("the server speaks no TLS: give it a tls block (deploy/nats/tls.conf), or name neither certificates nor a tls:// URL")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return explain("the server's certificate must be signed by the certificate authority file and be for the URL's host")
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return explain("the server refuses this client: give the client certificate and key if it asks for them; else its log says why")
	}
	return nil
}
