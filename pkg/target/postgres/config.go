package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// Config describes a PostgreSQL primary with its streaming standbys, and the
// endpoint through which clients reach the primary.
type Config struct {
	// Database is where the canary table lives and what clients use.
	Database string `json:"database"`
	// User and Password are a client's: probes connect as it.
	User     string           `json:"user"`
	Password target.SecretRef `json:"password"`
	// SSLMode is disable (the default), require, verify-ca or verify-full. There
	// is no prefer or allow: they would connect twice and blur what is measured.
	SSLMode string `json:"sslMode"`
	// Admin is a superuser that connects to each node directly.
	Admin Account `json:"admin"`
	// Replication is what a rebuilt node streams as; the admin, if left out.
	Replication Account `json:"replication"`
	// Service is where clients connect.
	Service Address `json:"service"`
	// Endpoint is what decides where Service leads.
	Endpoint Endpoint `json:"endpoint"`
	Nodes    []Node   `json:"nodes"`
	Failback Failback `json:"failback"`
	// ScratchDirs, on each node, are what fill-disk may fill: each of them and what
	// lies below it. A drill chooses among them; where commands and requests to
	// other places go is the configuration's to say.
	ScratchDirs []string `json:"scratchDirs"`
	// Relays are the control URLs of relays that cut-replication may pause.
	Relays []string `json:"relays"`
	// LedgerTable is the canary table; firedrill_canary if left out.
	LedgerTable string `json:"ledgerTable"`
}

// Account is a database role.
type Account struct {
	User     string           `json:"user"`
	Password target.SecretRef `json:"password"`
}

// Address is a host and port.
type Address struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// String is host:port.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// The kinds of an Endpoint.
const (
	EndpointRelay     = "relay"
	EndpointPgBouncer = "pgbouncer"
	EndpointExec      = "exec"
)

// Endpoint is what is switched when the service moves to another node.
type Endpoint struct {
	// Kind is relay, pgbouncer or exec.
	Kind string `json:"kind"`
	// Control is the base URL of a relay's control.
	Control string `json:"control"`
	// PgBouncer is for kind pgbouncer.
	PgBouncer PgBouncer `json:"pgbouncer"`
	// Exec is for kind exec.
	Exec ExecHook `json:"exec"`
}

// PgBouncer is a pooler whose database line is rewritten and reloaded.
type PgBouncer struct {
	Admin PgBouncerAdmin `json:"admin"`
	// INI is the path of pgbouncer.ini on Place.
	INI string `json:"ini"`
	// Database is the name in its [databases] section.
	Database string         `json:"database"`
	Place    control.Config `json:"place"`
}

// PgBouncerAdmin is the way into the admin console.
type PgBouncerAdmin struct {
	Host     string           `json:"host"`
	Port     uint16           `json:"port"`
	User     string           `json:"user"`
	Password target.SecretRef `json:"password"`
}

// ExecHook is a command that moves the service. It gets FIREDRILL_NODE,
// FIREDRILL_HOST and FIREDRILL_PORT, must be idempotent, and returns when new
// connections go there.
type ExecHook struct {
	Argv []string `json:"argv"`
	// Place is where it runs; this machine, if left out.
	Place control.Config `json:"place"`
}

// The home roles of a Node.
const (
	RolePrimary = "primary"
	RoleStandby = "standby"
)

// Node is one PostgreSQL server.
type Node struct {
	Name string `json:"name"`
	// Host and Port are where the admin and the endpoint reach it.
	Host string `json:"host"`
	Port uint16 `json:"port"`
	// ReplicationHost and ReplicationPort are where standbys reach it, if elsewhere.
	ReplicationHost string `json:"replicationHost"`
	ReplicationPort uint16 `json:"replicationPort"`
	// Role is its home role: exactly one node is the primary.
	Role    string `json:"role"`
	DataDir string `json:"dataDir"`
	// BinDir holds pg_ctl, pg_rewind and the rest.
	BinDir string `json:"binDir"`
	// OSUser owns the data directory.
	OSUser string `json:"osUser"`
	// LogFile gets the server's output when firedrill starts it.
	LogFile string         `json:"logFile"`
	Control control.Config `json:"control"`
}

// Address is where the admin and the endpoint reach the node.
func (n Node) Address() Address { return Address{Host: n.Host, Port: n.Port} }

// replication is where standbys reach the node.
func (n Node) replication() Address {
	a := n.Address()
	if n.ReplicationHost != "" {
		a.Host = n.ReplicationHost
	}
	if n.ReplicationPort != 0 {
		a.Port = n.ReplicationPort
	}
	return a
}

// The methods of a failback.
const (
	MethodRewind     = "rewind"
	MethodBaseBackup = "basebackup"
)

// Failback says how a former primary becomes a standby again.
type Failback struct {
	// Method is rewind (the default; falls back to basebackup) or basebackup.
	Method string `json:"method"`
	// EvidenceDir, on each node, keeps the write-ahead log that a rebuild would
	// destroy, and firedrill's own small state. It lies outside the data directory.
	EvidenceDir string `json:"evidenceDir"`
}

const defaultLedgerTable = "firedrill_canary"

var (
	identifier = lazy.Regexp(`^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$`)
	nodeName   = lazy.Regexp(`^[a-zA-Z0-9][-_.a-zA-Z0-9]{0,62}$`)
)

// parseConfig reads and checks a configuration without touching anything.
func parseConfig(raw json.RawMessage) (Config, error) {
	var c Config
	if err := strict.Decode(raw, &c); err != nil {
		return c, err
	}
	if c.SSLMode == "" {
		c.SSLMode = "disable"
	}
	if c.LedgerTable == "" {
		c.LedgerTable = defaultLedgerTable
	}
	if c.Failback.Method == "" {
		c.Failback.Method = MethodRewind
	}
	if c.Replication.User == "" {
		c.Replication = c.Admin
	}
	var p strict.Problems
	c.check(&p)
	return c, errors.Join(p...)
}

func (c Config) check(p *strict.Problems) {
	p.Need("database", c.Database, "the database of the canaries")
	p.Need("user", c.User, "the role that probes connect as")
	p.OneOf("sslMode", c.SSLMode, "disable", "require", "verify-ca", "verify-full")
	p.Need("admin.user", c.Admin.User, "a superuser of its own")
	p.Secret("password", c.Password)
	p.Secret("admin.password", c.Admin.Password)
	p.Secret("replication.password", c.Replication.Password)
	p.Need("service.host", c.Service.Host, "where clients connect; one host")
	if strings.Contains(c.Service.Host, ",") {
		p.Add("service.host", c.Service.Host, "give one host: with several, a client's search for a live one would be measured instead of the service")
	}
	p.Port("service.port", c.Service.Port)
	if !identifier().MatchString(c.LedgerTable) {
		p.Add("ledgerTable", c.LedgerTable, "use lower-case letters, digits and _, with the schema before a dot if need be")
	}
	p.OneOf("failback.method", c.Failback.Method, MethodRewind, MethodBaseBackup)
	p.Absolute("failback.evidenceDir", c.Failback.EvidenceDir)
	for i, dir := range c.ScratchDirs {
		p.Absolute(fmt.Sprintf("scratchDirs[%d]", i), dir)
	}
	for i, relay := range c.Relays {
		checkURL(p, fmt.Sprintf("relays[%d]", i), relay)
	}
	c.Endpoint.check(p)
	c.checkNodes(p)
}

func (e Endpoint) check(p *strict.Problems) {
	p.OneOf("endpoint.kind", e.Kind, EndpointRelay, EndpointPgBouncer, EndpointExec)
	switch e.Kind {
	case EndpointRelay:
		checkURL(p, "endpoint.control", e.Control)
	case EndpointPgBouncer:
		b := e.PgBouncer
		p.Need("endpoint.pgbouncer.admin.host", b.Admin.Host, "where its admin console listens")
		p.Port("endpoint.pgbouncer.admin.port", b.Admin.Port)
		p.Need("endpoint.pgbouncer.admin.user", b.Admin.User, "one of its admin_users")
		p.Secret("endpoint.pgbouncer.admin.password", b.Admin.Password)
		p.Absolute("endpoint.pgbouncer.ini", b.INI)
		p.Need("endpoint.pgbouncer.database", b.Database, "the name in its [databases] section")
		p.Place("endpoint.pgbouncer.place", b.Place)
	case EndpointExec:
		if len(e.Exec.Argv) == 0 || e.Exec.Argv[0] == "" {
			p.Add("endpoint.exec.argv", "", "missing: give the command that moves the service")
		}
		p.Place("endpoint.exec.place", e.Exec.Place)
	}
}

func checkURL(p *strict.Problems, field, raw string) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		p.Add(field, "", "give the relay's control as http://host:port, without a user")
	}
}

func (c Config) checkNodes(p *strict.Problems) {
	if len(c.Nodes) < 2 {
		p.Add("nodes", "", "list a primary and at least one standby")
	}
	names, addresses, primaries := map[string]bool{}, map[string]bool{}, 0
	for i, n := range c.Nodes {
		at := fmt.Sprintf("nodes[%d]", i)
		if !nodeName().MatchString(n.Name) {
			p.Add(at+".name", n.Name, "use letters, digits, - _ and ., at most 63")
		} else if names[n.Name] {
			p.Add(at+".name", n.Name, "used twice; names are unique")
		}
		names[n.Name] = true
		p.Need(at+".host", n.Host, "where the admin reaches the node")
		p.Port(at+".port", n.Port)
		if a := n.Address().String(); n.Port != 0 && addresses[a] {
			p.Add(at+".port", a, "another node has this address")
		}
		addresses[n.Address().String()] = true
		p.OneOf(at+".role", n.Role, RolePrimary, RoleStandby)
		if n.Role == RolePrimary {
			primaries++
		}
		p.Absolute(at+".dataDir", n.DataDir)
		p.Absolute(at+".binDir", n.BinDir)
		p.Need(at+".osUser", n.OSUser, "the user that owns the data directory, such as postgres")
		p.Absolute(at+".logFile", n.LogFile)
		p.Place(at+".control", n.Control)
		if n.DataDir != "" && strict.Within(c.Failback.EvidenceDir, n.DataDir) {
			p.Add("failback.evidenceDir", c.Failback.EvidenceDir, "choose a directory outside the data directory of node "+n.Name)
		}
	}
	if primaries != 1 && len(c.Nodes) > 0 {
		p.Add("nodes", "", fmt.Sprintf("exactly one node has role primary; here %d have", primaries))
	}
}
