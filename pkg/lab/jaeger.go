package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// JaegerOptions describe a Jaeger with everything in one process and memory.
type JaegerOptions struct {
	// Binary is the program that BuildJaeger builds.
	Binary string
	// Dir gets its log; it is created.
	Dir string
	Log *slog.Logger
}

// Jaeger is a running Jaeger, which dies with this process.
type Jaeger struct {
	// Endpoint is for OTEL_EXPORTER_OTLP_ENDPOINT, over HTTP.
	Endpoint string
	// QueryURL is the base of the query API and of the page, such as
	// QueryURL + "/api/traces/<id>".
	QueryURL string
	LogFile  string

	server *server
	stop   func()
}

// BuildJaeger builds Jaeger from its pinned source in tests/jaeger of the
// repository into out, at low priority; it takes minutes the first time and
// nothing when out is there already.
func BuildJaeger(ctx context.Context, repoRoot, out string) error {
	if st, err := os.Stat(out); err == nil && st.Mode()&0o111 != 0 {
		return nil
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("build Jaeger: %w", err)
	}
	// Built beside and renamed, so that an interrupted build leaves no half program.
	part := out + ".part"
	cmd := exec.CommandContext(ctx, "nice", "-n", "10", "go", "build", "-p", "1", "-trimpath", "-o", part,
		"github.com/jaegertracing/jaeger/cmd/all-in-one")
	cmd.Dir = filepath.Join(repoRoot, "tests", "jaeger")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build Jaeger in %s: %w: %s", cmd.Dir, err, lastLines(string(text), 8))
	}
	return os.Rename(part, out)
}

// StartJaeger starts a Jaeger on free ports of loopback and returns when it
// answers. ctx bounds the start only.
func StartJaeger(ctx context.Context, o JaegerOptions) (*Jaeger, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	// The program starts in its own directory.
	binary, err := filepath.Abs(o.Binary)
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return nil, fmt.Errorf("Jaeger %w: %w; build it with lab.BuildJaeger or `make jaeger`", ErrNotInstalled, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("Jaeger lab: %w", err)
	}
	ports, err := freePorts(6)
	if err != nil {
		return nil, fmt.Errorf("Jaeger lab: %w", err)
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	j := &Jaeger{
		Endpoint: "http://" + at(0), QueryURL: "http://" + at(1), LogFile: filepath.Join(o.Dir, "jaeger.log"),
	}
	// What is not wanted cannot be turned off: it gets free loopback ports, as
	// its defaults are fixed ones on every address.
	j.server, err = account{home: o.Dir}.start(binary, o.Dir, j.LogFile, false,
		"--collector.otlp.enabled=true",
		"--collector.otlp.http.host-port="+at(0),
		"--query.http-server.host-port="+at(1),
		"--query.grpc-server.host-port="+at(2),
		"--collector.otlp.grpc.host-port="+at(3),
		"--collector.grpc-server.host-port="+at(4),
		"--collector.http-server.host-port=127.0.0.1:0",
		"--admin.http.host-port="+at(5),
		"--log-level=info",
	)
	if err != nil {
		return nil, fmt.Errorf("Jaeger lab: %w", err)
	}
	j.stop = sync.OnceFunc(j.server.kill)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("Jaeger did not answer in a minute"))
	defer cancel()
	err = poll(ctx, "wait for Jaeger", 50*time.Millisecond, func() error {
		if j.server.over() {
			return &giveUp{errors.New("it ended at once")}
		}
		// Both ends: a collector that does not listen yet would lose spans.
		return errors.Join(answers(ctx, j.QueryURL+"/api/services", http.StatusOK),
			answers(ctx, j.Endpoint+"/v1/traces", http.StatusMethodNotAllowed))
	})
	if err != nil {
		j.Stop()
		return nil, errors.Join(fmt.Errorf("Jaeger lab: %w", err), logTail(j.LogFile))
	}
	o.Log.Info("Jaeger answers", "otlp", j.Endpoint, "query", j.QueryURL)
	return j, nil
}

// Stop ends Jaeger; its traces are gone with it. It may be called twice.
func (j *Jaeger) Stop() { j.stop() }

func answers(ctx context.Context, url string, want int) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	q.Close = true
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	if err != nil {
		return err
	}
	if a.StatusCode != want {
		return fmt.Errorf("GET %s: %s: %s", url, a.Status, text)
	}
	return nil
}
