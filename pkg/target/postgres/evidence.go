package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lazy"
)

// logTail is how many bytes of a node's log are kept.
const logTail = 16 << 10

// collectLimit bounds the evidence of one node.
const collectLimit = 10 * time.Second

// Collect gathers, for each node, its state, replication, settings, control file
// and log. What could not be had is in the error; the rest is returned.
func (s *servers) Collect(ctx context.Context) ([]event.Artifact, error) {
	all, errs := make([][]event.Artifact, len(s.nodes)), make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, collectLimit)
			defer cancel()
			all[i], errs[i] = s.collectNode(ctx, n)
		})
	}
	wg.Wait()
	var out []event.Artifact
	for _, a := range all {
		out = append(out, a...)
	}
	up, err := s.endpoint.upstream(ctx)
	if up == "" {
		up = "it cannot say"
	}
	out = append(out, event.Artifact{Name: "endpoint", Text: fmt.Sprintf("kind %s, service %s, leads to: %s", s.cfg.Endpoint.Kind, s.cfg.Service, up)})
	return out, s.scrub(errors.Join(append(errs, err)...))
}

func (s *servers) collectNode(ctx context.Context, n *node) ([]event.Artifact, error) {
	var out []event.Artifact
	var errs []error
	keep := func(name, text string, cut bool, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of node %s: %w", name, n.Name, err))
		}
		if text != "" {
			out = append(out, event.Artifact{Name: n.Name + "/" + name, Text: hidePasswords(s.scrubText(text)), Truncated: cut})
		}
	}
	v, err := s.lookAt(ctx, n, lookLimit)
	keep("state", fmt.Sprintf("%s, timeline %d, %d processes, log at %s, replayed %s", v.role(), v.Timeline, len(v.Procs), v.At, v.Replayed), false, err)
	text, err := s.run(ctx, n, `"$1/pg_controldata" -D "$2"`, n.BinDir, n.DataDir)
	keep("pg_controldata", text, false, err)
	log, cut, err := n.host.Tail(ctx, n.LogFile, logTail)
	keep("log", string(log), cut, err)
	if !v.Answers {
		return out, errors.Join(append(errs, v.SQLError)...)
	}
	c, err := s.open(ctx, n)
	if err != nil {
		return out, errors.Join(append(errs, err)...)
	}
	defer c.close()
	for _, q := range []struct{ name, sql string }{
		{"pg_stat_replication", "SELECT application_name, client_addr, state, sent_lsn, write_lsn, flush_lsn, replay_lsn, sync_state, reply_time FROM pg_stat_replication"},
		{"pg_stat_wal_receiver", "SELECT pid, status, receive_start_lsn, written_lsn, flushed_lsn, received_tli, latest_end_time, sender_host, sender_port FROM pg_stat_wal_receiver"},
		{"pg_replication_slots", "SELECT slot_name, slot_type, active, restart_lsn, wal_status FROM pg_replication_slots"},
		{"settings", "SELECT name, setting, unit, source FROM pg_settings WHERE source NOT IN ('default', 'override') ORDER BY 1"},
		{"pg_stat_activity", "SELECT pid, usename, application_name, backend_type, state, wait_event_type, wait_event, xact_start FROM pg_stat_activity WHERE pid <> pg_backend_pid() ORDER BY 1"},
	} {
		rows, err := c.simple(ctx, q.sql)
		keep(q.name, table(rows), false, err)
	}
	return out, errors.Join(errs...)
}

// table writes rows as one line each.
func table(rows []map[string]string) string {
	if len(rows) == 0 {
		return "no rows"
	}
	var b strings.Builder
	for _, r := range rows {
		var pairs []string
		for k, v := range r {
			if v != "" {
				pairs = append(pairs, k+"="+v)
			}
		}
		slices.Sort(pairs)
		b.WriteString(strings.Join(pairs, " ") + "\n")
	}
	return b.String()
}

var password = lazy.Regexp(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.|'')*'|\S+)`)

// hidePasswords hides passwords that are not firedrill's own, such as one in
// primary_conninfo.
func hidePasswords(text string) string { return password().ReplaceAllString(text, "${1}[secret]") }
