package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// held reports whether the endpoint holds clients up.
func (r *rig) held(ctx context.Context) (bool, error) {
	if r.PgBouncer == nil {
		return r.Service().State().Mode != relay.Forward, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := r.admin(ctx, r.PgBouncer.Port, "pgbouncer")
	if err != nil {
		return false, err
	}
	defer c.Close(ctx)
	results, err := c.PgConn().Exec(ctx, "SHOW DATABASES").ReadAll()
	if err != nil {
		return false, err
	}
	for _, row := range results[0].Rows {
		values := map[string]string{}
		for i, f := range results[0].FieldDescriptions {
			values[f.Name] = string(row[i])
		}
		if values["name"] == r.Database {
			return values["paused"] == "1", nil
		}
	}
	return false, fmt.Errorf("pgbouncer has no database %s", r.Database)
}

// admin connects as the superuser to a port of this machine.
func (r *rig) admin(ctx context.Context, port int, database string) (*pgx.Conn, error) {
	password, err := os.ReadFile(r.Secrets.Admin)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable default_query_exec_mode=simple_protocol", port, r.Admin, database))
	if err != nil {
		return nil, err
	}
	c.Password = strings.TrimSpace(string(password))
	return pgx.ConnectConfig(ctx, c)
}

// notHeld checks that clients are let through, to a node that is the primary.
func (r *rig) notHeld(t *testing.T, when string, node int) {
	t.Helper()
	if held, err := r.held(t.Context()); err != nil || held {
		t.Errorf("%s clients are still held: %v, %v", when, held, err)
	}
	eventually(t, "a client to be served "+when, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		c, err := r.service(ctx)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		var port int
		var recovering bool
		if err := c.QueryRow(ctx, "SELECT inet_server_port(), pg_is_in_recovery()").Scan(&port, &recovering); err != nil {
			return err
		}
		if port != r.Nodes[node].Port || recovering {
			return fmt.Errorf("served by port %d, in recovery %v", port, recovering)
		}
		return nil
	})
}

// failbackWith plans a failback while b is the primary, and does it under ctx.
func (r *rig) failbackWith(t *testing.T, ctx context.Context) error {
	t.Helper()
	tg := r.open(t)
	op := target.Operation{Drill: "test-0", Step: "failback", Name: postgres.ActionFailback}
	p, err := tg.Injector.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	e, err := tg.Injector.Do(ctx, op, p)
	t.Logf("failback: %v%s", err, sorted(e.Details))
	return err
}

// onB runs a statement on b, in the database that the driver connects to.
func (r *rig) onB(t *testing.T, sql string) {
	t.Helper()
	c, err := r.admin(t.Context(), r.Nodes[1].Port, r.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// abortWhen starts a failback and aborts it once f returns nil.
func (r *rig) abortWhen(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, abort := context.WithCancel(t.Context())
	defer abort()
	done := make(chan error, 1)
	go func() { done <- r.failbackWith(t, ctx) }()
	eventually(t, what, f)
	abort()
	if err := <-done; err == nil {
		t.Error("the aborted failback reports success")
	}
}

// TestClientsAreLetGoOn fails the switchover back to a after clients were held:
// because a refuses to be promoted, and because the drill was aborted before and
// after a was told.
func TestClientsAreLetGoOn(t *testing.T) {
	for name, o := range map[string]lab.PostgresOptions{"relay": {}, "pgbouncer": {PgBouncer: true}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, o)
			tg := r.open(t)
			do(t, tg, postgres.FaultKill, nil)
			_, op, record := do(t, tg, postgres.ActionPromote, nil)
			do(t, tg, postgres.ActionRedirect, nil)

			r.onB(t, "ALTER FUNCTION pg_catalog.pg_promote(boolean, integer) RENAME TO no_promote")
			err := r.failbackWith(t, t.Context())
			if err == nil || !strings.Contains(err.Error(), "the node refuses to be promoted") {
				t.Errorf("failback without a promotion: %v", err)
			}
			r.notHeld(t, "after the failed promotion", 1)

			// The order to stop b waits while clients are held.
			release, _ := r.lockNode(t, "b")
			r.abortWhen(t, "clients to be held", func(ctx context.Context) error {
				held, err := r.held(ctx)
				if err == nil && !held {
					err = errors.New("they are not")
				}
				return err
			})
			r.notHeld(t, "after the abort", 1)
			release()

			// a becomes the primary, and whoever told it to gets no answer.
			r.onB(t, "CREATE FUNCTION public.pg_promote(boolean) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM no_promote(false, 60); PERFORM pg_sleep(60); RETURN true; END $$")
			r.abortWhen(t, "a to be the primary", func(ctx context.Context) error {
				var recovering bool
				if err := r.query(ctx, "a", "SELECT pg_is_in_recovery()", &recovering); err != nil || recovering {
					return fmt.Errorf("in recovery %v, %w", recovering, errors.Join(err))
				}
				return nil
			})
			r.notHeld(t, "after the abort of a promotion", 0)
			if err := r.down("b")(t.Context()); err != nil {
				t.Errorf("b was started beside the new primary: %v", err)
			}
			undo(t, r.open(t), op, record)
			eventually(t, "home", r.healthy)
			if r.PgBouncer != nil {
				r.cutOffRedirect(t)
			}
		})
	}
}

// cutOffRedirect aborts a redirect when PgBouncer's file is written and not yet
// loaded: the next reload, by whoever it may be, must not move clients.
func (r *rig) cutOffRedirect(t *testing.T) {
	t.Helper()
	before, err := os.ReadFile(r.PgBouncer.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	script, written := filepath.Join(r.Dir, "slow"), filepath.Join(r.Dir, "written")
	text := `#!/bin/sh
in=$(cat) && printf '%s\n' "$in" | sh || exit
case "$in" in *firedrill-new*) [ -e "` + written + `" ] || { : >"` + written + `"; sleep 60; };; esac
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	r.config = r.edit(t, func(c map[string]any) {
		c["endpoint"].(map[string]any)["pgbouncer"].(map[string]any)["place"] = map[string]any{"kind": "exec", "argv": []string{script}}
	})
	tg := r.open(t)
	op := target.Operation{Drill: "test-0", Step: "redirect", Name: postgres.ActionRedirect, Params: raw(t, map[string]any{"node": "b"})}
	p, err := tg.Injector.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	ctx, abort := context.WithCancel(t.Context())
	defer abort()
	done := make(chan error, 1)
	go func() {
		_, err := tg.Injector.Do(ctx, op, p)
		done <- err
	}()
	eventually(t, "the file to be written", func(context.Context) error {
		_, err := os.Stat(written)
		return err
	})
	abort()
	if err := <-done; err == nil {
		t.Error("the aborted redirect reports success")
	}
	after, err := os.ReadFile(r.PgBouncer.ConfigFile)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("pgbouncer.ini is left changed: %v\n%s", err, after)
	}
	if held, err := r.held(t.Context()); err != nil || held {
		t.Errorf("clients are held: %v, %v", held, err)
	}
	eventually(t, "home", r.healthy)
}
