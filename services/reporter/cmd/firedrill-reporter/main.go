// Command firedrill-reporter runs the reporter as a process of its own.
package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/reporter"
)

func main() {
	var c reporter.Config
	var tokenFile, httpAddr string
	run.Service(event.Reporter, func(ctx context.Context, p run.Process) error {
		var err error
		if c.Keyring, err = keys.ReadKeyring(p.Keyring); err != nil {
			return fmt.Errorf("--keyring: %w", err)
		}
		if c.Token, err = (target.SecretRef{File: tokenFile}).Resolve(); err != nil {
			return fmt.Errorf("--http-token-file: %w", err)
		}
		if httpAddr != "" {
			if c.HTTP, err = reporter.Listen(ctx, httpAddr); err != nil {
				return fmt.Errorf("--http-addr: %w", err)
			}
		}
		c.Bus, c.Log = p.Bus, p.Log
		return reporter.Run(ctx, c)
	}, run.WithFlags(func(fs *flag.FlagSet) {
		fs.StringVar(&c.OutDir, "out-dir", "", "directory for reports, one folder a drill; empty writes none")
		fs.StringVar(&httpAddr, "http-addr", "", "host:port of the HTTP server; empty serves none")
		fs.StringVar(&tokenFile, "http-token-file", "", "file with the bearer token of the HTTP server")
		fs.BoolVar(&c.PublicReads, "public-reads", false, "let everybody who reaches the HTTP server read")
	}))
}
