package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
)

// view is what a look at one node found.
type view struct {
	node *node
	// Procs are the server's live processes, the postmaster first.
	Procs  []control.Process
	Frozen bool
	// Answers is true when the server took a query; SQLError says why not.
	Answers    bool
	SQLError   error
	InRecovery bool
	SysID      string
	Timeline   int
	// Forks is the history of Timeline, as far as the node has it.
	Forks []fork
	// State and Checkpoint come from the control file.
	State      string
	Checkpoint lsn
	// StandbySignal says that the node would start as a standby.
	StandbySignal bool
	// Rebuilding says that a rebuild of the data directory was not finished.
	Rebuilding bool
	// Saved says that a rebuild keeps the node's own settings aside.
	Saved bool
	// Started tells this server from every other.
	Started string
	// At is the write position of a primary, the received one of a standby.
	At       lsn
	Replayed lsn
	// Streaming says that a standby receives its primary's timeline.
	Streaming bool
}

// Running reports whether the server has processes.
func (v view) Running() bool { return len(v.Procs) > 0 }

// primary reports whether the node is, or would start as, a primary.
func (v view) primary() bool {
	if v.Rebuilding {
		return false
	}
	if v.Answers {
		return !v.InRecovery
	}
	return !v.StandbySignal
}

// forkFrom is where v's history left the timeline tl.
func (v view) forkFrom(tl int) (lsn, bool) {
	for _, f := range v.Forks {
		if f.Parent == tl {
			return f.At, true
		}
	}
	return 0, false
}

// role describes the node for people.
func (v view) role() string {
	switch {
	case v.Rebuilding:
		return "half rebuilt"
	case v.Frozen:
		return "frozen"
	case !v.Running():
		return "stopped"
	case !v.Answers:
		return "running, not answering"
	case v.InRecovery:
		return "standby"
	}
	return "primary"
}

// processes lists a node's server processes, the postmaster first.
func (s *servers) processes(ctx context.Context, n *node) ([]control.Process, error) {
	ps, err := n.host.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return serverProcesses(ps, s.realDataDir(ctx, n)), nil
}

// realDataDir is a node's data directory as the kernel names it.
func (s *servers) realDataDir(ctx context.Context, n *node) string {
	if n.host.Local() {
		return realPath(n.DataDir)
	}
	if out, err := s.run(ctx, n, `readlink -f -- "$1"`, n.DataDir); err == nil && out != "" {
		return out
	}
	return n.DataDir
}

// serverProcesses picks the server that works in dir. Only processes named
// postgres count, so that a person's shell that stands there is never hit; a
// program that the server started does.
func serverProcesses(ps []control.Process, dir string) []control.Process {
	mine := map[int]control.Process{}
	for _, p := range ps {
		if !p.Gone() && p.Dir == dir && (p.Name == "postgres" || p.Name == "postmaster") {
			mine[p.PID] = p
		}
	}
	var out, rest []control.Process
	taken := map[int]bool{}
	take := func(list *[]control.Process, p control.Process) {
		if !p.Gone() && !taken[p.PID] {
			taken[p.PID] = true
			*list = append(*list, p)
		}
	}
	for _, p := range ps {
		if _, ok := mine[p.PID]; !ok {
			continue
		}
		if _, child := mine[p.Parent]; child {
			continue
		}
		for i, member := range control.Tree(ps, p.PID) {
			if i == 0 {
				take(&out, member)
			} else {
				take(&rest, member)
			}
		}
	}
	return append(out, rest...)
}

func pidsOf(ps []control.Process) []int {
	out := make([]int, len(ps))
	for i, p := range ps {
		out[i] = p.PID
	}
	return out
}

// frozen reports whether the server is stopped by a signal. One child may be
// caught later than the rest; the postmaster decides.
func frozen(ps []control.Process) bool { return len(ps) > 0 && ps[0].Stopped() }

// offlineScript prints what the files of a node say.
const offlineScript = `d=$1 bin=$2 saved=$3 h=
[ -e "$d/standby.signal" ] && echo "standby=1"
[ -e "$saved/busy" ] && echo "busy=1"
[ -d "$saved" ] && echo "saved=1"
# The pattern's matches are sorted: the last is the newest.
for f in "$d"/pg_wal/*.history; do [ -e "$f" ] && h=$f; done
[ -n "$h" ] && { f=${h##*/}; echo "history=${f%.history}"; sed 's/^/fork=/' "$h"; }
"$bin/pg_controldata" -D "$d"
r=$?
# A directory that is half rebuilt has no control file; without the program nothing is known.
[ "$r" -lt 126 ] || exit "$r"`

// controlFields are the lines of pg_controldata that a look needs.
func controlFields() map[string]string {
	return map[string]string{
		"Database system identifier": "sysid", "Database cluster state": "state",
		"Latest checkpoint location": "checkpoint", "Latest checkpoint's TimeLineID": "timeline",
	}
}

// lookAt looks at one node.
func (s *servers) lookAt(ctx context.Context, n *node, limit time.Duration) (view, error) {
	views, err := s.lookAmong(ctx, []*node{n}, limit)
	return views[0], err
}

// lookWithin looks at one node: which of its machine's processes are its own, its
// files and, if it runs, what it answers within limit.
func (s *servers) lookWithin(ctx context.Context, n *node, machine []control.Process, limit time.Duration) (view, error) {
	v := view{node: n, Procs: serverProcesses(machine, s.realDataDir(ctx, n))}
	v.Frozen = frozen(v.Procs)
	asked := make(chan answer, 1)
	if v.Running() && !v.Frozen {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			row, err := s.ask(ctx, n, onlineSQL)
			asked <- answer{row, err}
		}()
	} else {
		asked <- answer{err: errNotAsked}
	}
	if n.host.Local() {
		said := <-asked
		if quick, ok := s.lookHere(v, said); ok {
			return quick, nil
		}
		asked <- said
	}
	text, err := s.run(ctx, n, offlineScript, n.DataDir, n.BinDir, s.savedDir(n))
	said := <-asked
	if err != nil {
		return v, err
	}
	if err := v.offline(text); err != nil {
		return v, fmt.Errorf("node %s: %w", n.Name, err)
	}
	if !errors.Is(said.err, errNotAsked) {
		v.online(said)
	}
	return v, nil
}

// answer is what a node answered to onlineSQL.
type answer struct {
	row []string
	err error
}

// errNotAsked says that a node does not run, or is frozen.
var errNotAsked = errors.New("not asked")

// lookHere is the look at a node of this machine that has answered: a few files are
// all that is to be known besides. It is not ok where the control file has to be read.
func (s *servers) lookHere(v view, said answer) (view, bool) {
	if said.err != nil {
		return v, false
	}
	text, ok := filesHere(v.node.DataDir, s.savedDir(v.node))
	if !ok || v.offline(text) != nil {
		return v, false
	}
	v.online(said)
	// Nothing but the control file tells the timeline of a standby that receives none.
	return v, v.Answers && (!v.InRecovery || v.Streaming)
}

func (v *view) offline(text string) error {
	var history strings.Builder
	highest, fields := 0, controlFields()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if name, rest, colon := strings.Cut(line, ":"); colon && fields[name] != "" {
			key, value, ok = fields[name], strings.TrimSpace(rest), true
		}
		if !ok {
			continue
		}
		var err error
		switch key {
		case "standby":
			v.StandbySignal = true
		case "busy":
			v.Rebuilding = true
		case "saved":
			v.Saved = true
		case "history":
			var tl int64
			tl, err = strconv.ParseInt(value, 16, 64)
			highest = int(tl)
		case "fork":
			history.WriteString(value + "\n")
		case "sysid":
			v.SysID = value
		case "state":
			v.State = value
		case "checkpoint":
			v.Checkpoint, err = parseLSN(value)
		case "timeline":
			v.Timeline, err = strconv.Atoi(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	// After a promotion the control file names the new timeline only from the
	// next checkpoint on; the history file is there before.
	if v.Timeline <= highest {
		v.Timeline = highest
		var err error
		if v.Forks, err = parseHistory(history.String()); err != nil {
			return err
		}
	}
	return nil
}

const onlineSQL = `SELECT pg_is_in_recovery(), s.system_identifier, pg_postmaster_start_time(),
  CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() END,
  pg_last_wal_replay_lsn(),
  CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_walfile_name(pg_current_wal_lsn()) END,
  coalesce((SELECT status || ' ' || received_tli FROM pg_stat_wal_receiver), '')
FROM pg_control_system() s`

// online takes in the answer to onlineSQL, which is newer than the files.
func (v *view) online(a answer) {
	if v.SQLError = a.err; a.err == nil {
		v.SQLError = v.readAnswer(a.row)
	}
	v.Answers = v.SQLError == nil
}

func (v *view) readAnswer(r []string) error {
	v.InRecovery, v.SysID, v.Started = r[0] == "t", r[1], r[2]
	var err1, err2 error
	v.At, err1 = parseLSN(r[3])
	v.Replayed, err2 = parseLSN(r[4])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("node %s: %w", v.node.Name, err)
	}
	if len(r[5]) >= 8 {
		tl, err := strconv.ParseInt(r[5][:8], 16, 64)
		if err != nil {
			return fmt.Errorf("node %s: log file name %q: %w", v.node.Name, r[5], err)
		}
		if int(tl) != v.Timeline {
			v.Timeline, v.Forks = int(tl), nil
		}
	}
	if status, tl, ok := strings.Cut(r[6], " "); ok {
		if t, err := strconv.Atoi(tl); err == nil && status == "streaming" {
			v.Streaming = true
			if t != v.Timeline {
				v.Timeline, v.Forks = t, nil
			}
		}
	}
	return nil
}

// look looks at every node at once, in the order of the configuration.
func (s *servers) look(ctx context.Context, limit time.Duration) ([]view, error) {
	return s.lookAmong(ctx, s.nodes, limit)
}

// lookAmong looks at some nodes at once, in their order.
func (s *servers) lookAmong(ctx context.Context, nodes []*node, limit time.Duration) ([]view, error) {
	views, errs := make([]view, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		if slices.ContainsFunc(nodes[:i], func(m *node) bool { return sameMachine(m, n) }) {
			continue // with the first node of its machine
		}
		wg.Go(func() {
			ps, err := n.host.Processes(ctx)
			for k := i; k < len(nodes); k++ {
				switch m := nodes[k]; {
				case !sameMachine(m, n):
				case err != nil:
					errs[k] = fmt.Errorf("node %s: %w", m.Name, err)
				default:
					wg.Go(func() { views[k], errs[k] = s.lookWithin(ctx, m, ps, limit) })
				}
			}
		})
	}
	wg.Wait()
	return views, errors.Join(errs...)
}

// systemID is the one system identifier of all nodes that have one.
func systemID(views []view) (string, error) {
	id := ""
	for _, v := range views {
		switch {
		case v.SysID == "" || v.Rebuilding:
		case id == "":
			id = v.SysID
		case id != v.SysID:
			return "", fmt.Errorf("node %s has system identifier %s, another node %s: %w; check the target's nodes",
				v.node.Name, v.SysID, id, ErrFence)
		}
	}
	if id == "" {
		return "", fmt.Errorf("no node has a readable control file: %w", ErrFence)
	}
	return id, nil
}

// ErrFence is returned when a node is not the cluster that was planned for.
var ErrFence = errors.New("refused: not the planned cluster")

// fence refuses a cluster other than the one with the system identifier want.
func fence(views []view, want string) error {
	got, err := systemID(views)
	if err != nil {
		return err
	}
	if want != "" && got != want {
		return fmt.Errorf("the nodes have system identifier %s, the plan was made for %s: %w", got, want, ErrFence)
	}
	return nil
}

// acting is the primary that answers, on the highest timeline; nil if none does.
func acting(views []view) *view {
	var best *view
	for i := range views {
		v := &views[i]
		if v.Answers && !v.InRecovery && (best == nil || v.Timeline > best.Timeline) {
			best = v
		}
	}
	return best
}
