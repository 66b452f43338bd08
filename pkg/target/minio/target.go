// Package minio drills a MinIO object store: it breaks servers, drives, rights and
// single objects, writes canaries through the service endpoint as a client would,
// and checks what is left.
package minio

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/secrets"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// Name is the driver's name in a drill.
const Name = "minio"

//go:embed sample.yaml
var sample string

// Driver drills a MinIO store of one node or more. Its zero value is ready and
// stateless.
type Driver struct{}

// Name is "minio".
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
	s, err := newStore(cfg, c)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", c.Name, err)
	}
	return &target.Target{Injector: s, Observer: s, Checker: s, Evidence: s, Identity: s, Close: s.close}, nil
}

// store is an open target. Its connections are kept for the next call, apart from
// those of the probes, which have their own.
type store struct {
	cfg     Config
	clock   target.Clock
	log     *slog.Logger
	service url
	client  login
	admin   login
	secrets secrets.Set
	nodes   []*node
	// users is the client's way in, for everything but probes.
	users  *conns
	probes canary.Book
	latest canary.Latest
}

// node is a configured node with the way to its machine.
type node struct {
	Node
	host *control.Host
}

func newStore(cfg Config, c target.Config) (*store, error) {
	s := &store{cfg: cfg, clock: c.Clock, log: c.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("target", c.Name, "driver", Name)
	var errs []error
	resolve := func(field string, a Account) login {
		v, err := s.secrets.Resolve(field, a.SecretKey)
		if err != nil {
			errs = append(errs, err)
		}
		return login{a.User, v}
	}
	s.client = resolve("secretKey", Account{cfg.User, cfg.SecretKey})
	s.admin = resolve("admin.secretKey", cfg.Admin)
	for _, n := range cfg.Nodes {
		h, err := control.New(n.Control)
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
		}
		s.nodes = append(s.nodes, &node{Node: n, host: h})
	}
	var err error
	if s.service, err = parseURL(cfg.Endpoint, cfg.CAFile); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if s.users, err = newConns(s.service, s.client, false); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *store) close() error {
	s.probes.Close()
	s.users.reset()
	return nil
}

func (s *store) node(name string) (*node, error) {
	var names []string
	for _, n := range s.nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return nil, &target.FieldError{Field: "params.node", Value: name, Fix: "use one of the target's nodes: " + strings.Join(names, ", ")}
}

// machine is a node's machine, where its faults are undone.
func (s *store) machine(n *node) undo.Machine {
	return undo.Machine{Host: n.host, Name: "node " + n.Name, StateDir: s.cfg.StateDir, Field: "nodes[].control"}
}

// tree is where the canaries lie in the bucket.
func (s *store) tree() canary.Tree { return canary.Tree(s.cfg.Prefix) }

// scrub hides every secret that the error's text holds.
func (s *store) scrub(err error) error { return s.secrets.Error(err) }

// run runs a script on a node's machine, with firedrill's rights there.
func (s *store) run(ctx context.Context, n *node, c control.Command) (string, error) {
	out, err := n.host.Output(ctx, c)
	if err != nil {
		return out, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return out, nil
}

// The health endpoints of a node.
const (
	healthLive    = "/minio/health/live"
	healthReady   = "/minio/health/ready"
	healthCluster = "/minio/health/cluster"
)

// healthTime bounds one look at a health endpoint.
const healthTime = 2 * time.Second

// health asks a node itself, past the service endpoint; nil means that it is well.
func (s *store) health(ctx context.Context, n *node, path string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	at := s.service
	at.host = n.Address().String()
	t := at.transport(true)
	defer t.CloseIdleConnections()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String()+path, nil)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	a, err := t.RoundTrip(q)
	if err != nil {
		return fmt.Errorf("node %s: %s%s: %w", n.Name, at, path, err)
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("node %s: %s%s: %s", n.Name, at, path, a.Status)
	}
	return nil
}
