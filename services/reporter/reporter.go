// Package reporter is the service that folds a finished drill into its report,
// publishes it once, and serves live and published reports over NATS and HTTP.
// Nothing else waits for it.
package reporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// Config is what the reporter runs with.
type Config struct {
	Bus *bus.Bus
	// Registry is not used; it is there so that all services are wired alike.
	Registry target.Registry
	Log      *slog.Logger
	// Keyring decides which events are folded: the same as the bus's.
	Keyring event.Keyring
	// OutDir is where reports are written, as <OutDir>/<drill>/report.*; empty
	// means that no files are written.
	OutDir string
	// HTTP is where the HTTP server takes connections, of Listen; nil means no HTTP server.
	// Run closes it.
	HTTP net.Listener
	// Token is what HTTP clients must send as a bearer token: see CheckToken. Without one the
	// server starts only with PublicReads, and takes no requests for drills.
	Token string
	// PublicReads lets everybody who reaches the HTTP server read.
	PublicReads bool
	// Exporter gets the drills' timelines as traces; nil means the OTEL_*
	// environment's, if there is one. The reporter does not shut it down.
	Exporter sdktrace.SpanExporter
	// Quiet is how long a finished drill must have been silent before its
	// report is published with batches missing; 0 means 3 s.
	Quiet time.Duration
}

// Durable is the work of making reports, by which dead letters name it.
const Durable = "reporter-finished"

// quietDefault is Config.Quiet's.
const quietDefault = 3 * time.Second

type service struct {
	Config
	shelf  shelf
	logins logins
}

// Run reports finished drills and answers questions until ctx ends, which is
// not an error. It returns early only when one of its parts cannot go on; all
// its goroutines have ended by then.
func Run(ctx context.Context, c Config) error {
	if c.HTTP != nil {
		defer c.HTTP.Close() // the server has closed it, unless it never ran
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Quiet == 0 {
		c.Quiet = quietDefault
	}
	if c.HTTP != nil && c.Token == "" && !c.PublicReads {
		return errors.New("reporter: an HTTP address is set without a token; give a token file, or allow public reads")
	}
	if err := CheckToken(c.Token); err != nil {
		return fmt.Errorf("reporter: %w", err)
	}
	exporter, done, err := c.exporter(ctx)
	if err != nil {
		return fmt.Errorf("reporter: %w", err)
	}
	defer done()
	c.Exporter = exporter
	s := &service{Config: c, logins: newLogins()}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			defer cancel()
			if err := f(ctx); err != nil && ctx.Err() == nil {
				errs <- fmt.Errorf("reporter: %s: %w", name, err)
			}
		})
	}
	part("publish reports", func(ctx context.Context) error {
		return c.Bus.Work(ctx, Durable, bus.WorkOptions{Concurrency: 2}, s.handleFinished)
	})
	part("serve the API", func(ctx context.Context) error {
		return c.Bus.Serve(ctx, event.Reporter, s.endpoints())
	})
	if c.HTTP != nil {
		part("serve HTTP", s.serveHTTP)
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
