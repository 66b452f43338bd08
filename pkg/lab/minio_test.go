package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const minioBinary = "../../out/bin/minio"

func startMinIO(t *testing.T, o MinIOOptions) *MinIO {
	t.Helper()
	must(t, BuildMinIO(within(t, 9*time.Minute), "../..", minioBinary))
	o.Binary, o.Dir = minioBinary, t.TempDir()
	m, err := StartMinIO(within(t, 2*time.Minute), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

// live asks whether the server answers at all.
func live(ctx context.Context, m *MinIO) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: m.Roots}}}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Endpoint+"/minio/health/live", nil)
	if err != nil {
		return err
	}
	a, err := client.Do(q)
	if err != nil {
		return err
	}
	return a.Body.Close()
}

func TestMinIOStopsFreezesAndRestarts(t *testing.T) {
	m := startMinIO(t, MinIOOptions{})
	ctx := within(t, 2*time.Minute)
	must(t, live(ctx, m))

	must(t, m.Freeze(ctx))
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := live(short, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server: got %v, want no answer", err)
	}
	must(t, m.Thaw())
	must(t, live(ctx, m))

	before, endpoint := m.PID(), m.Endpoint
	must(t, m.Freeze(ctx))
	must(t, m.Restart(ctx))
	must(t, live(ctx, m))
	if m.PID() == before || m.Endpoint != endpoint {
		t.Errorf("process %d then %d, at %s then %s: want another process at the same place", before, m.PID(), endpoint, m.Endpoint)
	}
	m.Stop()
	m.Stop()
	if err := live(ctx, m); err == nil {
		t.Error("it answers after Stop")
	}
}

func TestMinIOWithTLS(t *testing.T) {
	m := startMinIO(t, MinIOOptions{TLS: true})
	if !strings.HasPrefix(m.Endpoint, "https://") {
		t.Errorf("endpoint %s", m.Endpoint)
	}
	must(t, live(within(t, time.Minute), m))
}

// TestMinIOHidesItsKeys looks where every user of the machine can look.
func TestMinIOHidesItsKeys(t *testing.T) {
	m := startMinIO(t, MinIOOptions{})
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(m.PID()), "cmdline"))
	must(t, err)
	if bytes.Contains(args, []byte(m.SecretKey)) {
		t.Error("the secret key is in the command line")
	}
	if other := startMinIO(t, MinIOOptions{}); other.SecretKey == m.SecretKey {
		t.Error("two servers have the same secret key")
	}
}

func TestMissingMinIOSaysHowToBuild(t *testing.T) {
	_, err := StartMinIO(within(t, time.Minute), MinIOOptions{Binary: filepath.Join(t.TempDir(), "minio"), Dir: t.TempDir()})
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "BuildMinIO") {
		t.Fatalf("got %v", err)
	}
}

func TestMinIOThatEndsAtOnce(t *testing.T) {
	began := time.Now()
	_, err := StartMinIO(within(t, time.Minute), MinIOOptions{Binary: "/bin/false", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "ended at once") || time.Since(began) > 10*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
}
