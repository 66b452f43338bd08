package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// The probes.
const (
	ProbeWrite = "write"
	ProbeRead  = "read"
)

// noSuchTable is a server's SQLSTATE for a table that does not exist.
const noSuchTable = "42P01"

// probeParams are the parameters of a probe.
type probeParams struct {
	// Of names, for reads, the write probe whose canaries are read.
	Of string `json:"of"`
	// MaxConnections caps the connections of the lane; 0 means 40.
	MaxConnections int `json:"maxConnections"`
}

func readProbeParams(probe string, raw json.RawMessage) (probeParams, error) {
	var p probeParams
	if err := strict.Decode(raw, &p); err != nil {
		return p, err
	}
	var ps strict.Problems
	canary.WantOf(&ps, probe == ProbeWrite, p.Of)
	p.MaxConnections = canary.WantSlots(&ps, "maxConnections", p.MaxConnections)
	return p, errors.Join(ps...)
}

// OpenProbe prepares a lane; the canary table is made if it is missing. A lane of a
// later claim is opened without a word to the service, which may be down: that is what
// its attempts are to tell. The first one that gets through makes the table then.
func (s *servers) OpenProbe(ctx context.Context, spec target.ProbeSpec) (target.Probe, error) {
	if spec.Probe != ProbeWrite && spec.Probe != ProbeRead {
		return nil, fmt.Errorf("probe %q: %w; use write or read", spec.Probe, target.ErrUnsupported)
	}
	if err := canary.CheckLane(spec.Lane); err != nil {
		return nil, err
	}
	params, err := readProbeParams(spec.Probe, spec.Params)
	if err != nil {
		return nil, err
	}
	p := &probe{servers: s, ledger: spec.Ledger(), unanswered: newUnanswered()}
	if spec.Lane == target.LanePooled {
		p.pool = newPool(ctx, params.MaxConnections, s.openProbed)
	}
	if spec.Epoch > 1 {
		p.untried.Store(true)
	} else if err := s.makeLedger(ctx); err != nil {
		return nil, s.scrub(fmt.Errorf("open probe %s: %w", spec.Name, err))
	}
	p.attempt = p.write
	if spec.Probe == ProbeRead {
		// Reads look at the pooled lane's canaries, which come most often.
		p.ledger, p.attempt = canary.ReadFrom(spec, params.Of), p.read
	}
	p.Lane = s.probes.Open(canary.LaneOptions{
		Slots: params.MaxConnections, Drop: p.drop,
		Full: fmt.Errorf("all %d connections of the lane are in use; raise params.maxConnections", params.MaxConnections),
	})
	return p, nil
}

// makeLedger makes the canary table, if it is missing, as a client would see it.
func (s *servers) makeLedger(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	c, err := s.openService(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	r, err := c.row(ctx, "SELECT to_regclass($1) IS NOT NULL", s.cfg.LedgerTable)
	if err != nil || r[0] == "t" {
		return err
	}
	return s.createLedger(ctx, c)
}

// createLedger creates the canary table, and may leave c of no use if it cannot. The
// table has an index to read by, and no unique one: that would hide duplicates and cost
// a conflict.
func (s *servers) createLedger(ctx context.Context, c *session) error {
	name := s.cfg.LedgerTable
	// The lock keeps lanes that open at the same moment from racing.
	_, err := c.simple(ctx, fmt.Sprintf(`BEGIN; SELECT pg_advisory_xact_lock(hashtext('firedrill'));
CREATE TABLE IF NOT EXISTS %s (ledger text NOT NULL, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX IF NOT EXISTS %s_ledger_seq ON %s (ledger, seq); COMMIT`, name, name[strings.LastIndexByte(name, '.')+1:], name))
	if err != nil {
		c.spoiled = true // it may be in the middle of the transaction
		return fmt.Errorf("create the canary table %s: %w; let %s create tables there, or create it beforehand", name, err, s.client.user)
	}
	return nil
}

// openProbed opens a session for a probe, which knows its server: two servers are hardly
// started in the same microsecond.
func (s *servers) openProbed(ctx context.Context) (*session, error) {
	began := time.Now()
	c, err := s.openService(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.row(ctx, "SELECT pg_postmaster_start_time()")
	if err != nil {
		c.close()
		if errors.Is(err, canary.ErrHeldBack) { // the login was sent, and took all the time
			err = context.DeadlineExceeded
		}
		return nil, fmt.Errorf("service %s: %w", s.cfg.Service, err)
	}
	c.server, c.opened, c.tag = r[0], began, " /* firedrill "+rand.Text()+" */"
	return c, nil
}

func (s *servers) openService(ctx context.Context) (*session, error) {
	c, err := s.service.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("service %s as %s: %w", s.cfg.Service, s.client.user, err)
	}
	return c, nil
}

// probe is one lane. A pooled one keeps connections that have answered; the fresh one
// makes one for each attempt.
type probe struct {
	*canary.Lane
	servers *servers
	ledger  string
	// pool is what a pooled lane keeps, nil of the fresh one.
	pool       *pool
	unanswered *unanswered
	attempt    func(context.Context, *session, int64) target.Outcome
	// untried is true until an attempt was ok, where the table may have to be made yet.
	untried atomic.Bool
}

// Attempt makes one attempt; it is over when ctx ends, whatever the server does.
func (p *probe) Attempt(ctx context.Context, seq int64) target.Outcome {
	began := time.Now()
	return p.Do(ctx, func() (o target.Outcome) {
		c, err := p.session(ctx, began)
		if err == nil {
			o = p.ask(ctx, c, seq, began)
			o.Connected = !c.opened.Before(began) // what was kept, or handed on, may be older
		} else {
			// Nothing was sent but the greeting: the canary cannot be there.
			o = target.Outcome{Result: target.Failed, Connected: true, Err: err}
		}
		if errors.Is(o.Err, canary.ErrHeldBack) {
			o = target.Outcome{Result: target.Unsent, Err: o.Err}
		}
		o.Err = p.servers.scrub(o.Err)
		return o
	})
}

// session is what an attempt that began then sends its statement by: a new one if it looks
// where clients are led. The error is an ErrHeldBack if it says nothing of the server.
func (p *probe) session(ctx context.Context, began time.Time) (c *session, err error) {
	looks, err := p.unanswered.wait(ctx)
	switch {
	case err != nil:
		return nil, err
	case p.pool == nil:
		c, err = p.openFresh(ctx, began)
	default:
		if looks {
			p.pool.empty()
		}
		c, err = p.pool.take(ctx, began)
	}
	if err != nil {
		return nil, fmt.Errorf("service %s as %s: %w", p.servers.cfg.Service, p.servers.client.user, err)
	}
	return c, nil
}

// openFresh opens a session for an attempt that began then. One that had waited for too
// long to tell, by a login without an answer, that the server hangs was held back.
func (p *probe) openFresh(ctx context.Context, began time.Time) (*session, error) {
	early := newWaiter(ctx, began).early()
	c, err := p.servers.openProbed(ctx)
	if err != nil && ctx.Err() != nil && !early {
		err = tooLate(err)
	}
	return c, err
}

// ask makes an attempt, which began then, by a session, which it gives back, keeps or
// closes. Where the server owes the lane answers, its statement takes the place of the
// oldest of them.
func (p *probe) ask(ctx context.Context, c *session, seq int64, began time.Time) (o target.Outcome) {
	end := p.close
	defer func() { end(c) }() // also of one that panics
	free, err := p.unanswered.enter(c)
	if len(free) > 0 {
		o.Asked = time.Since(began)
		err = p.unanswered.free(ctx, c, free)
	}
	if err == nil {
		asked := time.Since(began)
		o = p.try(ctx, c, seq)
		o.Asked = asked
	} else {
		o.Result, o.Err = target.Failed, err
		c.silent = false // what had no answer is nothing that waits
	}
	unsent := errors.Is(o.Err, canary.ErrHeldBack)
	switch {
	case c.silent:
		end = p.keep
	case unsent && len(free) > 0:
		p.unanswered.doubt(c)
	case p.pool != nil && (unsent || o.Result == target.OK) && c.usable():
		end = p.give
	}
	return o
}

// give hands on a session of a pooled lane.
func (p *probe) give(c *session) {
	p.unanswered.leave(c, asking)
	p.pool.give(c)
}

// keep keeps a session whose statement has no answer.
func (p *probe) keep(c *session) {
	if p.pool != nil {
		p.pool.lost()
	}
	p.unanswered.add(c)
}

// close closes a session that was taken.
func (p *probe) close(c *session) {
	p.unanswered.leave(c, asking)
	c.close()
	if p.pool != nil {
		p.pool.lost()
	}
}

// try makes the attempt. A statement that failed for want of the table has done nothing,
// so it is made again once the table is there, without a doubt about its canary.
func (p *probe) try(ctx context.Context, c *session, seq int64) target.Outcome {
	untried := p.untried.Load() // before the attempt: one beside it may make the table
	o := p.attempt(ctx, c, seq)
	if !untried {
		return o
	}
	if sqlCode(o.Err) == noSuchTable {
		if err := p.servers.createLedger(ctx, c); err != nil {
			return target.Outcome{Result: target.Failed, Err: err}
		}
		o = p.attempt(ctx, c, seq)
	}
	if o.Result == target.OK {
		p.untried.Store(false)
	}
	return o
}

// drop lets go of the kept connections, and of those in use when they come back.
func (p *probe) drop() {
	if p.pool != nil {
		p.pool.empty()
	}
	if !p.Closed() {
		return
	}
	p.unanswered.close()
	if p.pool != nil {
		p.pool.close()
	}
}

// write is ok only when the server has acknowledged the commit.
func (p *probe) write(ctx context.Context, c *session, seq int64) target.Outcome {
	_, err := c.rows(ctx, "INSERT INTO "+p.servers.cfg.LedgerTable+" (ledger, seq) VALUES ($1, $2)"+c.tag, p.ledger, strconv.FormatInt(seq, 10))
	switch {
	case err == nil && c.warned:
		// "canceling wait for synchronous replication": committed here, and
		// perhaps nowhere else.
		return target.Outcome{Result: target.Unknown, Err: errors.New("the server warned with its acknowledgement: it may not be replicated")}
	case err == nil:
		return target.Outcome{Result: target.OK}
	}
	return target.Outcome{Result: fateOf(err), Err: fmt.Errorf("write canary %d: %w", seq, err)}
}

// fateOf tells a write that certainly failed from one that nobody knows about.
func fateOf(err error) byte {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		// An ERROR rolled the statement back. A FATAL may end a session whose
		// commit is done, while it waits for the synchronous standby.
		if e.SeverityUnlocalized == "ERROR" {
			return target.Failed
		}
		return target.Unknown
	}
	return target.Unknown
}

func (p *probe) read(ctx context.Context, c *session, _ int64) target.Outcome {
	r, err := c.row(ctx, "SELECT coalesce(max(seq), 0) FROM "+p.servers.cfg.LedgerTable+" WHERE ledger = $1"+c.tag, p.ledger)
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("read canaries: %w", err)}
	}
	seen, err := strconv.ParseInt(r[0], 10, 64)
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("read canaries: %w", err)}
	}
	return target.Outcome{Result: target.OK, Observed: seen}
}

// ReadLedger reads the canaries through the service, as a client would.
func (s *servers) ReadLedger(ctx context.Context, spec target.ProbeSpec, upTo int64) (target.Held, error) {
	held := target.Held{Duplicates: map[int64]int64{}}
	open, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	c, err := s.openService(open)
	if err != nil {
		return held, s.scrub(fmt.Errorf("read ledger: %w", err))
	}
	defer c.close()
	rows, err := c.rows(ctx, "SELECT seq, count(*) FROM "+s.cfg.LedgerTable+" WHERE ledger = $1 AND seq <= $2 GROUP BY seq ORDER BY seq", spec.Ledger(), strconv.FormatInt(upTo, 10))
	if err != nil {
		return held, s.scrub(fmt.Errorf("read ledger %s: %w", spec.Ledger(), err))
	}
	for _, r := range rows {
		seq, err1 := strconv.ParseInt(r[0], 10, 64)
		n, err2 := strconv.ParseInt(r[1], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return held, fmt.Errorf("read ledger %s: %w", spec.Ledger(), err)
		}
		held.Present.Add(seq)
		if n > 1 {
			held.Duplicates[seq] = n
		}
	}
	return held, nil
}

// DropLedgers removes the drills' canaries. The table stays: another drill may
// be using it.
func (s *servers) DropLedgers(ctx context.Context, drills ...string) error {
	open, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	c, err := s.openService(open)
	if err != nil {
		return s.scrub(fmt.Errorf("drop ledgers: %w", err))
	}
	defer c.close()
	_, err = c.rows(ctx, "DELETE FROM "+s.cfg.LedgerTable+" WHERE split_part(ledger, '/', 1) = ANY (string_to_array($1, ','))", strings.Join(drills, ","))
	if err != nil && sqlCode(err) != noSuchTable { // then there is nothing to drop
		return s.scrub(fmt.Errorf("drop ledgers of %s: %w", strings.Join(drills, ", "), err))
	}
	return nil
}
