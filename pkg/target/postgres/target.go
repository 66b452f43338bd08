package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/secrets"
)

// Name is the driver's name in a drill.
const Name = "postgres"

//go:embed sample.yaml
var sample string

// Driver drills a PostgreSQL primary with streaming standbys. Its zero value is
// ready and stateless.
type Driver struct{}

// Name is "postgres".
func (Driver) Name() string { return Name }

// Check reads a configuration without touching anything.
func (Driver) Check(raw json.RawMessage) error {
	_, err := parseConfig(raw)
	return err
}

// Open resolves the configuration's secrets. It connects to nothing.
func (Driver) Open(_ context.Context, c target.Config) (*target.Target, error) {
	cfg, err := parseConfig(c.Raw)
	if err != nil {
		return nil, err
	}
	p, err := newServers(cfg, c)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", c.Name, err)
	}
	return &target.Target{Injector: p, Observer: p, Checker: p, Evidence: p, Identity: p, Close: p.close}, nil
}

// servers is an open target. It keeps no connection between calls, except in
// the probes that it opened.
type servers struct {
	cfg         Config
	clock       target.Clock
	log         *slog.Logger
	client      login
	admin       login
	replication login
	service     *connector
	nodes       []*node
	endpoint    endpoint
	secrets     secrets.Set
	probes      canary.Book
}

// node is a configured node with the way to its machine.
type node struct {
	Node
	host *control.Host
}

func newServers(cfg Config, c target.Config) (*servers, error) {
	s := &servers{cfg: cfg, clock: c.Clock, log: c.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("target", c.Name, "driver", Name)
	var errs []error
	resolve := func(field string, r target.SecretRef) string {
		v, err := s.secrets.Resolve(field, r)
		if err != nil {
			errs = append(errs, err)
		}
		return v
	}
	s.client = login{cfg.User, resolve("password", cfg.Password)}
	s.admin = login{cfg.Admin.User, resolve("admin.password", cfg.Admin.Password)}
	s.replication = login{cfg.Replication.User, resolve("replication.password", cfg.Replication.Password)}
	var err error
	s.service, err = newConnector(cfg.Service, s.client, cfg.Database, cfg.SSLMode)
	errs = append(errs, err)
	for _, n := range cfg.Nodes {
		h, err := control.New(n.Control)
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
		}
		s.nodes = append(s.nodes, &node{Node: n, host: h})
	}
	bouncer := login{cfg.Endpoint.PgBouncer.Admin.User, resolve("endpoint.pgbouncer.admin.password", cfg.Endpoint.PgBouncer.Admin.Password)}
	e, err := newEndpoint(cfg.Endpoint, bouncer)
	errs = append(errs, err)
	s.endpoint = e
	return s, errors.Join(errs...)
}

func (s *servers) close() error {
	s.probes.Close()
	return nil
}

// home is the node with the primary's home role.
func (s *servers) home() *node {
	for _, n := range s.nodes {
		if n.Role == RolePrimary {
			return n
		}
	}
	return nil // parseConfig lets no such configuration pass
}

func (s *servers) node(name string) (*node, error) {
	var names []string
	for _, n := range s.nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return nil, &target.FieldError{Field: "params.node", Value: name, Fix: "use one of the target's nodes: " + strings.Join(names, ", ")}
}

// at finds the node with an address, nil if none has it.
func (s *servers) at(address string) *node {
	for _, n := range s.nodes {
		if n.Address().String() == address {
			return n
		}
	}
	return nil
}

// adminTimeout bounds an admin's connection and short statements.
const adminTimeout = 5 * time.Second

// open connects to a node as the admin.
func (s *servers) open(ctx context.Context, n *node) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	c, err := connect(ctx, n.Address(), s.admin, s.cfg.Database, s.cfg.SSLMode)
	if err != nil {
		return nil, s.scrub(fmt.Errorf("node %s as %s: %w", n.Name, s.admin.user, err))
	}
	return c, nil
}

// ask opens a connection to a node for one statement that gives one row.
func (s *servers) ask(ctx context.Context, n *node, sql string, args ...string) ([]string, error) {
	c, err := s.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	row, err := c.row(ctx, sql, args...)
	if err != nil {
		return nil, s.scrub(fmt.Errorf("node %s: %w", n.Name, err))
	}
	return row, nil
}

// run runs a script on a node's machine as the owner of its data directory.
func (s *servers) run(ctx context.Context, n *node, script string, args ...string) (string, error) {
	out, err := n.host.Output(ctx, control.Command{Script: script, Args: args, User: n.OSUser})
	if err != nil {
		return out, s.scrub(fmt.Errorf("node %s: %w", n.Name, err))
	}
	return out, nil
}

// scrub hides every secret that the error's text holds.
func (s *servers) scrub(err error) error { return s.secrets.Error(err) }

func (s *servers) scrubText(text string) string { return s.secrets.Text(text) }
