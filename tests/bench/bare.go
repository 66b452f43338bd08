package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// bare is the peer of prober: the least that writes a row at the same intervals, over
// one connection and over a new one each time, as somebody would write it with pgx. It
// knows no deadline, no attempt that hangs and no ledger. What it costs is what this
// machine takes for the questions themselves.
func bare(ctx context.Context, in io.Reader, out io.Writer, every time.Duration) error {
	open, err := opener(in)
	if err != nil {
		return err
	}
	pooled, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = pooled.Close(ctx) }() // nothing is left to be said to it
	if _, err := pooled.Exec(ctx, "CREATE TABLE IF NOT EXISTS bare (n bigint)"); err != nil {
		return err
	}
	lanes, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() {
		ended <- eachTick(lanes, every, func(n int) error { return insert(ctx, pooled, n) })
	}()
	go func() {
		ended <- eachTick(lanes, fresh, func(n int) error {
			c, err := open(ctx)
			if err != nil {
				return err
			}
			return errors.Join(insert(ctx, c, n), c.Close(ctx))
		})
	}()
	pause(ctx, time.Second)
	before, began := cpuTime(), time.Now()
	pause(ctx, 10*time.Second)
	used, took := cpuTime()-before, time.Since(began)
	stop()
	if err := errors.Join(<-ended, <-ended); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, 100*used.Seconds()/took.Seconds())
	return err
}

// eachTick calls do at an interval until ctx ends, or do fails.
func eachTick(ctx context.Context, every time.Duration, do func(n int) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := do(n); err != nil {
				return err
			}
		}
	}
}

func insert(ctx context.Context, c *pgx.Conn, n int) error {
	_, err := c.Exec(ctx, "INSERT INTO bare VALUES ($1)", n)
	return err
}

// opener reads a target's configuration, and connects as its clients do.
func opener(in io.Reader) (func(context.Context) (*pgx.Conn, error), error) {
	var cfg postgres.Config
	if err := json.NewDecoder(in).Decode(&cfg); err != nil {
		return nil, err
	}
	password, err := cfg.Password.Resolve()
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s/%s?sslmode=disable", net.JoinHostPort(cfg.Service.Host, strconv.Itoa(int(cfg.Service.Port))), cfg.Database))
	if err != nil {
		return nil, err
	}
	c.User, c.Password = cfg.User, password
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, c) }, nil
}
