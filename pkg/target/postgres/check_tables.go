package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// tableSum is what a table's rows sum up to. Sums of hashes do not depend on the
// rows' order, and, unlike an exclusive or, do not cancel out for duplicates.
type tableSum struct {
	Rows string `json:"rows"`
	Sum1 string `json:"sum1"`
	Sum2 string `json:"sum2"`
	// How is record or text.
	How string `json:"how"`
}

func (t tableSum) String() string {
	return t.Rows + " rows, " + t.How + " sums " + t.Sum1 + " and " + t.Sum2
}

// tablesState is the baseline of the tables check.
type tablesState struct {
	Node   string              `json:"node"`
	At     string              `json:"at"`
	Tables map[string]tableSum `json:"tables"`
}

const (
	seedOne = "0"
	seedTwo = "7046029254386353131"
)

// noHash is the server's code for a type that cannot be hashed, such as json.
const noHash = "42883"

func (s *servers) sumTable(ctx context.Context, c *session, table, how string) (tableSum, error) {
	expr := "hash_record_extended(t, %s)"
	if how == "text" {
		expr = "hashtextextended(t::text, %s)"
	}
	sql := fmt.Sprintf("SELECT count(*), coalesce(sum("+expr+"::numeric), 0), coalesce(sum("+expr+"::numeric), 0) FROM %s t", seedOne, seedTwo, table)
	if _, err := c.simple(ctx, "SAVEPOINT sum"); err != nil {
		return tableSum{}, err
	}
	r, err := c.row(ctx, sql)
	if err != nil && how == "record" && sqlCode(err) == noHash {
		if _, err := c.simple(ctx, "ROLLBACK TO sum"); err != nil {
			return tableSum{}, err
		}
		return s.sumTable(ctx, c, table, "text")
	}
	if err != nil {
		return tableSum{}, fmt.Errorf("table %s: %w", table, err)
	}
	return tableSum{Rows: r[0], Sum1: r[1], Sum2: r[2], How: how}, nil
}

// sumTables sums tables in one snapshot.
func (s *servers) sumTables(ctx context.Context, n *node, tables []string, how string) (map[string]tableSum, error) {
	c, err := s.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	// Text depends on these settings, and clients' defaults differ between servers.
	if _, err := c.simple(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; SET LOCAL search_path = public"); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	out := map[string]tableSum{}
	for _, t := range tables {
		if out[t], err = s.sumTable(ctx, c, t, how); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return out, nil
}

// tablesToCheck are those asked for, or all of the users' but the canaries.
func (s *servers) tablesToCheck(ctx context.Context, n *node, p checkParams) ([]string, error) {
	if len(p.Tables) > 0 {
		return p.Tables, nil
	}
	rows, err := s.exec(ctx, n, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND c.oid IS DISTINCT FROM to_regclass($1) ORDER BY 1`, s.cfg.LedgerTable)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range rows {
		out = append(out, r[0])
	}
	return out, nil
}

func hashKind(p checkParams) string {
	if p.Strict == "text" {
		return "text"
	}
	return "record"
}

func (s *servers) tablesBaseline(ctx context.Context, p checkParams) (any, error) {
	if p.Mode == "replicas" {
		return nil, nil
	}
	now, _, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	tables, err := s.tablesToCheck(ctx, now.node, p)
	if err != nil {
		return nil, err
	}
	sums, err := s.sumTables(ctx, now.node, tables, hashKind(p))
	return tablesState{Node: now.node.Name, At: now.At.String(), Tables: sums}, err
}

func (s *servers) checkTables(ctx context.Context, p checkParams, baseline json.RawMessage) ([]event.Property, error) {
	if p.Mode == "replicas" {
		return s.compareReplicas(ctx, p)
	}
	if len(baseline) == 0 || string(baseline) == "null" {
		return []event.Property{undecided("tables", "there is no baseline", "one recorded before the fault")}, nil
	}
	var base tablesState
	if err := json.Unmarshal(baseline, &base); err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	now, _, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	if len(base.Tables) == 0 {
		return []event.Property{undecided("tables", "the baseline has no tables", "at least one")}, nil
	}
	var names []string
	for t := range base.Tables {
		names = append(names, t)
	}
	slices.Sort(names)
	var props []event.Property
	for _, t := range names {
		was := base.Tables[t]
		sums, err := s.sumTables(ctx, now.node, []string{t}, was.How)
		switch {
		case sqlCode(err) == "42P01":
			props = append(props, target.Judge("table "+t, false, "it is gone", was.String()))
		case err != nil:
			return nil, err
		default:
			props = append(props, target.Judge("table "+t, sums[t] == was, sums[t].String(), was.String()))
		}
	}
	return props, nil
}

// replicaTries bounds how often a table that is being written is compared anew.
const replicaTries = 3

// compareReplicas compares the standbys with the primary at one log position. It
// does not stop writers: a table counts only if it is the same before and after
// the standbys were read, at a position that they had replayed.
func (s *servers) compareReplicas(ctx context.Context, p checkParams) ([]event.Property, error) {
	now, views, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	tables, err := s.tablesToCheck(ctx, now.node, p)
	if err != nil {
		return nil, err
	}
	var standbys []*node
	for _, v := range views {
		if v.Answers && v.InRecovery {
			standbys = append(standbys, v.node)
		}
	}
	if len(standbys) == 0 {
		return []event.Property{undecided("tables", "no standby answers: "+describe(views), "a standby to compare with")}, nil
	}
	var props []event.Property
	for _, t := range tables {
		got, err := s.compareTable(ctx, now.node, standbys, t, hashKind(p))
		if err != nil {
			return nil, err
		}
		props = append(props, got...)
	}
	return props, nil
}

func (s *servers) compareTable(ctx context.Context, primary *node, standbys []*node, table, how string) ([]event.Property, error) {
	sum := func(n *node) (tableSum, error) {
		m, err := s.sumTables(ctx, n, []string{table}, how)
		return m[table], err
	}
	for range replicaTries {
		before, err := sum(primary)
		if err != nil {
			return nil, err
		}
		at, err := s.mark(ctx, primary)
		if err != nil {
			return nil, err
		}
		found := map[string]tableSum{}
		for _, n := range standbys {
			if err := s.awaitReplay(ctx, n, at); err != nil {
				return []event.Property{undecided("table "+table+" on "+n.Name, err.Error(), "replay up to "+at)}, nil
			}
			if found[n.Name], err = sum(n); err != nil {
				return nil, err
			}
		}
		after, err := sum(primary)
		if err != nil {
			return nil, err
		}
		if before != after {
			continue
		}
		var props []event.Property
		for _, n := range standbys {
			props = append(props, target.Judge("table "+table+" on "+n.Name, found[n.Name] == before, found[n.Name].String()+" at "+at, before.String()))
		}
		return props, nil
	}
	return []event.Property{undecided("table "+table, fmt.Sprintf("it changed during each of %d comparisons", replicaTries), "a moment without writes")}, nil
}

// mark returns a log position past all that a reader has seen so far. An idle
// primary does not send its last records by itself, so the mark, an empty message
// in the log that changes no data, is committed and with it what lies before.
func (s *servers) mark(ctx context.Context, primary *node) (string, error) {
	c, err := s.open(ctx, primary)
	if err != nil {
		return "", err
	}
	defer c.close()
	if _, err := c.simple(ctx, "BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, 'firedrill', ''); COMMIT"); err != nil {
		return "", fmt.Errorf("node %s: mark the log: %w", primary.Name, err)
	}
	r, err := c.row(ctx, "SELECT pg_current_wal_flush_lsn()")
	if err != nil {
		return "", fmt.Errorf("node %s: %w", primary.Name, err)
	}
	return r[0], nil
}

func (s *servers) awaitReplay(ctx context.Context, n *node, at string) error {
	return target.Poll(ctx, 30*time.Second, 20*time.Millisecond, "node "+n.Name+" to replay up to "+at, func(ctx context.Context) (bool, string, error) {
		r, err := s.ask(ctx, n, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn, pg_last_wal_replay_lsn()", at)
		if err != nil {
			return false, "", err
		}
		return r[0] == "t", "it has " + r[1], nil
	})
}
