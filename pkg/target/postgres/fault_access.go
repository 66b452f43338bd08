package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func (s *servers) planHBA(ctx context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planRunning(o, views, p); err != nil {
		return err
	}
	r, err := s.ask(ctx, o.node, "SELECT current_setting('hba_file')")
	if err != nil {
		return err
	}
	o.rec.Undo, o.rec.Path, o.rec.Opens = undoHBA, r[0], viewOf(views, o.node).primary()
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{fmt.Sprintf("set a timer on the node's machine that takes the line out again after %v", p.DeadMan)}
	p.Undoes = fmt.Sprintf("take the lines marked %s out of %s on node %s and reload", o.rec.Token, o.rec.Path, o.node.Name)
	return nil
}

func (s *servers) planRefuse(ctx context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planHBA(ctx, o, views, p); err != nil {
		return err
	}
	users, err := s.refused(ctx, o)
	if err != nil {
		return err
	}
	p.Does = append(p.Does,
		fmt.Sprintf("put lines at the head of %s on node %s that reject %s, and reload", o.rec.Path, o.node.Name, strings.Join(users, ", ")),
		"end the sessions of these users")
	return nil
}

// refused are the users that a refusal hits: never the admin, whose way in stays.
func (s *servers) refused(ctx context.Context, o *operation) ([]string, error) {
	users := o.params.Users
	if len(users) == 0 {
		c, err := s.open(ctx, o.node)
		if err != nil {
			return nil, err
		}
		defer c.close()
		rows, err := c.rows(ctx, "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname <> $1 ORDER BY 1", s.admin.user)
		if err != nil {
			return nil, s.scrub(fmt.Errorf("node %s: %w", o.node.Name, err))
		}
		for _, r := range rows {
			users = append(users, r[0])
		}
	}
	for _, u := range users {
		if u == s.admin.user {
			return nil, &target.FieldError{Field: "params.users", Value: u, Fix: "the admin cannot be refused: the way back leads through it; give probes a user of their own"}
		}
		if strings.ContainsAny(u, "\"\n\r") {
			return nil, &target.FieldError{Field: "params.users", Value: u, Fix: "a name with a quote or a line break cannot be written into pg_hba.conf"}
		}
	}
	if !slices.Contains(users, s.client.user) {
		return nil, &target.FieldError{Field: "params.users", Value: s.client.user, Fix: "the probes' user must be among the refused, or nothing would be seen"}
	}
	return users, nil
}

const addLinesScript = `f=$(readlink -f -- "$1") || exit 1
grep -q "^# $2 begin" "$f" && exit 0
cp -p -- "$f" "$f.$2" && { printf '# %s begin\n%s\n# %s end\n' "$2" "$3" "$2"; cat "$f"; } >"$f.$2" && mv -f -- "$f.$2" "$f"`

// dropLinesScript is also what the dead-man timer runs.
const dropLinesScript = `f=$(readlink -f -- "$1") || exit 1
if grep -q "^# $2 begin" "$f"; then
  cp -p -- "$f" "$f.$2" && sed "/^# $2 begin/,/^# $2 end/d" "$f" >"$f.$2" && mv -f -- "$f.$2" "$f" || exit 1
  echo removed
fi
p=$(head -n 1 "$3/postmaster.pid" 2>/dev/null)
[ -n "$p" ] && [ "$(readlink -f "/proc/$p/cwd" 2>/dev/null)" = "$(readlink -f "$3")" ] && kill -HUP "$p"
:`

// reject puts lines at the head of pg_hba.conf and makes the server read them.
func (s *servers) reject(ctx context.Context, o *operation, lines string) error {
	if _, err := s.run(ctx, o.node, conductor(ctx).Guard(addLinesScript), o.rec.Path, o.rec.Token, lines); err != nil {
		return err
	}
	procs, err := s.processes(ctx, o.node)
	if err != nil {
		return err
	}
	if len(procs) == 0 {
		return fmt.Errorf("node %s does not run any more", o.node.Name)
	}
	return s.signal(ctx, o.node, syscall.SIGHUP, procs[:1])
}

func (s *servers) armDropLines(ctx context.Context, o *operation) error {
	return s.arm(ctx, o, control.Timer{Script: dropLinesScript, Args: []string{o.rec.Path, o.rec.Token, o.node.DataDir}})
}

func (s *servers) refuse(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	users, err := s.refused(ctx, o)
	if err != nil {
		return e, err
	}
	admin, err := s.open(ctx, o.node)
	if err != nil {
		return e, err
	}
	defer admin.close()
	if err := s.armDropLines(ctx, o); err != nil {
		return e, err
	}
	quoted := `"` + strings.Join(users, `","`) + `"`
	e.Began = s.clock.Now()
	if err := s.reject(ctx, o, "local all "+quoted+" reject\nhost all "+quoted+" all reject"); err != nil {
		return e, err
	}
	var last string
	err = target.Poll(ctx, 10*time.Second, 5*time.Millisecond, "the refusal to take effect", func(ctx context.Context) (bool, string, error) {
		var refused bool
		last, refused = s.clientRefused(ctx, o.node)
		return refused, last, nil
	})
	if err != nil {
		return e, err
	}
	const others = ` FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = ANY($1)`
	list := "{" + quoted + "}"
	err = target.Poll(ctx, 10*time.Second, 5*time.Millisecond, "the clients' sessions to end", func(ctx context.Context) (bool, string, error) {
		r, err := admin.row(ctx, "SELECT count(pg_terminate_backend(pid))"+others, list)
		if err != nil {
			return false, "", err
		}
		return r[0] == "0", r[0] + " sessions are left", nil
	})
	e.Ended = s.clock.Now()
	e.Proof = event.Proof{Proven: err == nil, How: "a client's new connection is rejected by pg_hba.conf, and no client's session is left", Observations: []string{last}}
	return e, err
}

// clientRefused tries to connect to a node as a client.
func (s *servers) clientRefused(ctx context.Context, n *node) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := connect(ctx, n.Address(), s.client, s.cfg.Database, s.cfg.SSLMode)
	if err == nil {
		c.close()
		return "a client's connection was accepted", false
	}
	return s.scrubText(err.Error()), sqlCode(err) == "28000"
}

func (s *servers) planCut(ctx context.Context, o *operation, views []view, p *target.Plan) error {
	if o.params.Relay == "" {
		if err := s.planHBA(ctx, o, views, p); err != nil {
			return err
		}
		p.Does = append(p.Does, fmt.Sprintf("put lines at the head of %s on node %s that reject replication, and reload", o.rec.Path, o.node.Name),
			"end the replication sessions")
		return nil
	}
	if err := s.planRunning(o, views, p); err != nil {
		return err
	}
	if !slices.Contains(s.cfg.Relays, o.params.Relay) {
		return &target.FieldError{Field: "params.relay", Value: o.params.Relay,
			Fix: fmt.Sprintf("it is none of the target's relays (%s): choose one, or have the operator add it to the configuration", strings.Join(s.cfg.Relays, ", "))}
	}
	o.rec.Undo, o.rec.Relay, o.rec.Opens = undoRelay, o.params.Relay, viewOf(views, o.node).primary()
	if _, err := (&relay{base: o.params.Relay}).state(ctx); err != nil {
		return err
	}
	p.Parts = append(p.Parts, relayPart(o.params.Relay))
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{fmt.Sprintf("pause the replication's relay at %s, which resumes by itself after %v", o.params.Relay, p.DeadMan)}
	p.Undoes = "resume the relay at " + o.params.Relay
	return nil
}

func (s *servers) cut(ctx context.Context, o *operation) (target.Effect, error) {
	if o.rec.Undo == undoRelay {
		return s.cutByRelay(ctx, o)
	}
	var e target.Effect
	admin, err := s.open(ctx, o.node)
	if err != nil {
		return e, err
	}
	defer admin.close()
	if err := s.armDropLines(ctx, o); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	if err := s.reject(ctx, o, "local replication all reject\nhost replication all all reject"); err != nil {
		return e, err
	}
	// A standby may slip in until the postmaster has read the file; sessions are
	// ended until none is there for a while.
	quiet := 0
	err = target.Poll(ctx, 15*time.Second, 20*time.Millisecond, "the replication sessions to end", func(ctx context.Context) (bool, string, error) {
		r, err := admin.row(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication")
		if err != nil {
			return false, "", err
		}
		if r[0] != "0" {
			quiet = 0
			e.Ended = s.clock.Now()
			return false, r[0] + " sessions are left", nil
		}
		if quiet == 0 && e.Ended.IsZero() {
			e.Ended = s.clock.Now()
		}
		quiet++
		return quiet >= 5, "watching that none comes back", nil
	})
	e.Proof = event.Proof{Proven: err == nil, How: "pg_stat_replication is empty and stays so",
		Observations: []string{"no replication session in 5 looks, 20 ms apart"}}
	return e, err
}

func (s *servers) cutByRelay(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	r := &relay{base: o.rec.Relay}
	e.Began = s.clock.Now()
	err := r.cut(ctx, undo.DeadMan(o.Operation))
	e.Ended = s.clock.Now()
	if err != nil {
		return e, err
	}
	st, err := r.state(ctx)
	e.Proof = event.Proof{Proven: err == nil && st.Paused, How: "the relay says that it is paused",
		Observations: []string{fmt.Sprintf("%s: paused %v", o.rec.Relay, st.Paused)}}
	return e, err
}

// undoRefusal takes the marked lines out, and waits until it shows.
func (s *servers) undoRefusal(ctx context.Context, r record, j *undo.Journal) error {
	n, err := s.node(r.Node)
	if err != nil {
		return err
	}
	if err := s.fenceNode(ctx, n, r.SystemID); err != nil {
		return err
	}
	if err := s.letIn(ctx, n, r, j); err != nil {
		return err // the timer stays armed: it is what is left
	}
	if err := s.disarm(ctx, n, r); err != nil {
		return err
	}
	v, err := s.lookAt(ctx, n, lookLimit)
	if err != nil || !v.Answers {
		return err // a stopped server reads the file when it starts
	}
	err = target.Poll(ctx, 10*time.Second, 20*time.Millisecond, "clients to be let in again", func(ctx context.Context) (bool, string, error) {
		why, refused := s.clientRefused(ctx, n)
		return !refused && ctx.Err() == nil, why, nil // a try that was cut short was not refused either
	})
	if err != nil || v.InRecovery {
		return err
	}
	return s.awaitStandbys(ctx, n, j)
}

// letIn takes the marked lines out.
func (s *servers) letIn(ctx context.Context, n *node, r record, j *undo.Journal) error {
	return s.reopen(ctx, n, r, j, func() error {
		out, err := s.run(ctx, n, conductor(ctx).Guard(dropLinesScript), r.Path, r.Token, n.DataDir)
		if err == nil && out == "removed" {
			j.Add("took the lines marked %s out of %s on node %s", r.Token, r.Path, n.Name)
		}
		return err
	})
}

// reopen ends what may be all that keeps commits from a node. If another node was
// promoted meanwhile, this one would be a second primary: it is stopped before that.
func (s *servers) reopen(ctx context.Context, n *node, r record, j *undo.Journal, open func() error) error {
	nodes := s.duty(r)
	if !r.Opens || !r.has(n) {
		nodes = []*node{n} // it cannot be a second primary, or is none of the drill's
	}
	views, err := s.lookAmong(ctx, nodes, lookLimit)
	if err != nil {
		return err
	}
	parted := split(views, n)
	if parted {
		if err := s.halt(ctx, viewOf(views, n), j); err != nil {
			return err
		}
	}
	if err := open(); err != nil {
		return err
	}
	if parted {
		return s.converge(ctx, r, j)
	}
	return nil
}

func (s *servers) undoRelayCut(ctx context.Context, r record, j *undo.Journal) error {
	n, err := s.node(r.Node)
	if err != nil {
		return err
	}
	if err := s.fenceNode(ctx, n, r.SystemID); err != nil {
		return err
	}
	rel := &relay{base: r.Relay}
	err = s.reopen(ctx, n, r, j, func() error {
		st, err := rel.state(ctx)
		if err != nil || !st.Paused {
			return err
		}
		if err := rel.resume(ctx); err != nil {
			return err
		}
		j.Add("resumed the relay at %s", r.Relay)
		return nil
	})
	if err != nil {
		return err
	}
	v, err := s.lookAt(ctx, n, lookLimit)
	if err != nil || !v.Answers || v.InRecovery {
		return err
	}
	return s.awaitStandbys(ctx, n, j)
}

// awaitStandbys waits until each running standby streams from the primary n.
func (s *servers) awaitStandbys(ctx context.Context, n *node, j *undo.Journal) error {
	began := time.Now()
	waited := false
	err := target.Poll(ctx, streamLimit, 50*time.Millisecond, "the standbys to stream", func(ctx context.Context) (bool, string, error) {
		views, err := s.look(ctx, lookLimit)
		if err != nil {
			return false, "", err
		}
		var late []string
		for _, v := range views {
			if v.node != n && v.Answers && v.InRecovery && !v.Streaming {
				late = append(late, v.node.Name)
			}
		}
		waited = waited || len(late) > 0
		return len(late) == 0 && ctx.Err() == nil, strings.Join(late, ", ") + " does not stream yet", nil
	})
	if waited && err == nil {
		j.Add("waited %v for the standbys to stream again", time.Since(began).Round(time.Millisecond))
	}
	return err
}
