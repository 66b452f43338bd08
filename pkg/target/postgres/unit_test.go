package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

func TestSampleIsAGoodConfiguration(t *testing.T) {
	var m map[string]any
	if err := yaml.Unmarshal([]byte(sample), &m); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Check(raw); err != nil {
		t.Fatal(err)
	}
}

func TestLSN(t *testing.T) {
	for s, want := range map[string]lsn{"0/0": 0, "16/B374D848": 0x16B374D848, "": 0} {
		if got, err := parseLSN(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if s := lsn(0x16B374D848).String(); s != "16/B374D848" {
		t.Error(s)
	}
	for _, s := range []string{"x", "1", "1/", "/1", "1/2/3", "100000000/0", "-1/0"} {
		if got, err := parseLSN(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

func TestParseHistory(t *testing.T) {
	got, err := parseHistory("1\t0/3000060\tno recovery target specified\n\n# note\n2\t0/5000000\tx\n")
	if want := []fork{{1, 0x3000060}, {2, 0x5000000}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	for _, s := range []string{"1", "x 0/1", "1 0"} {
		if _, err := parseHistory(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestMoveDatabase(t *testing.T) {
	const ini = "; comment\n[databases]\nother = host=h port=1\napp = dbname=app host=10.0.0.1 port=5432 pool_size=5\n[pgbouncer]\napp = host=x\n"
	got, err := moveDatabase(ini, "app", Address{"db2", 6000})
	want := strings.Replace(ini, "host=10.0.0.1 port=5432", "host=db2 port=6000", 1)
	if err != nil || got != want {
		t.Fatalf("%v\n%s", err, got)
	}
	if got, err = moveDatabase("[databases]\napp =\n", "app", Address{"h", 1}); err != nil || !strings.Contains(got, "app = port=1 host=h") {
		t.Fatalf("%v %q", err, got)
	}
	for _, broken := range []string{"", "[databases]\n* = host=h\n", "[users]\napp = host=h\n"} {
		if _, err := moveDatabase(broken, "app", Address{"h", 1}); err == nil {
			t.Errorf("%q is taken", broken)
		}
	}
}

func TestFateOfAWrite(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want byte
	}{
		"rolled back":               {&pgconn.PgError{SeverityUnlocalized: "ERROR", Code: "25006"}, target.Failed},
		"ended while it waited":     {&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "57P01"}, target.Unknown},
		"no answer":                 {context.DeadlineExceeded, target.Unknown},
		"connection ended":          {io.ErrUnexpectedEOF, target.Unknown},
		"panic of the whole server": {&pgconn.PgError{SeverityUnlocalized: "PANIC"}, target.Unknown},
	} {
		if got := fateOf(c.err); got != c.want {
			t.Errorf("%s: %c, want %c", name, got, c.want)
		}
	}
}

func TestSecretsAreScrubbed(t *testing.T) {
	s := &servers{}
	t.Setenv("FIREDRILL_TEST_SECRET", "hunter2")
	if _, err := s.secrets.Resolve("password", target.SecretRef{Env: "FIREDRILL_TEST_SECRET"}); err != nil {
		t.Fatal(err)
	}
	cause := &pgconn.PgError{Code: "28P01", Message: "password hunter2 is wrong"}
	err := s.scrub(errors.Join(cause, context.Canceled))
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("it shows: %v", err)
	}
	if sqlCode(err) != "28P01" || !errors.Is(err, context.Canceled) {
		t.Error("the cause is lost")
	}
	if e := errors.New("clean"); s.scrub(e) != e {
		t.Error("an error without a secret was changed")
	}
	for _, text := range []string{"host=a password=geheim user=b", "PASSWORD = 'ge heim' x", `password='ge\'heim'`} {
		if got := hidePasswords(text); strings.Contains(got, "heim") {
			t.Errorf("it shows: %s", got)
		}
	}
}

func TestServerProcesses(t *testing.T) {
	const dir = "/data"
	ps := []control.Process{
		{PID: 30, Parent: 20, Name: "postgres", Dir: dir},
		{PID: 20, Parent: 1, Name: "postgres", Dir: dir},
		{PID: 31, Parent: 20, Name: "sh", Dir: dir},         // its archive command
		{PID: 32, Parent: 20, Name: "postgres", State: 'Z'}, // gone
		{PID: 40, Parent: 1, Name: "postgres", Dir: dir},    // an orphan of a killed postmaster
		{PID: 50, Parent: 1, Name: "bash", Dir: dir},        // a person who looks around
		{PID: 60, Parent: 1, Name: "postgres", Dir: "/elsewhere"},
	}
	if got := pidsOf(serverProcesses(ps, dir)); !reflect.DeepEqual(got, []int{20, 40, 30, 31}) {
		t.Error(got)
	}
}

// TestLeads goes through who is to lead when several nodes could.
func TestLeads(t *testing.T) {
	a := &node{Node: Node{Name: "a", Host: "h", Port: 1}}
	b := &node{Node: Node{Name: "b", Host: "h", Port: 2}}
	old := view{node: a, Timeline: 1, State: "in production", Checkpoint: 100}
	clean := view{node: a, Timeline: 1, State: "shut down", Checkpoint: 100}
	ahead := view{node: a, Timeline: 1, State: "shut down", Checkpoint: 300}
	running := view{node: a, Timeline: 1, Answers: true, Procs: []control.Process{{PID: 2}}}
	promoted := view{node: b, Timeline: 2, Answers: true, Procs: []control.Process{{PID: 3}}, Forks: []fork{{1, 200}}}
	standby := view{node: b, Timeline: 1, Answers: true, InRecovery: true}
	for name, c := range map[string]struct {
		views    []view
		upstream *node
		want     string
	}{
		"home":                                {[]view{running, standby}, a, "a"},
		"killed, not promoted":                {[]view{old, standby}, a, "a"},
		"killed, promoted, redirected":        {[]view{old, promoted}, b, "b"},
		"killed, promoted, not redirected":    {[]view{old, promoted}, a, "a"},
		"both run, clients moved":             {[]view{running, promoted}, b, "b"},
		"both run, clients stayed":            {[]view{running, promoted}, a, "a"},
		"in order, whatever the endpoint":     {[]view{clean, promoted}, a, "b"},
		"stopped in order after the fork":     {[]view{ahead, promoted}, a, "a"},
		"parted, and nobody knows of clients": {[]view{old, promoted}, nil, "b"},
		"half rebuilt":                        {[]view{{node: a, Rebuilding: true, Timeline: 9}, promoted}, a, "b"},
	} {
		s := &servers{nodes: []*node{a, b}, endpoint: fixed{c.upstream}}
		got := s.leads(t.Context(), c.views)
		if len(got) == 0 || got[0].node.Name != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// fixed is an endpoint that leads somewhere.
type fixed struct{ n *node }

func (f fixed) upstream(context.Context) (string, error) {
	if f.n == nil {
		return "nowhere:1", nil
	}
	return f.n.Address().String(), nil
}
func (fixed) redirect(context.Context, *node) error { return nil }
func (fixed) pause(context.Context) error           { return nil }
func (fixed) resume(context.Context) error          { return nil }

func (fixed) survey(context.Context, *node, *strict.Problems) {}

// stuck is an endpoint that moves nobody, and remembers how it was resumed.
type stuck struct {
	fixed
	resumed []error
}

func (*stuck) redirect(context.Context, *node) error { return errors.New("it does not move") }
func (e *stuck) resume(ctx context.Context) error {
	e.resumed = append(e.resumed, ctx.Err())
	return errors.New("it does not resume")
}

func TestFailedRedirectLetsClientsGoOn(t *testing.T) {
	e := &stuck{}
	s := &servers{endpoint: e, cfg: Config{Service: Address{"db", 5432}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.redirect(ctx, &node{})
	if len(e.resumed) != 1 || e.resumed[0] != nil {
		t.Errorf("resumed %v, want once, in a context that lives", e.resumed)
	}
	for _, part := range []string{"it does not move", "db:5432", "it does not resume", "by hand"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

func TestMembers(t *testing.T) {
	a, b, c := &node{Node: Node{Name: "a"}}, &node{Node: Node{Name: "b"}}, &node{Node: Node{Name: "c"}}
	primary := func(n *node, tl int) view { return view{node: n, Answers: true, Timeline: tl} }
	standby := func(n *node, streams bool) view {
		return view{node: n, Answers: true, InRecovery: true, Streaming: streams}
	}
	for name, x := range map[string]struct {
		views []view
		want  []string
	}{
		"home":                        {[]view{primary(a, 1), standby(b, true), standby(c, true)}, []string{"a", "b", "c"}},
		"one does not follow":         {[]view{primary(a, 1), standby(b, true), standby(c, false)}, []string{"a", "b"}},
		"one is down":                 {[]view{primary(a, 1), {node: b, StandbySignal: true}, standby(c, true)}, []string{"a", "c"}},
		"one is half rebuilt":         {[]view{primary(a, 1), {node: b, Answers: true, InRecovery: true, Streaming: true, Rebuilding: true}}, []string{"a"}},
		"the primary is down":         {[]view{{node: a}, standby(b, false), standby(c, false)}, []string{"b", "c"}},
		"a second primary, left over": {[]view{primary(a, 1), primary(b, 2), standby(c, false)}, []string{"b"}},
		"nobody":                      {[]view{{node: a}, {node: b}}, []string{}},
	} {
		if got := members(x.views); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

// TestRecordOfAnotherVersion: fields may be unknown; no list means all nodes, an
// empty one none.
func TestRecordOfAnotherVersion(t *testing.T) {
	a := &node{Node: Node{Name: "a"}}
	const rest = `"undo":"home","system_id":"7","home":"a","token":"firedrill-0123456789abcdef"`
	for text, want := range map[string]bool{
		`{` + rest + `}`: true, `{` + rest + `,"before":null}`: true, `{` + rest + `,"before":[]}`: false,
		`{` + rest + `,"before":["b"],"later":{"x":[1]}}`: false, `{` + rest + `,"before":["a"]}`: true,
	} {
		r, err := readRecord(json.RawMessage(text))
		if err != nil || r.has(a) != want {
			t.Errorf("%s: %v, %v", text, r.has(a), err)
		}
		// What is written is read back the same.
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := readRecord(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s: written %s, read %+v, %v", text, again, back, err)
		}
	}
	for _, bad := range []string{``, `{}`, `[]`, `{` + rest + `,"before":"a"}`} {
		if _, err := readRecord(json.RawMessage(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestParamsMistakes(t *testing.T) {
	infos := map[string]target.OperationInfo{}
	d := Driver{}.Describe()
	for prefix, list := range map[string][]target.OperationInfo{"": append(d.Faults, d.Actions...), "probe ": d.Probes, "check ": d.Checks} {
		for _, o := range list {
			infos[prefix+o.Name] = o
		}
	}
	for _, c := range []struct{ of, params, field string }{
		{FaultKill, `{"mode":"fast"}`, "mode"},
		{FaultKill, `[]`, "config"},
		{FaultKill, `{"node":1}`, "node"},
		{FaultStop, `{"mode":"hard"}`, "mode"},
		{FaultFillDisk, `{}`, "path"},
		{FaultFillDisk, `{"path":"tmp"}`, "path"},
		{FaultFillDisk, `{"path":"/x","bytes":-1}`, "bytes"},
		{FaultFillDisk, `{"path":"/x","bytes":1e40}`, "bytes"},
		{FaultCutReplication, `{"relay":"nowhere"}`, "relay"},
		{ActionFailback, `{"method":"hope"}`, "method"},
		{"probe " + ProbeRead, `{}`, "of"},
		{"probe " + ProbeWrite, `{"of":"w"}`, "of"},
		{"probe " + ProbeWrite, `{"maxConnections":-1}`, "maxConnections"},
		{"check " + CheckTables, `{"tables":["a b"]}`, "tables"},
		{"check " + CheckTables, `{"mode":"both"}`, "mode"},
		{"check " + CheckTimeline, `{"advance":-1}`, "advance"},
		{"check " + CheckForensics, `{"maxCommits":-1}`, "maxCommits"},
		{"check " + CheckReplication, `{"syncState":"yes"}`, "syncState"},
		{"check " + CheckHome, `{"node":"a"}`, "node"},
	} {
		err := infos[c.of].CheckParams(json.RawMessage(c.params))
		e, ok := errors.AsType[*target.FieldError](err)
		if !ok || e.Field != c.field || e.Fix == "" {
			t.Errorf("%s %s: %v, want a mistake in %s with a fix", c.of, c.params, err, c.field)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"nodes":[{"name":"a","port":1}],"service":{"port":70000}}`))
	f.Add([]byte(`{"nodes":[null],"endpoint":{"kind":"exec","exec":{"argv":[""]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseConfig(raw); err == nil && !json.Valid(raw) {
			t.Errorf("taken: %q", raw)
		}
	})
}

// TestEndOfLog: a file that is missing is the end only behind the last one.
func TestEndOfLog(t *testing.T) {
	const missing = `pg_waldump: error: could not find file "0000000100000001000000FF": No such file or directory`
	for name, c := range map[string]struct {
		message string
		files   []string
		want    bool
	}{
		"nothing follows":        {"pg_waldump: error: error in WAL record at 0/3000148: invalid record length at 0/3000180: wanted 24, got 0", nil, true},
		"nothing said":           {"", []string{"000000010000000100000001"}, false},
		"not found":              {"sh: 1: pg_waldump: not found", nil, false},
		"behind the last":        {missing, []string{"0000000100000001000000FD", "0000000100000001000000FE"}, true},
		"the next four GiB":      {`could not find file "000000010000000200000000"`, []string{"0000000100000001000000FF"}, true},
		"before others":          {missing, []string{"000000010000000200000000"}, false},
		"used again":             {missing, []string{"0000000100000001000000FD", "000000010000000200000003"}, false},
		"far behind the last":    {missing, []string{"0000000100000001000000F0"}, false},
		"no files":               {missing, []string{"00000001????????????????"}, false},
		"no files, the first":    {`could not find file "000000010000000000000001"`, []string{"00000001????????????????"}, false},
		"another timeline's end": {missing, []string{"0000000200000001000000FE"}, false},
	} {
		if got := endOfLog(c.message, c.files); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
