package bus_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// authority signs certificates; all its files are PEM.
type authority struct {
	t    *testing.T
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "key", err)
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.write(a.file, "CERTIFICATE", a.sign(a.cert, &a.key.PublicKey))
	return a
}

// issue makes a certificate for 127.0.0.1, as a client and as a server.
func (a *authority) issue() (certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, "key", err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, "key", err)
	cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &key.PublicKey)
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	a.write(certFile, "CERTIFICATE", cert)
	a.write(keyFile, "PRIVATE KEY", private)
	return certFile, keyFile
}

func (a *authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	must(a.t, "certificate", err)
	return der
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	must(a.t, "write", os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// secured adds what tls.conf asks for; clients trust the authority.
func (g *guarded) secured(verify string) *authority {
	g.t.Helper()
	a := newAuthority(g.t)
	g.env["FIREDRILL_NATS_CA"], g.env["FIREDRILL_NATS_VERIFY"] = a.file, verify
	g.env["FIREDRILL_NATS_CERT"], g.env["FIREDRILL_NATS_KEY"] = a.issue()
	g.options.CAFile = a.file
	return a
}

// TestDeployedTLS: whoever the certificates are wrong for is refused at once and told
// why; with the right ones it gets through.
func TestDeployedTLS(t *testing.T) {
	stranger := newAuthority(t)
	strangerCert, strangerKey := stranger.issue()
	for _, verify := range []string{"false", "true"} {
		t.Run("verify="+verify, func(t *testing.T) {
			g := newIdentities(t)
			own := g.secured(verify)
			g.start("../../deploy/nats/tls.conf")
			without := g.options
			if verify == "true" {
				g.options.ClientCertFile, g.options.ClientKeyFile = own.issue()
				g.refused(without, bus.ErrTLS, "client certificate")
				without.ClientCertFile, without.ClientKeyFile = strangerCert, strangerKey
				g.refused(without, bus.ErrTLS, "client certificate")
			}
			o := g.options
			o.CAFile = ""
			g.refused(o, bus.ErrTLS, "certificate authority")
			o.CAFile = stranger.file
			g.refused(o, bus.ErrTLS, "certificate authority")
			o = g.options
			o.URL = strings.Replace(o.URL, "127.0.0.1", "localhost", 1)
			g.refused(o, bus.ErrTLS, "URL's host")
			o = g.options
			o.CAFile = filepath.Join(t.TempDir(), "missing.pem")
			g.refused(o, fs.ErrNotExist, o.CAFile)
			o = g.options
			o.ClientCertFile, o.ClientKeyFile = own.file, ""
			g.refused(o, nil, "both or none")
			o.ClientKeyFile = filepath.Join(t.TempDir(), "missing.key")
			g.refused(o, fs.ErrNotExist, o.ClientKeyFile)

			must(t, "bootstrap", g.connect("bootstrap").Bootstrap(t.Context(), bus.BootstrapOptions{}))
			_, err := g.connect(event.Injector).Append(t.Context(), "d", accepted())
			must(t, "append", err)
			g.tooOld()
		})
	}
}

// refused fails the test unless the options lead to an error at once, of that kind
// and with those words.
func (g *guarded) refused(o bus.Options, want error, words string) {
	g.t.Helper()
	o.Identity, o.NKeySeedFile, o.Log = newSigners(g.t).identity("cli", "c"), keys.SeedFile(g.seeds, "cli"), quiet()
	began := time.Now()
	b, err := bus.Connect(g.t.Context(), o)
	if err == nil {
		b.Close()
		g.t.Errorf("%+v got through, want %q", o, words)
		return
	}
	if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), words) || time.Since(began) > 5*time.Second {
		g.t.Errorf("after %s: %v; want %v with %q", time.Since(began), err, want, words)
	}
}

// tooOld: a client that has all it needs and speaks no more than TLS 1.1 is refused.
func (g *guarded) tooOld() {
	g.t.Helper()
	c := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}
	if g.options.ClientCertFile != "" {
		own, err := tls.LoadX509KeyPair(g.options.ClientCertFile, g.options.ClientKeyFile)
		must(g.t, "load the certificate", err)
		c.Certificates = []tls.Certificate{own}
	}
	login, err := nats.NkeyOptionFromSeed(keys.SeedFile(g.seeds, "cli"))
	must(g.t, "read the seed", err)
	nc, err := nats.Connect(g.options.URL, login, nats.Secure(c))
	if err == nil {
		nc.Close()
		g.t.Error("a client with TLS 1.1 got through")
	} else if !strings.Contains(err.Error(), "protocol version") {
		g.t.Errorf("it was refused for another reason: %v", err)
	}
}

// TestNoSilentFallbackToPlain: with a certificate authority given, a server that
// speaks no TLS is not talked to.
func TestNoSilentFallbackToPlain(t *testing.T) {
	g := newIdentities(t)
	g.start(deployedConfig)
	o := g.options
	o.CAFile = newAuthority(t).file
	g.refused(o, bus.ErrTLS, "no TLS")
}

// TestDeployedCluster runs three nodes from cluster.conf and kills the leader of
// DRILLS: what was acknowledged is there, and the next event is stored.
func TestDeployedCluster(t *testing.T) {
	g := newIdentities(t)
	a := g.secured("false")
	nodes, routes := g.cluster(a)
	boot := g.connect("bootstrap") // Waits until they listen.
	nc, _ := g.login("bootstrap", nats.RootCAs(a.file), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	js, err := jetstream.New(nc)
	must(t, "JetStream", err)
	bootstrapCluster(t, js, boot)
	injector := g.connect(event.Injector)
	before, err := injector.Append(t.Context(), "d", accepted())
	must(t, "append", err)
	name := ""
	eventually(t, 30*time.Second, "leader of three replicas", func() bool { name = leader(t, js); return name != "" && allCurrent(t, js) })
	g.foreignRoute(a, routes[name])
	nodes[name].kill()
	began := time.Now()
	var after []bus.Stored
	eventually(t, 60*time.Second, "acknowledged event without the leader", func() bool {
		after, err = injector.Append(t.Context(), "d", phase(1))
		return err == nil
	})
	t.Logf("killed the leader %s; the next event was acknowledged after %s", name, time.Since(began).Round(time.Millisecond))
	history := mustVerify(t, g.connect("cli"), g.ring, "d", -1)
	// A try that was given up may be stored, too, between the two.
	if first, last := history[0].Event.ID, history[len(history)-1].Event.ID; first != before[0].Event.ID || last != after[0].Event.ID {
		t.Errorf("the history goes from %s to %s, acknowledged were %s and %s", first, last, before[0].Event.ID, after[0].Event.ID)
	}
}

// cluster starts three nodes, and returns them with the addresses of their routes.
func (g *guarded) cluster(a *authority) (nodes map[string]*node, routes map[string]string) {
	g.t.Helper()
	const password = "4f1c0d7e"
	ports := freePorts(g.t, 6)
	nodes, routes = map[string]*node{}, map[string]string{}
	var urls, all []string
	for i, port := range ports[:3] {
		name := fmt.Sprintf("n%d", i)
		routes[name] = fmt.Sprintf("127.0.0.1:%d", ports[3+i])
		urls = append(urls, fmt.Sprintf("tls://127.0.0.1:%d", port))
		all = append(all, fmt.Sprintf("%q", "tls://firedrill:"+password+"@"+routes[name]))
	}
	g.options.URL = strings.Join(urls, ",")
	g.env["FIREDRILL_NATS_ROUTES"] = "[" + strings.Join(all, ", ") + "]"
	g.env["FIREDRILL_NATS_ROUTE_PASSWORD"] = `"` + password + `"`
	for i, port := range ports[:3] {
		n := &node{name: fmt.Sprintf("n%d", i), config: "../../deploy/nats/cluster.conf", store: g.t.TempDir()}
		g.env["FIREDRILL_NATS_NAME"], g.env["FIREDRILL_NATS_CLUSTER_LISTEN"] = n.name, routes[n.name]
		g.env["FIREDRILL_NATS_CERT"], g.env["FIREDRILL_NATS_KEY"] = a.issue()
		g.env["FIREDRILL_HELPER_LISTEN"] = fmt.Sprintf("127.0.0.1:%d", port)
		for name, value := range g.env {
			n.env = append(n.env, name+"="+value)
		}
		n.start(g.t)
		g.t.Cleanup(n.kill)
		nodes[n.name] = n
	}
	return nodes, routes
}

// foreignRoute plays a node that has a certificate of the authority, as clients may,
// and not the routes' password; and one without a certificate.
func (g *guarded) foreignRoute(a *authority, address string) {
	g.t.Helper()
	ca, err := os.ReadFile(a.file)
	must(g.t, "authority", err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	certificate, err := tls.LoadX509KeyPair(a.issue())
	must(g.t, "certificate", err)
	for want, own := range map[string][]tls.Certificate{"Authorization Violation": {certificate}, "certificate required": nil} {
		raw, err := net.DialTimeout("tcp", address, 5*time.Second)
		must(g.t, "dial", err)
		defer raw.Close()
		must(g.t, "deadline", raw.SetDeadline(time.Now().Add(10*time.Second)))
		c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", Certificates: own})
		said := ""
		if _, err = c.Write([]byte("CONNECT {\"user\":\"firedrill\",\"pass\":\"guess\",\"name\":\"x\",\"cluster\":\"firedrill\"}\r\nPING\r\n")); err == nil {
			lines := bufio.NewScanner(c)
			for !strings.Contains(said, want) && lines.Scan() {
				said += lines.Text() + "\n"
			}
			err = lines.Err()
		}
		if all := fmt.Sprintf("%s%v", said, err); !strings.Contains(all, want) {
			g.t.Errorf("a foreign route is told %q, want %q", all, want)
		}
	}
}
