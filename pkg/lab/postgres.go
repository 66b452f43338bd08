package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/firedrill/firedrill/pkg/lab/relay"
)

// startTimeout bounds the start of a PostgreSQL lab, which takes a few seconds.
const startTimeout = 3 * time.Minute

// PostgresOptions describe a lab of a primary "a" and a streaming standby "b".
type PostgresOptions struct {
	// Dir is where everything lies; it is created, and must be empty. "" means a
	// new directory below the system's temporary one.
	Dir string
	// Synchronous makes commits on a wait for b.
	Synchronous bool
	// LinkDelay is the one-way delay of the replication links.
	LinkDelay time.Duration
	// LinkRate is their rate in bytes per second; 0 is unlimited.
	LinkRate int64
	// Rows is the size of the sample table accounts; 0 means 10,000.
	Rows int
	// ScratchDisk mounts a small file system for each node, with a tablespace
	// "scratch" on it that a drill may fill. Where mounting is not allowed it is
	// left out, and Node.ScratchDir is empty.
	ScratchDisk bool
	// PgBouncer starts one in front of a, besides the relay; the driver's
	// configuration then has it as the service's endpoint.
	PgBouncer bool
	// Evidence is where drills keep what they found. It is created, must be empty,
	// and stays when the lab stops. "" means a directory in Dir, which goes with it.
	Evidence string
	// Keep leaves the files when the lab stops: logs, data, evidence.
	Keep bool
	Log  *slog.Logger
}

// Node is one PostgreSQL server of a lab.
type Node struct {
	Name string `json:"name"`
	Host string `json:"host"`
	// Port is the server's own port.
	Port int `json:"port"`
	// ReplicationPort is the relay in front of it for replication.
	ReplicationPort int `json:"replicationPort"`
	// ReplicationControl is that relay's HTTP control.
	ReplicationControl string `json:"replicationControl"`
	DataDir            string `json:"dataDir"`
	LogFile            string `json:"logFile"`
	// Role is what the node was at the start: primary or standby.
	Role string `json:"role"`
	// ScratchDir is the mount point of its small file system, or "".
	ScratchDir string `json:"scratchDir,omitempty"`
}

// Roles of a node.
const (
	Primary = "primary"
	Standby = "standby"
)

// Secrets are the files that hold passwords, mode 0600.
type Secrets struct {
	App        string `json:"app"`
	Admin      string `json:"admin"`
	Replicator string `json:"replicator"`
	// PassFile is a libpq password file for the replicator.
	PassFile string `json:"passFile"`
}

// Record is what is known of a lab: enough to use it and to stop it, also from
// another process. It holds no secret, only the names of their files.
type Record struct {
	Kind     string  `json:"kind"`
	Dir      string  `json:"dir"`
	BinDir   string  `json:"binDir"`
	OSUser   string  `json:"osUser"`
	Database string  `json:"database"`
	User     string  `json:"user"`
	Admin    string  `json:"admin"`
	Secrets  Secrets `json:"secrets"`
	Evidence string  `json:"evidence"`
	Nodes    []Node  `json:"nodes"`
	// ServicePort is where clients connect, on 127.0.0.1; ServiceControl is the
	// HTTP control of that relay.
	ServicePort    int        `json:"servicePort"`
	ServiceControl string     `json:"serviceControl"`
	PgBouncer      *PgBouncer `json:"pgbouncer,omitempty"`
	Keep           bool       `json:"keep,omitempty"`
	// Began is when the start began; UID is whom the servers run as.
	Began time.Time `json:"began"`
	UID   int       `json:"uid"`
	// Processes are those outside of PostgreSQL that a detached lab consists of.
	Processes []Process `json:"processes,omitempty"`
	// Config is the driver's configuration for this lab.
	Config json.RawMessage `json:"config"`
}

// Postgres is a running lab, which dies with this process. Its methods are safe
// for concurrent use, Stop included.
type Postgres struct {
	Record

	log      *slog.Logger
	account  account
	service  *relay.Relay
	links    map[string]*relay.Relay
	watchdog *watchdog
	bouncer  *server
	stop     func() error
}

// StartPostgres starts a lab and returns when the standby streams (and is the
// synchronous one, if asked for). ctx bounds the start only: the lab runs until
// Stop, or until this process ends. On error nothing is left running.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL lab: %w", err)
	}
	p := &Postgres{log: b.log, account: b.account, links: map[string]*relay.Relay{}}
	// Whoever stops a lab wants it stopped, whatever became of the start's context.
	p.stop = sync.OnceValue(func() error { return p.stopAll(context.WithoutCancel(ctx)) })
	b.relays = p.startRelays
	b.bounce = func(s *server) { p.bouncer = s }
	b.started = func(mounts []string) (err error) {
		p.watchdog, err = startWatchdog(b.rec.Dir, !b.rec.Keep, mounts)
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the lab did not start in "+startTimeout.String()))
	defer cancel()
	err = b.build(ctx)
	p.Record = b.rec
	if err != nil {
		return nil, errors.Join(fmt.Errorf("PostgreSQL lab in %s: %w", b.rec.Dir, err), p.Stop())
	}
	return p, nil
}

// Stop ends every process of the lab, whatever state it is in, and removes its
// files unless they are to be kept. Later calls return the first one's error.
func (p *Postgres) Stop() error { return p.stop() }

func (p *Postgres) stopAll(ctx context.Context) error {
	errs := []error{stopServers(ctx, p.Record)}
	if p.bouncer != nil {
		p.bouncer.wait()
	}
	for _, r := range p.links {
		r.Close()
	}
	if p.service != nil {
		p.service.Close()
	}
	if p.watchdog != nil {
		p.watchdog.stop()
	}
	errs = append(errs, removeFiles(p.Record))
	return errors.Join(errs...)
}

// Config is the configuration for the driver, with references to secrets.
func (p *Postgres) Config() json.RawMessage { return p.Record.Config }

// Service is the relay that clients connect to.
func (p *Postgres) Service() *relay.Relay { return p.service }

// ReplicationLink is the relay in front of a node for replication, or nil for
// an unknown node. The standby b is fed through the link of a.
func (p *Postgres) ReplicationLink(node string) *relay.Relay { return p.links[node] }

// Connect opens a connection as the superuser to a node itself, past the
// relays. The caller closes it.
func (p *Postgres) Connect(ctx context.Context, node string) (*pgx.Conn, error) {
	n, ok := p.Node(node)
	if !ok {
		return nil, fmt.Errorf("lab node %q: there are only a and b", node)
	}
	return p.Record.connect(ctx, n.Port, p.Admin, p.Secrets.Admin, "postgres")
}

// ConnectService opens a connection as the application does, through the
// service relay. The caller closes it.
func (p *Postgres) ConnectService(ctx context.Context) (*pgx.Conn, error) {
	return p.Record.connect(ctx, p.ServicePort, p.User, p.Secrets.App, p.Database)
}

// Node finds a node by name.
func (r Record) Node(name string) (Node, bool) {
	for _, n := range r.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

func (r Record) connect(ctx context.Context, port int, user, secret, database string) (*pgx.Conn, error) {
	password, err := os.ReadFile(secret)
	if err != nil {
		return nil, fmt.Errorf("lab password: %w", err)
	}
	c, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable connect_timeout=5", port, user, database))
	if err != nil {
		return nil, fmt.Errorf("lab connection: %w", err)
	}
	c.Password = string(password)
	return pgx.ConnectConfig(ctx, c)
}

func (p *Postgres) startRelays(ctx context.Context, all []relay.Options) ([]relay.Announcement, error) {
	// Relays live until Stop, not until the context of the start ends.
	ctx = context.WithoutCancel(ctx)
	out := make([]relay.Announcement, 0, len(all))
	for _, o := range all {
		o.Log = p.log
		r, err := relay.Start(ctx, o)
		if err != nil {
			return nil, err
		}
		if o.Name == serviceRelay {
			p.service = r
		} else {
			p.links[o.Name] = r
		}
		out = append(out, relay.Announcement{Name: o.Name, Listen: r.Addr().String(), Control: r.ControlURL(), PID: os.Getpid()})
	}
	return out, nil
}

// stopServers ends PostgreSQL and PgBouncer, and gives back what they held of
// the machine.
func stopServers(ctx context.Context, r Record) error {
	if r.Dir == "" {
		return nil
	}
	ids := sharedMemory(r.Dir)
	errs := []error{sweep(ctx, r.Dir)}
	dropSharedMemory(append(ids, abandonedSegments(r.Began, r.UID)...))
	for _, n := range r.Nodes {
		errs = append(errs, unmount(n.ScratchDir))
	}
	return errors.Join(errs...)
}

func removeFiles(r Record) error {
	if r.Keep || r.Dir == "" {
		return nil
	}
	if err := os.RemoveAll(r.Dir); err != nil {
		return fmt.Errorf("remove the lab's files: %w", err)
	}
	return nil
}

func portOf(address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// prepareDir makes an empty directory that the servers' account can enter.
func prepareDir(dir string, a account) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "firedrill-lab-")
		if err != nil {
			return "", err
		}
		dir = made
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// Missing parents are made for everybody to enter: PostgreSQL runs as a user
	// of its own. Only the lab's directory is private.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// PostgreSQL's processes are found by their real working directory.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("directory %s is not empty: it holds %s; choose another, or stop the lab in it", dir, entries[0].Name())
	}
	if err := a.letIn(dir); err != nil {
		return "", err
	}
	return dir, a.own(dir)
}
