package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// The checks.
const (
	CheckTimeline    = "timeline"
	CheckForensics   = "wal-forensics"
	CheckTables      = "tables"
	CheckAmcheck     = "amcheck"
	CheckReplication = "replication"
	CheckHome        = "home"
)

// checkParams are the parameters of any check; each allows some.
type checkParams struct {
	// Advance is how far the timeline must have advanced; nil means that any
	// advance will do.
	Advance *int `json:"advance"`
	// MaxCommits is how many commits may be missing; nil means not judged.
	MaxCommits    *int64   `json:"maxCommits"`
	Tables        []string `json:"tables"`
	Mode          string   `json:"mode"`
	Strict        string   `json:"strict"`
	HeapAllIndex  bool     `json:"heapallindexed"`
	Install       bool     `json:"install"`
	MaxLagBytes   int64    `json:"maxLagBytes"`
	SyncState     string   `json:"syncState"`
	SettleSeconds int64    `json:"settleSeconds"`
}

// checkKind is one row of the table of checks.
type checkKind struct {
	name          string
	doc           string
	allowed       []string
	needsBaseline bool
	baseline      func(*servers, context.Context, checkParams) (any, error)
	check         func(*servers, context.Context, checkParams, json.RawMessage) ([]event.Property, error)
}

func checkKinds() []checkKind {
	return []checkKind{
		{name: CheckTimeline, allowed: []string{"advance"}, needsBaseline: true, baseline: (*servers).timelineBaseline, check: (*servers).checkTimeline,
			doc: "System identifier, timeline, fork and log positions. params: advance (how many timelines further; any)."},
		{name: CheckForensics, allowed: []string{"maxCommits"}, check: (*servers).checkForensics,
			doc: "Commits in the dead former primary's log after the fork: all clients', acknowledged or not. params: maxCommits (not judged)."},
		{name: CheckTables, allowed: []string{"tables", "mode", "strict"}, needsBaseline: true, baseline: (*servers).tablesBaseline, check: (*servers).checkTables,
			doc: "Row counts and hashes of tables. params: tables (all but the canaries), mode: baseline (default) or replicas, strict: text (1.0 and 1.00 differ)."},
		{name: CheckAmcheck, allowed: []string{"heapallindexed", "install"}, check: (*servers).checkAmcheck,
			doc: "pg_amcheck of heaps and B-trees on the acting primary. params: heapallindexed, install (create the extension if it is missing)."},
		{name: CheckReplication, allowed: []string{"maxLagBytes", "syncState", "settleSeconds"}, check: (*servers).checkReplication,
			doc: "Every standby streams, with a bounded lag. params: maxLagBytes (16 MiB), syncState: sync, async, potential or quorum (any), settleSeconds (10)."},
		{name: CheckHome, check: (*servers).checkHome,
			doc: "Every node has its home role, and the endpoint leads to the primary."},
	}
}

func checkNamed(name string) (checkKind, error) {
	for _, k := range checkKinds() {
		if k.name == name {
			return k, nil
		}
	}
	return checkKind{}, fmt.Errorf("check %q: %w; see the driver's README", name, target.ErrUnsupported)
}

func (k checkKind) readParams(raw json.RawMessage) (checkParams, error) {
	var p checkParams
	if err := strict.DecodeAllowed(raw, &p, k.allowed); err != nil {
		return p, err
	}
	var ps strict.Problems
	if p.Mode != "" {
		ps.OneOf("mode", p.Mode, "baseline", "replicas")
	}
	if p.Strict != "" {
		ps.OneOf("strict", p.Strict, "text")
	}
	if p.SyncState != "" {
		ps.OneOf("syncState", p.SyncState, "sync", "async", "potential", "quorum")
	}
	for _, t := range p.Tables {
		if !identifier().MatchString(t) {
			ps.Add("tables", t, "use lower-case letters, digits and _, with the schema before a dot if need be")
		}
	}
	if p.Advance != nil && *p.Advance < 0 {
		ps.Add("advance", strconv.Itoa(*p.Advance), "a timeline never goes back: give 0 or more")
	}
	if p.MaxCommits != nil && *p.MaxCommits < 0 {
		ps.Add("maxCommits", strconv.FormatInt(*p.MaxCommits, 10), "give 0 or more")
	}
	if p.MaxLagBytes < 0 || p.SettleSeconds < 0 {
		ps.Add("maxLagBytes", "", "give 0 or more here and for settleSeconds")
	}
	return p, errors.Join(ps...)
}

// Baseline records what a check compares with later; nil for checks that need none.
func (s *servers) Baseline(ctx context.Context, spec target.CheckSpec) (json.RawMessage, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	p, err := k.readParams(spec.Params)
	if err != nil || k.baseline == nil {
		return nil, err
	}
	b, err := k.baseline(s, ctx, p)
	if err != nil {
		return nil, s.scrub(fmt.Errorf("baseline of %s: %w", spec.Name, err))
	}
	return json.Marshal(b)
}

// Check makes one check.
func (s *servers) Check(ctx context.Context, spec target.CheckSpec, baseline json.RawMessage) ([]event.Property, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	p, err := k.readParams(spec.Params)
	if err != nil {
		return nil, err
	}
	props, err := k.check(s, ctx, p, baseline)
	if err != nil {
		return props, s.scrub(fmt.Errorf("check %s: %w", spec.Name, err))
	}
	for i := range props {
		props[i].Found = s.scrubText(props[i].Found)
		props[i].Samples = props[i].Samples[:min(len(props[i].Samples), 20)]
	}
	return props, nil
}

func info(name, found string) event.Property {
	return event.Property{Name: name, Result: event.ResultInfo, Found: found}
}

func undecided(name, found, wanted string) event.Property {
	return event.Property{Name: name, Result: event.ResultInconclusive, Found: found, Wanted: wanted}
}

// primaryNow looks at the nodes and finds the acting primary.
func (s *servers) primaryNow(ctx context.Context) (view, []view, error) {
	views, err := s.look(ctx, lookLimit)
	if err != nil {
		return view{}, nil, err
	}
	p := acting(views)
	if p == nil {
		return view{}, views, fmt.Errorf("%w that answers: %s", ErrNoPrimary, describe(views))
	}
	return *p, views, nil
}

// timelineState is the baseline of the timeline check.
type timelineState struct {
	SystemID string `json:"system_id"`
	Node     string `json:"node"`
	Timeline int    `json:"timeline"`
	At       string `json:"at"`
}

func (s *servers) timelineBaseline(ctx context.Context, _ checkParams) (any, error) {
	p, _, err := s.primaryNow(ctx)
	return timelineState{SystemID: p.SysID, Node: p.nodeName(), Timeline: p.Timeline, At: p.At.String()}, err
}

func (v view) nodeName() string {
	if v.node == nil {
		return ""
	}
	return v.node.Name
}

func (s *servers) checkTimeline(ctx context.Context, p checkParams, baseline json.RawMessage) ([]event.Property, error) {
	now, views, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	props := []event.Property{info("primary", fmt.Sprintf("node %s on timeline %d at %s", now.node.Name, now.Timeline, now.At))}
	for _, v := range views {
		if v.Answers && v.InRecovery {
			props = append(props, info("standby "+v.node.Name, fmt.Sprintf("received %s, replayed %s, timeline %d", v.At, v.Replayed, v.Timeline)))
		}
	}
	var base timelineState
	if len(baseline) == 0 {
		return append(props, undecided("timeline", fmt.Sprintf("timeline %d, without a baseline to compare with", now.Timeline), "a baseline")), nil
	}
	if err := json.Unmarshal(baseline, &base); err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	at, err := parseLSN(base.At)
	if err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	props = append(props, target.Judge("system identifier", now.SysID == base.SystemID, now.SysID, base.SystemID))
	advance := now.Timeline - base.Timeline
	found := fmt.Sprintf("timeline %d, %d further than before the fault", now.Timeline, advance)
	if p.Advance == nil {
		props = append(props, target.Judge("timeline", advance >= 0, found, "no step back"))
	} else {
		props = append(props, target.Judge("timeline", advance == *p.Advance, found, fmt.Sprintf("%d further", *p.Advance)))
	}
	props = append(props, target.Judge("log position", now.At >= at, now.At.String(), "not before "+base.At))
	return append(props, s.forkProperty(ctx, now, base, at)...), nil
}

// forkProperty says where the primary's history left the baseline's timeline.
func (s *servers) forkProperty(ctx context.Context, now view, base timelineState, at lsn) []event.Property {
	if now.Timeline <= base.Timeline {
		return nil
	}
	forks, err := s.history(ctx, now)
	if err != nil {
		return []event.Property{undecided("fork", err.Error(), "a fork at or after "+base.At)}
	}
	for _, f := range forks {
		if f.Parent == base.Timeline {
			return []event.Property{target.Judge("fork", f.At >= at, fmt.Sprintf("left timeline %d at %s", f.Parent, f.At), "not before "+base.At)}
		}
	}
	return []event.Property{target.Judge("fork", false, fmt.Sprintf("the history of timeline %d does not contain timeline %d", now.Timeline, base.Timeline), "a fork from it")}
}

// history is the acting primary's timeline history.
func (s *servers) history(ctx context.Context, v view) ([]fork, error) {
	r, err := s.ask(ctx, v.node, "SELECT pg_read_file($1)", fmt.Sprintf("pg_wal/%08X.history", v.Timeline))
	if err != nil {
		return nil, fmt.Errorf("history of timeline %d: %w", v.Timeline, err)
	}
	return parseHistory(r[0])
}

func (s *servers) checkAmcheck(ctx context.Context, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	now, _, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{now.node.BinDir, now.node.Host, strconv.Itoa(int(now.node.Port)), s.admin.user, s.cfg.Database, s.cfg.SSLMode}
	if p.HeapAllIndex {
		args = append(args, "--heapallindexed")
	}
	if p.Install {
		args = append(args, "--install-missing")
	}
	began := time.Now()
	out, err := s.tool(ctx, now.node, s.admin, `bin=$1 h=$2 p=$3 u=$4 db=$5; export PGSSLMODE="$6"; shift 6
"$bin/pg_amcheck" -h "$h" -p "$p" -U "$u" --no-strict-names "$@" "$db" 2>&1; echo "exit: $?"`, args...)
	if err != nil {
		return nil, err
	}
	text, code, _ := strings.Cut(out, "exit: ")
	text = strings.TrimSpace(text)
	lines := strings.Split(text, "\n")
	took := time.Since(began).Round(time.Millisecond)
	switch {
	case strings.Contains(text, "amcheck is not installed") || strings.Contains(text, "no relations to check"):
		return []event.Property{undecided("heaps and indexes", text, "the amcheck extension in the database; create it, or set params.install")}, nil
	case code == "0":
		return []event.Property{target.Judge("heaps and indexes", true, fmt.Sprintf("no corruption found on node %s in %v", now.node.Name, took), "no corruption")}, nil
	case code == "2" && !strings.Contains(text, "pg_amcheck: error:"):
		prop := target.Judge("heaps and indexes", false, fmt.Sprintf("corruption found on node %s", now.node.Name), "no corruption")
		prop.Samples = lines
		return []event.Property{prop}, nil
	}
	return []event.Property{undecided("heaps and indexes", "pg_amcheck ended with "+code+": "+text, "no corruption")}, nil
}
