package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// endpoint decides where clients' connections lead.
type endpoint interface {
	// upstream is the host:port that it leads to; "" when it cannot say.
	upstream(ctx context.Context) (string, error)
	// redirect leads new connections to n; idempotent. It also resumes.
	redirect(ctx context.Context, n *node) error
	// pause holds clients up, as far as the kind can; redirect or resume ends it.
	// They may be held after an error, too: whoever pauses resumes.
	pause(ctx context.Context) error
	resume(ctx context.Context) error
	// survey only reads, and notes what would keep a redirection to n from being made.
	survey(ctx context.Context, n *node, p *strict.Problems)
}

func newEndpoint(e Endpoint, admin login) (endpoint, error) {
	switch e.Kind {
	case EndpointPgBouncer:
		h, err := control.New(e.PgBouncer.Place)
		return &bouncer{cfg: e.PgBouncer, admin: admin, host: h}, err
	case EndpointExec:
		h, err := control.New(e.Exec.Place)
		return &hook{argv: e.Exec.Argv, host: h}, err
	}
	return &relay{base: strings.TrimSuffix(e.Control, "/")}, nil
}

// endpointTimeout bounds one request to an endpoint.
const endpointTimeout = 10 * time.Second

// relay is a TCP relay with an HTTP control.
type relay struct{ base string }

type relayState struct {
	Upstream string `json:"upstream"`
	Paused   bool   `json:"paused"`
	// ResumesIn is after how long it forwards again by itself; 0 when it does not.
	ResumesIn time.Duration `json:"resumes_in_ns"`
}

func (r *relay) call(ctx context.Context, method, path string, body any) (relayState, error) {
	var st relayState
	ctx, cancel := context.WithTimeout(ctx, endpointTimeout)
	defer cancel()
	var payload io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return st, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, payload)
	if err != nil {
		return st, fmt.Errorf("relay: %w", err)
	}
	// One connection for each call: nothing is left to close.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return st, fmt.Errorf("relay: %w; is its control address right?", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return st, fmt.Errorf("relay: %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return st, fmt.Errorf("relay: %s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(text)))
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return st, nil
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return st, fmt.Errorf("relay: %s %s: its answer is not a relay's: %w", method, path, err)
	}
	return st, nil
}

func (r *relay) state(ctx context.Context) (relayState, error) {
	return r.call(ctx, http.MethodGet, "/state", nil)
}

func (r *relay) upstream(ctx context.Context) (string, error) {
	st, err := r.state(ctx)
	return st.Upstream, err
}

func (r *relay) redirect(ctx context.Context, n *node) error {
	st, err := r.state(ctx)
	if err != nil {
		return err
	}
	want := n.Address().String()
	if st.Upstream != want {
		if _, err := r.call(ctx, http.MethodPut, "/upstream", map[string]string{"address": want}); err != nil {
			return err
		}
	}
	if st.Paused {
		return r.resume(ctx)
	}
	return nil
}

func (r *relay) pause(ctx context.Context) error {
	_, err := r.call(ctx, http.MethodPost, "/pause", nil)
	return err
}

func (r *relay) resume(ctx context.Context) error {
	_, err := r.call(ctx, http.MethodPost, "/resume", nil)
	return err
}

// cut pauses the relay until it is resumed, or for a time if nobody does.
func (r *relay) cut(ctx context.Context, bound time.Duration) error {
	st, err := r.call(ctx, http.MethodPost, "/pause", map[string]string{"mode": "hold", "for": bound.String()})
	if err != nil || st.Paused && st.ResumesIn > 0 {
		return err
	}
	return errors.Join(fmt.Errorf("relay: %s does not end a pause by itself: run the relay of this firedrill's lab there", r.base), r.resume(ctx))
}

// keep has a paused relay stay so until it is resumed, and fails if its time is up
// before that. One that does not run lets
// nothing through, and forwards when it is started, whatever it did before.
func (r *relay) keep(ctx context.Context) (kept bool, err error) {
	st, err := r.state(ctx)
	if errors.Is(err, syscall.ECONNREFUSED) || err == nil && st.ResumesIn == 0 {
		return false, nil
	}
	if err == nil {
		st, err = r.call(ctx, http.MethodPost, "/keep", nil)
	}
	if err == nil && !st.Paused {
		err = fmt.Errorf("relay: %s let everything through again just before it was told to stay paused", r.base)
	}
	return err == nil, err
}

// bouncer is a PgBouncer, moved by rewriting its database's line.
type bouncer struct {
	cfg   PgBouncer
	admin login
	host  *control.Host
}

func (b *bouncer) console(ctx context.Context, sql string) ([]map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, endpointTimeout)
	defer cancel()
	s, err := connect(ctx, Address{b.cfg.Admin.Host, b.cfg.Admin.Port}, b.admin, "pgbouncer", "disable")
	if err != nil {
		return nil, fmt.Errorf("pgbouncer console: %w", err)
	}
	defer s.close()
	rows, err := s.simple(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("pgbouncer console: %s: %w", sql, err)
	}
	return rows, nil
}

func (b *bouncer) row(ctx context.Context) (map[string]string, error) {
	rows, err := b.console(ctx, "SHOW DATABASES")
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r["name"] == b.cfg.Database {
			return r, nil
		}
	}
	return nil, fmt.Errorf("pgbouncer has no database %q; name one of its [databases] section", b.cfg.Database)
}

func (b *bouncer) upstream(ctx context.Context) (string, error) {
	r, err := b.row(ctx)
	if err != nil {
		return "", err
	}
	return r["host"] + ":" + r["port"], nil
}

func (b *bouncer) redirect(ctx context.Context, n *node) error {
	text, err := b.host.ReadFile(ctx, b.cfg.INI)
	if err != nil {
		return fmt.Errorf("pgbouncer: %w", err)
	}
	changed, err := moveDatabase(string(text), b.cfg.Database, n.Address())
	if err != nil {
		return fmt.Errorf("pgbouncer: %s: %w", b.cfg.INI, err)
	}
	before, err := b.row(ctx)
	if err != nil {
		return err
	}
	moves := before["host"]+":"+before["port"] != n.Address().String()
	if changed != string(text) {
		err = b.host.WriteFile(ctx, b.cfg.INI, []byte(changed), 0o640, "")
	}
	if err == nil && moves {
		_, err = b.console(ctx, "RELOAD")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pgbouncer: %w", err), b.restore(ctx, text))
	}
	if moves {
		// KILL ends clients that wait on the old server, frozen ones included;
		// it leaves the database paused.
		if _, err := b.console(ctx, "KILL "+quoteIdent(b.cfg.Database)); err != nil {
			return err
		}
	}
	if err := b.resume(ctx); err != nil {
		return err
	}
	return target.Poll(ctx, endpointTimeout, 10*time.Millisecond, "pgbouncer to lead to "+n.Name, func(ctx context.Context) (bool, string, error) {
		up, err := b.upstream(ctx)
		return up == n.Address().String(), "it leads to " + up, err
	})
}

// restore puts the file back when it could not be made to count: the next reload,
// whoever makes it, would move clients unawares. It works after ctx has ended.
func (b *bouncer) restore(ctx context.Context, text []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endpointTimeout)
	defer cancel()
	if err := b.host.WriteFile(ctx, b.cfg.INI, text, 0o640, ""); err != nil {
		return fmt.Errorf("pgbouncer: it was not reloaded, and %s leads elsewhere than it does now; put the line back: %w", b.cfg.INI, err)
	}
	return nil
}

func (b *bouncer) pause(ctx context.Context) error {
	if r, err := b.row(ctx); err != nil || r["paused"] == "1" {
		return err
	}
	// PAUSE holds new work at once, and then waits for transactions, or, with
	// pool_mode session, for sessions that may stay for ever. That wait is cut
	// short: clients would feel it.
	short, cancel := context.WithTimeout(ctx, pauseWait)
	defer cancel()
	_, err := b.console(short, "PAUSE "+quoteIdent(b.cfg.Database))
	if err == nil || short.Err() == nil {
		return err
	}
	if r, rerr := b.row(ctx); rerr == nil && r["paused"] == "1" {
		return nil
	}
	return err
}

// pauseWait is how long PgBouncer may wait for work under way.
const pauseWait = 300 * time.Millisecond

func (b *bouncer) resume(ctx context.Context) error {
	if r, err := b.row(ctx); err != nil || r["paused"] != "1" {
		return err
	}
	_, err := b.console(ctx, "RESUME "+quoteIdent(b.cfg.Database))
	return err
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

var (
	iniHost = lazy.Regexp(`(^|\s)host\s*=\s*('[^']*'|\S+)`)
	iniPort = lazy.Regexp(`(^|\s)port\s*=\s*('[^']*'|\S+)`)
)

// moveDatabase rewrites host and port in one line of [databases].
func moveDatabase(ini, database string, to Address) (string, error) {
	lines := strings.SplitAfter(ini, "\n")
	section, found := "", false
	for i, line := range lines {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "[") {
			section = strings.Trim(trimmed, "[] \t")
			continue
		}
		name, value, ok := strings.Cut(trimmed, "=")
		if section != "databases" || !ok || strings.Trim(strings.TrimSpace(name), `"`) != database {
			continue
		}
		found = true
		value = set(iniHost(), strings.TrimSpace(value), "host="+to.Host)
		value = set(iniPort(), value, fmt.Sprintf("port=%d", to.Port))
		lines[i] = strings.TrimSpace(name) + " = " + value + "\n"
	}
	if !found {
		return "", fmt.Errorf("no line for database %q in [databases]; give it a line of its own, not *", database)
	}
	return strings.Join(lines, ""), nil
}

func set(re *regexp.Regexp, value, pair string) string {
	if re.MatchString(value) {
		return re.ReplaceAllString(value, "${1}"+pair)
	}
	return strings.TrimSpace(pair + " " + value)
}

// hook is a command of the user's.
type hook struct {
	argv []string
	host *control.Host
}

func (h *hook) upstream(context.Context) (string, error) { return "", nil }
func (h *hook) pause(context.Context) error              { return nil }
func (h *hook) resume(context.Context) error             { return nil }

func (h *hook) redirect(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := h.host.Run(ctx, control.Command{
		Script: `exec "$@"`, Args: h.argv,
		Env: map[string]string{"FIREDRILL_NODE": n.Name, "FIREDRILL_HOST": n.Host, "FIREDRILL_PORT": fmt.Sprint(n.Port)},
	})
	if err != nil {
		return fmt.Errorf("endpoint hook: %w", err)
	}
	return nil
}

// serving is the node that clients reach now: the endpoint's own word, or else
// the server that answers there, known by its start time. nil if nobody can say.
func (s *servers) serving(ctx context.Context, views []view) *node {
	if up, err := s.endpoint.upstream(ctx); err == nil && up != "" {
		return s.at(up)
	}
	started, err := s.servedBy(ctx)
	if err != nil {
		return nil
	}
	for _, v := range views {
		if v.Started != "" && v.Started == started {
			return v.node
		}
	}
	return nil
}

// servedBy asks through the service which server answers there.
func (s *servers) servedBy(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := s.service.open(ctx)
	if err != nil {
		return "", s.scrub(fmt.Errorf("service: %w", err))
	}
	defer c.close()
	r, err := c.row(ctx, "SELECT pg_postmaster_start_time()")
	if err != nil {
		return "", s.scrub(fmt.Errorf("service: %w", err))
	}
	return r[0], nil
}

// awaitServed waits until clients reach v's server through the service.
func (s *servers) awaitServed(ctx context.Context, n *node, started string, limit time.Duration) error {
	return target.Poll(ctx, limit, 20*time.Millisecond, "the service to be served by "+n.Name, func(ctx context.Context) (bool, string, error) {
		got, err := s.servedBy(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return got == started, "another server answers there", nil
	})
}
