package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// need is what a drill's operations, and undoing them, will ask of every node.
type need struct {
	// home: nodes are started, promoted and rebuilt. Without it only settings and files
	// are put back.
	home bool
	// rewind and baseBackup are the ways of rebuilding that may be taken; a rewind that
	// fails is followed by a base backup, wherever that is possible.
	rewind, baseBackup bool
}

// needOf gathers what operations need.
func (s *servers) needOf(ops []target.Operation) (need, error) {
	var n need
	var errs []error
	for _, op := range ops {
		k, err := target.Named(operations(), op.Name, operationKind.title)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p, err := k.readParams(op.Params)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		// A freeze leads home as well if another node was promoted meanwhile.
		if !k.action && op.Name != FaultKill && op.Name != FaultFreeze && op.Name != FaultStop {
			continue
		}
		n.home = true
		method := s.method(record{Method: p.Method})
		n.rewind = n.rewind || method == MethodRewind
		n.baseBackup = n.baseBackup || method == MethodBaseBackup
	}
	return n, errors.Join(errs...)
}

// programs are what has to be in every node's binDir.
func (n need) programs() []string {
	out := []string{"pg_controldata"}
	if n.home {
		out = append(out, "pg_ctl", "postgres", "pg_basebackup")
	}
	if n.rewind {
		out = append(out, "pg_rewind")
	}
	return out
}

// tools are the system's programs that the scripts for the operations run.
func (n need) tools() []string {
	out := []string{"sed", "grep", "head", "readlink"}
	if n.home {
		out = append(out, "flock", "tar", "find", "sort", "sha256sum", "sync", "tail")
	}
	return out
}

// Survey tries everything that bringing the cluster home will need, as far as that can
// be done by reading: programs and directories on each node as the owner of its data,
// the logins, from where they will be used, the endpoint, and what pg_rewind asks for.
func (s *servers) Survey(ctx context.Context, ops []target.Operation) (target.Survey, error) {
	need, err := s.needOf(ops)
	if err != nil {
		return target.Survey{}, err
	}
	var views []view
	var looked error
	var looks []func(*strict.Problems)
	for i, n := range s.nodes {
		looks = append(looks, func(p *strict.Problems) { s.surveyFiles(ctx, i, n, need, p) })
	}
	looks = append(looks,
		func(*strict.Problems) { views, looked = s.look(ctx, lookLimit) },
		func(p *strict.Problems) { s.surveyService(ctx, p) })
	if need.home {
		looks = append(looks, func(p *strict.Problems) { s.surveyEndpoint(ctx, p) })
	}
	problems := strict.Gather(looks...)
	sv := target.Survey{Parts: s.parts(views)}
	if looked != nil && len(problems) == 0 {
		problems = append(problems, looked) // else it says the same in other words
	}
	if looked == nil {
		problems = append(problems, s.surveyLogins(ctx, views, need)...)
	}
	return sv, problems.Scrubbed(s.scrub)
}

// parts are all that an operation may hit.
func (s *servers) parts(views []view) []event.Part {
	var out []event.Part
	for _, n := range s.nodes {
		out = append(out, part(n, viewOf(views, n).role()),
			event.Part{ID: "disk:" + n.Name + ":" + event.AnyEnd, Kind: "filesystem", Labels: map[string]string{"host": n.Host}})
	}
	for _, r := range s.cfg.Relays {
		out = append(out, relayPart(r))
	}
	return append(out, s.servicePart())
}

// surveyScript tells what of a node's files could not be used by the owner of its data:
// the programs and the system's tools that are named, the directories.
const surveyScript = `bin=$1 d=$2 ev=$3 log=$4 beside=$5; shift 5
programs=$1 tools=$2
for p in $programs; do "$bin/$p" --version >/dev/null 2>&1 || echo "program $p"; done
for t in $tools; do command -v "$t" >/dev/null 2>&1 || echo "tool $t"; done
if [ -r "$d/PG_VERSION" ] && [ -r "$d/global/pg_control" ]; then echo "files $(cat "$d/PG_VERSION")"; else echo "data"; fi
[ -w "$d" ] || echo "data"
case " $programs " in *" postgres "*) v=$("$bin/postgres" --version 2>/dev/null) && echo "version ${v#*) }" ;; esac
up=$(dirname -- "$d"); [ "$beside" = 0 ] || [ -w "$up" ] || echo "beside"
e=$ev; while [ ! -e "$e" ] && [ "$e" != / ]; do e=$(dirname -- "$e"); done
if [ "$e" = "$ev" ]; then [ -d "$e" ] && [ -w "$e" ] && [ -x "$e" ] || echo "evidence"; else [ -d "$e" ] && [ -x "$e" ] || echo "evidence"; fi
if [ -e "$log" ]; then [ -w "$log" ] || echo "log"; else [ -w "$(dirname -- "$log")" ] || echo "log"; fi
:`

// surveyFiles asks a node's machine whether what will be run and written there can be.
func (s *servers) surveyFiles(ctx context.Context, i int, n *node, need need, p *strict.Problems) {
	at := fmt.Sprintf("nodes[%d].", i)
	beside := "0"
	if need.baseBackup {
		beside = "1"
	}
	out, err := s.run(ctx, n, surveyScript, n.BinDir, n.DataDir, s.cfg.Failback.EvidenceDir, n.LogFile, beside,
		strings.Join(need.programs(), " "), strings.Join(need.tools(), " "))
	if err != nil {
		*p = append(*p, err)
		return
	}
	said := map[string][]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[key] = append(said[key], value)
	}
	if lacking := said["program"]; len(lacking) > 0 {
		p.Add(at+"binDir", n.BinDir, fmt.Sprintf("%s cannot be run there on node %s as %s, and undoing needs it: give the directory that holds the programs of this server", strings.Join(lacking, ", "), n.Name, n.OSUser))
	}
	if lacking := said["tool"]; len(lacking) > 0 {
		p.Add(at+"control", "", fmt.Sprintf("%s is not installed on the machine of node %s (or not in the PATH of %s), and undoing needs it: install it", strings.Join(lacking, ", "), n.Name, n.OSUser))
	}
	if len(said["data"]) > 0 {
		p.Add(at+"dataDir", n.DataDir, fmt.Sprintf("on node %s, %s cannot read and write it, or it is no data directory: give the server's, and its owner as osUser", n.Name, n.OSUser))
	}
	if files, program := first(said["files"]), first(said["version"]); files != "" && program != "" && !sameMajor(files, program) {
		p.Add(at+"binDir", n.BinDir, fmt.Sprintf("its programs are of version %s, and the files of node %s of %s: give the directory of version %s", program, n.Name, files, files))
	}
	if len(said["beside"]) > 0 {
		p.Add(at+"dataDir", n.DataDir, fmt.Sprintf("on node %s, %s may not write beside it, where a base backup is made: let it, or set failback.method: %s", n.Name, n.OSUser, MethodRewind))
	}
	if len(said["evidence"]) > 0 && need.home {
		p.Add("failback.evidenceDir", s.cfg.Failback.EvidenceDir, fmt.Sprintf("on node %s, %s cannot write there: let it, or choose another directory", n.Name, n.OSUser))
	}
	if len(said["log"]) > 0 && need.home {
		p.Add(at+"logFile", n.LogFile, fmt.Sprintf("on node %s, %s cannot write it, so the server could not be started: let it, or choose another file", n.Name, n.OSUser))
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// sameMajor compares PG_VERSION with what postgres says, such as 15 with 15.8 (Debian).
func sameMajor(files, program string) bool {
	rest, ok := strings.CutPrefix(program, files)
	return ok && (rest == "" || rest[0] < '0' || rest[0] > '9')
}

// surveyService makes a client's connection, as probes will.
func (s *servers) surveyService(ctx context.Context, p *strict.Problems) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	c, err := s.service.open(ctx)
	if err == nil {
		defer c.close()
		_, err = c.row(ctx, "SELECT 1")
	}
	if err == nil {
		return
	}
	who := "the probes' role " + s.client.user
	switch code := sqlCode(err); {
	case code == "28P01", strings.Contains(err.Error(), "authentication failed"): // PgBouncer has no code for it
		p.Add("password", "", fmt.Sprintf("%s is not let in by %s: %v; give the password that it has there", who, s.cfg.Service, err))
	case strings.HasPrefix(code, "28"):
		p.Add("user", s.client.user, fmt.Sprintf("%s is not let in by %s: %v; make the role, or let it in", who, s.cfg.Service, err))
	case code == "3D000":
		p.Add("database", s.cfg.Database, fmt.Sprintf("%s does not have it: %v", s.cfg.Service, err))
	default:
		p.Add("service", s.cfg.Service.String(), fmt.Sprintf("it does not answer %s: %v; give the address that clients use, and make it answer where firedrill runs", who, err))
	}
}

// surveyEndpoint asks what will lead clients elsewhere, without leading them anywhere.
func (s *servers) surveyEndpoint(ctx context.Context, p *strict.Problems) {
	ctx, cancel := context.WithTimeout(ctx, endpointTimeout)
	defer cancel()
	s.endpoint.survey(ctx, s.home(), p)
	for i, base := range s.cfg.Relays {
		if _, err := (&relay{base: base}).state(ctx); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			p.Add(fmt.Sprintf("relays[%d]", i), base, fmt.Sprintf("a promotion has to ask it, and it does not answer: %v", err))
		}
	}
}

// surveyLogins tries the logins that the nodes' servers will be asked with, and from
// where: the admin from here, and from each node what a rebuild there connects as.
func (s *servers) surveyLogins(ctx context.Context, views []view, need need) strict.Problems {
	var looks []func(*strict.Problems)
	for i, v := range views {
		if !v.Running() || v.Frozen || !v.Answers && !refusesLogin(v.SQLError) {
			continue // it is down for reasons of its own, which the plan judges
		}
		looks = append(looks, func(p *strict.Problems) {
			s.surveyAdmin(ctx, i, v, need, p)
			if need.home && len(*p) == 0 {
				s.surveyRebuild(ctx, v.node, views, need, p)
			}
		})
	}
	return strict.Gather(looks...)
}

// refusesLogin reports whether a server has answered that it does not let a role in.
func refusesLogin(err error) bool {
	code := sqlCode(err)
	return strings.HasPrefix(code, "28") || code == "3D000" || code == "42501"
}

// surveyAdmin asks a node as the admin for what the way home depends on.
func (s *servers) surveyAdmin(ctx context.Context, i int, v view, need need, p *strict.Problems) {
	at := fmt.Sprintf("nodes[%d]", i)
	r, err := s.ask(ctx, v.node, `SELECT rolsuper, current_setting('wal_log_hints'), current_setting('data_checksums'), current_setting('full_page_writes'), current_setting('max_wal_senders')
FROM pg_roles WHERE rolname = current_user`)
	switch {
	case sqlCode(err) == "28P01":
		p.Add("admin.password", "", fmt.Sprintf("%v; give the password that the admin has there", err))
	case sqlCode(err) == "3D000":
		p.Add("database", s.cfg.Database, err.Error())
	case err != nil:
		p.Add("admin.user", s.admin.user, fmt.Sprintf("%v; let it in", err))
	case r[0] != "t":
		p.Add("admin.user", s.admin.user, fmt.Sprintf("it is no superuser on node %s, and promoting and rebuilding needs one: name one", v.node.Name))
	case need.rewind && r[1] != "on" && r[2] != "on":
		p.Add("failback.method", MethodRewind, fmt.Sprintf("pg_rewind needs wal_log_hints = on or data checksums, and node %s has neither: turn one on, or set failback.method: %s", v.node.Name, MethodBaseBackup))
	case need.rewind && r[3] != "on":
		p.Add("failback.method", MethodRewind, fmt.Sprintf("pg_rewind needs full_page_writes = on, and node %s has it off: turn it on, or set failback.method: %s", v.node.Name, MethodBaseBackup))
	case need.home && r[4] == "0":
		p.Add(at, v.node.Name, "max_wal_senders is 0 there, so no other node could be rebuilt from it or stream from it: raise it")
	}
}

// connectScript opens a connection as a rebuild does. Without psql it cannot be tried.
const connectScript = `psql=$1/psql; [ -x "$psql" ] || psql=$(command -v psql) || exit 0
"$psql" -w -X -q -A -t -c "$3" -d "$2" 2>&1 >/dev/null && exit 0
exit 1`

// surveyRebuild connects from a node's machine to the other servers that answer, as
// rebuilding it from them will.
func (s *servers) surveyRebuild(ctx context.Context, n *node, views []view, need need, p *strict.Problems) {
	try := func(l login, conninfo, sql string, field, who string, to Address) {
		out, err := s.tool(ctx, n, l, connectScript, n.BinDir, conninfo, sql)
		if err == nil {
			return
		}
		if e, ok := errors.AsType[*control.CommandError](err); ok && e.Code == 1 && out != "" {
			p.Add(field, l.user, fmt.Sprintf("%s cannot connect from the machine of node %s to %s, which rebuilding the node needs: %s; give the password that it has there, and let it in by pg_hba.conf", who, n.Name, to, s.scrubText(lastLine(out))))
			return
		}
		*p = append(*p, err)
	}
	for _, v := range views {
		if v.node == n || !v.Answers {
			continue
		}
		to := v.node.Address()
		try(s.replication, s.libpq(to, s.replication, s.cfg.Database)+" replication=true", "IDENTIFY_SYSTEM", "replication", "the replication role "+s.replication.user, to)
		if need.rewind {
			try(s.admin, s.libpq(to, s.admin, s.cfg.Database), "SELECT 1", "admin", "the admin "+s.admin.user, to)
		}
		if streams := v.node.replication(); streams != to {
			try(s.replication, s.libpq(streams, s.replication, s.cfg.Database)+" replication=true", "IDENTIFY_SYSTEM", fmt.Sprintf("nodes[%d].replicationHost", slices.Index(s.nodes, v.node)), "the replication role "+s.replication.user, streams)
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

func (r *relay) survey(ctx context.Context, _ *node, p *strict.Problems) {
	if _, err := r.state(ctx); err != nil {
		p.Add("endpoint.control", r.base, fmt.Sprintf("leading clients back needs it, and it does not answer: %v", err))
	}
}

// survey reads what a redirection would change, and whether it could be changed.
func (b *bouncer) survey(ctx context.Context, home *node, p *strict.Problems) {
	if _, err := b.row(ctx); err != nil {
		p.Add("endpoint.pgbouncer.admin", Address{b.cfg.Admin.Host, b.cfg.Admin.Port}.String(), fmt.Sprintf("leading clients back needs it: %v", err))
	}
	text, err := b.host.ReadFile(ctx, b.cfg.INI)
	if err == nil {
		_, err = moveDatabase(string(text), b.cfg.Database, home.Address())
	}
	if err == nil {
		// The file is replaced by another one beside it.
		_, err = b.host.Run(ctx, control.Command{What: "look whether it can be written", Script: `[ -w "$1" ] && [ -w "$(dirname -- "$1")" ] || { echo "it cannot be written" >&2; exit 1; }`, Args: []string{b.cfg.INI}})
	}
	if err != nil {
		p.Add("endpoint.pgbouncer.ini", b.cfg.INI, fmt.Sprintf("leading clients back needs it: %v", err))
	}
}

func (h *hook) survey(ctx context.Context, _ *node, p *strict.Problems) {
	if _, err := h.host.Run(ctx, control.Command{What: "look for the endpoint's command", Script: `command -v -- "$1" >/dev/null || { echo "$1 cannot be run" >&2; exit 1; }`, Args: h.argv[:1]}); err != nil {
		p.Add("endpoint.exec.argv", h.argv[0], fmt.Sprintf("leading clients back needs it: %v; name a program that can be run there", err))
	}
}
