package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// minioStartTimeout bounds the start of MinIO, which takes a second or two.
const minioStartTimeout = time.Minute

// MinIOOptions describe a MinIO server with one drive.
type MinIOOptions struct {
	// Binary is the program that BuildMinIO builds.
	Binary string
	// Dir gets its data, certificate and log; it is created, and stays when the
	// server stops. One in memory, such as below /dev/shm, is several times faster.
	Dir string
	// TLS makes it serve HTTPS with a certificate of its own.
	TLS bool
	// Env are further settings of the server as NAME=value, such as
	// MINIO_API_REQUESTS_MAX=1. Neither may hold a line break.
	Env []string
	Log *slog.Logger
}

// MinIO is a running MinIO server, which dies with this process. Its methods are
// safe for concurrent use, but Restart must not run beside another of them.
type MinIO struct {
	// Endpoint is its URL, with the scheme and without a path.
	Endpoint string
	// AccessKey and SecretKey are the administrator's, made for this server.
	AccessKey, SecretKey string
	// Roots are the certificates that its clients have to trust; nil without TLS.
	Roots   *x509.CertPool
	LogFile string

	options MinIOOptions
	binary  string
	args    []string
	mu      sync.Mutex
	server  *server
}

// BuildMinIO builds MinIO from its pinned source in tests/minio of the repository
// into out, at low priority; it takes minutes the first time and nothing when out
// is there already.
func BuildMinIO(ctx context.Context, repoRoot, out string) error {
	if st, err := os.Stat(out); err == nil && st.Mode()&0o111 != 0 {
		return nil
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("build MinIO: %w", err)
	}
	// Built beside and renamed, so that an interrupted build leaves no half program.
	part := fmt.Sprintf("%s.%d.part", out, os.Getpid())
	cmd := exec.CommandContext(ctx, "nice", "-n", "10", "go", "build", "-p", "1", "-trimpath", "-o", part, "github.com/minio/minio")
	cmd.Dir = filepath.Join(repoRoot, "tests", "minio")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build MinIO in %s: %w: %s", cmd.Dir, err, lastLines(string(text), 8))
	}
	return os.Rename(part, out)
}

// StartMinIO starts a MinIO on free ports of loopback and returns when it takes
// requests. ctx bounds the start only.
func StartMinIO(ctx context.Context, o MinIOOptions) (*MinIO, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	binary, err := filepath.Abs(o.Binary)
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return nil, fmt.Errorf("MinIO %w: %w; build it with lab.BuildMinIO or `make minio`", ErrNotInstalled, err)
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("MinIO lab: %w", err)
	}
	m := &MinIO{options: o, binary: binary, LogFile: filepath.Join(o.Dir, "minio.log")}
	if err := m.prepare(); err != nil {
		return nil, fmt.Errorf("MinIO lab: %w", err)
	}
	if err := m.Restart(ctx); err != nil {
		return nil, err
	}
	o.Log.Info("MinIO answers", "endpoint", m.Endpoint)
	return m, nil
}

// Restart kills the server if it runs and starts it again with the same data,
// keys and port. It returns when it takes requests; ctx bounds that only.
func (m *MinIO) Restart(ctx context.Context) error {
	m.Stop()
	// The environment file keeps the keys out of the list of processes.
	s, err := account{home: m.options.Dir}.start("env", m.options.Dir, m.LogFile, false, m.args...)
	if err != nil {
		return fmt.Errorf("MinIO lab: %w", err)
	}
	m.mu.Lock()
	m.server = s
	m.mu.Unlock()
	if err := m.await(ctx, s); err != nil {
		m.Stop()
		return errors.Join(fmt.Errorf("MinIO lab: %w", err), logTail(m.LogFile))
	}
	return nil
}

// Stop kills the server, also a frozen one, and waits for its end. What was
// acknowledged stays in its directory. It may be called twice.
func (m *MinIO) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.server != nil {
		m.server.kill()
	}
}

// PID is the number of the server's process, or of the last one if it ended.
func (m *MinIO) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server.cmd.Process.Pid
}

// Freeze stops the server's process without ending it: connections stay open and
// nothing answers, until Thaw. It returns when all its threads have stopped.
func (m *MinIO) Freeze(ctx context.Context) error {
	if err := m.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, "freeze MinIO", time.Millisecond, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.PID()))
		if err != nil || len(threads) == 0 {
			return &giveUp{errors.New("it has no threads: it ended")}
		}
		for _, t := range threads {
			// A thread that is gone meanwhile does nothing either.
			raw, _ := os.ReadFile(t)
			if _, state, ok := strings.Cut(string(raw), ") "); ok && state[0] != 'T' {
				return errors.New("a thread still runs")
			}
		}
		return nil
	})
}

// Thaw lets a frozen server go on.
func (m *MinIO) Thaw() error { return m.signal(syscall.SIGCONT) }

func (m *MinIO) signal(s syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.server.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("MinIO lab: signal %v: %w", s, err)
	}
	return nil
}

// prepare makes the directory, the keys and the command line.
func (m *MinIO) prepare() error {
	dir := m.options.Dir
	data, certs, env := filepath.Join(dir, "data"), filepath.Join(dir, "certs"), filepath.Join(dir, "minio.env")
	for _, d := range []string{data, certs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	m.Endpoint = "http://" + at(0)
	if m.options.TLS {
		m.Endpoint = "https://" + at(0)
		if m.Roots, err = writeCertificate(certs); err != nil {
			return err
		}
	}
	m.AccessKey = "firedrill-lab"
	if m.SecretKey, err = newPassword(); err != nil {
		return err
	}
	text := "MINIO_ROOT_USER=" + m.AccessKey + "\nMINIO_ROOT_PASSWORD=" + m.SecretKey + "\n" +
		// Neither the page nor the look-up of newer releases is wanted.
		"MINIO_BROWSER=off\nMINIO_UPDATE=off\n"
	for _, e := range m.options.Env {
		text += e + "\n"
	}
	if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
		return err
	}
	m.args = []string{"MINIO_CONFIG_ENV_FILE=" + env, m.binary, "server", "--quiet", "--certs-dir", certs,
		"--address", at(0), "--console-address", at(1), data}
	return nil
}

func (m *MinIO) await(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, minioStartTimeout, errors.New("MinIO did not answer in "+minioStartTimeout.String()))
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: m.Roots}}
	client := &http.Client{Transport: transport}
	return poll(ctx, "wait for MinIO", 20*time.Millisecond, func() error {
		if s.over() {
			return &giveUp{errors.New("it ended at once")}
		}
		// /minio/health/ready says 200 before the server knows its buckets and
		// users; this one does not.
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Endpoint+"/minio/health/cluster", nil)
		if err != nil {
			return &giveUp{err}
		}
		a, err := client.Do(q)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		if a.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", q.URL, a.Status)
		}
		return nil
	})
}

// writeCertificate makes a certificate for loopback, signed by itself, under the
// names that MinIO looks for.
func writeCertificate(dir string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "firedrill lab"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(7 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "public.crt"), certificate, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "private.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return roots, nil
}
