package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/firedrill/firedrill/pkg/target/canary"
)

// login is a role with its password resolved.
type login struct {
	user, password string
}

// session is one connection. It is used by one goroutine at a time.
type session struct {
	pg  *pgconn.PgConn
	raw *wire
	// server tells one server from another, opened is when this session was begun, and tag
	// ends its statements, which tells the server's process that is at one, also behind a
	// pooler; all only of sessions that probes use.
	server string
	opened time.Time
	tag    string
	// debt is guarded by the unanswered of its lane.
	debt debt
	// emptied is how often its pool had been when it was begun.
	emptied int
	// warned is set when the server warned during a statement.
	warned bool
	// spoiled is set when a context ended during a statement, silent when that had no
	// answer then: the server may still be at it.
	spoiled, silent bool
}

// errClosed is what a second dial for a session gets.
var errClosed = errors.New("the session is closed")

// dialer opens the one TCP connection that a session may make. pgconn would
// otherwise open further ones: to each address of a name in turn, which eats the
// deadline of the first good one, and, after a time-out, to send a cancel
// request, which hangs for 15 s when the server is frozen.
type dialer struct {
	mu   sync.Mutex
	used bool
	raw  *wire
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.used {
		return nil, errClosed
	}
	d.used = true
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.raw = &wire{Conn: c}
	return d.raw, nil
}

// abort closes the TCP connection, if there is one, and forbids another.
func (d *dialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used = true
	if d.raw != nil {
		_ = d.raw.Close()
	}
}

// connector opens sessions to one server as one role. It is immutable and safe
// for concurrent use.
type connector struct {
	to       Address
	database string
	cfg      *pgconn.Config
}

func newConnector(to Address, l login, database, sslMode string) (*connector, error) {
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=%s application_name=firedrill",
		dsnQuote(to.Host), to.Port, dsnQuote(l.user), dsnQuote(database), sslMode))
	if err != nil {
		return nil, fmt.Errorf("connection to %s as %s: %w", to, l.user, err)
	}
	c.Password = l.password
	c.Fallbacks, c.ValidateConnect, c.AfterConnect = nil, nil, nil
	c.ConnectTimeout = 0 // the context has the deadline
	// The name is left to net.Dialer, which tries a name's addresses side by side.
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	return &connector{to: to, database: database, cfg: c}, nil
}

// open opens a session. It ends with ctx, also against a server that accepts and
// never answers.
func (k *connector) open(ctx context.Context) (*session, error) {
	s, d, c := &session{}, &dialer{}, k.cfg.Copy()
	c.DialFunc = d.dial
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			s.warned = true
		}
	}
	var err error
	s.pg, err = pgconn.ConnectConfig(ctx, c)
	if err != nil {
		d.abort()
		return nil, fmt.Errorf("connect to %s, database %s: %w", k.to, k.database, err)
	}
	s.raw = d.raw
	return s, nil
}

// connect opens one session.
func connect(ctx context.Context, to Address, l login, database, sslMode string) (*session, error) {
	k, err := newConnector(to, l, database, sslMode)
	if err != nil {
		return nil, err
	}
	return k.open(ctx)
}

// close ends the session without waiting for the server.
func (s *session) close() {
	if s.pg.IsClosed() {
		_ = s.raw.Close()
		<-s.pg.CleanupDone()
		return
	}
	// A server that no longer reads must not hold up whoever closes.
	_ = s.raw.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	s.pg.Frontend().Send(&pgproto3.Terminate{})
	_ = s.pg.Frontend().Flush()
	_ = s.raw.Close()
}

// usable reports whether the session can take another statement.
func (s *session) usable() bool { return !s.spoiled && !s.pg.IsClosed() }

// rows runs one statement and returns its rows as text; NULL is "".
func (s *session) rows(ctx context.Context, sql string, args ...string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	s.warned = false
	r := s.exec(ctx, sql, params)
	if r.Err != nil {
		return nil, r.Err
	}
	out := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		out[i] = make([]string, len(row))
		for j, v := range row {
			out[i][j] = string(v)
		}
	}
	return out, nil
}

// exec runs one statement, no longer than ctx allows; the error is an ErrHeldBack if that
// was too short to send it. pgconn would watch the context in a goroutine for each
// statement, which costs a prober more than the statement does; a deadline on the
// connection ends it just so, and leaves it as unusable.
func (s *session) exec(ctx context.Context, sql string, params [][]byte) *pgconn.Result {
	if ctx.Err() != nil {
		return &pgconn.Result{Err: fmt.Errorf("%w: %w", canary.ErrHeldBack, context.Cause(ctx))}
	}
	end, _ := ctx.Deadline() // without one, the zero time means none
	if err := s.raw.SetDeadline(end); err != nil {
		s.spoiled = true
		return &pgconn.Result{Err: err}
	}
	stop := context.AfterFunc(ctx, func() {
		// The connection's own deadline does it, and whoever reads on by then has another.
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			_ = s.raw.SetDeadline(time.Unix(1, 0))
		}
	})
	r := s.pg.ExecParams(context.Background(), sql, params, nil, nil, nil).Read()
	// The function that was not stopped in time may yet end the next statement.
	if err := s.raw.SetDeadline(time.Time{}); !stop() || err != nil {
		s.spoiled = true
	}
	switch {
	case pgconn.SafeToRetry(r.Err): // not a byte of it was written
		r.Err = fmt.Errorf("%w: %w", canary.ErrHeldBack, r.Err)
	case errors.Is(r.Err, os.ErrDeadlineExceeded):
		s.silent = true
		r.Err = fmt.Errorf("no answer in time: %w", cmp.Or(context.Cause(ctx), context.DeadlineExceeded))
	}
	return r
}

// row runs a statement that gives one row.
func (s *session) row(ctx context.Context, sql string, args ...string) ([]string, error) {
	rows, err := s.rows(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("%d rows, one was expected, from: %s", len(rows), sql)
	}
	return rows[0], nil
}

// simple runs a script of statements by the simple protocol, which is all that
// PgBouncer's console speaks, and returns the last one's rows.
func (s *session) simple(ctx context.Context, sql string) ([]map[string]string, error) {
	results, err := s.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for _, r := range results {
		out = nil
		for _, row := range r.Rows {
			m := map[string]string{}
			for i, v := range row {
				m[r.FieldDescriptions[i].Name] = string(v)
			}
			out = append(out, m)
		}
	}
	return out, nil
}

func dsnQuote(s string) string {
	out := []byte{'\''}
	for i := range len(s) {
		if s[i] == '\'' || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(append(out, '\''))
}

// sqlCode is the SQLSTATE of a server's error, "" for others.
func sqlCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
