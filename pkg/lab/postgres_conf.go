package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sharedConf is in postgresql.conf, which base backups and pg_rewind copy from
// one node to the other; so it is the same on both. What differs stands in
// ../node.conf, outside of the data directory and relative to it.
func sharedConf() string {
	return `
# firedrill lab
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 32MB
huge_pages = off
dynamic_shared_memory_type = mmap
jit = off
wal_level = replica
wal_log_hints = on
hot_standby = on
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = 512MB
max_wal_size = 1GB
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
track_commit_timestamp = on
password_encryption = 'scram-sha-256'
log_timezone = 'UTC'
timezone = 'UTC'
logging_collector = on
log_directory = '../log'
log_filename = 'postgresql.log'
log_truncate_on_rotation = off
log_rotation_age = 0
log_rotation_size = 0
log_file_mode = 0600
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = on
log_replication_commands = on
include '../node.conf'
`
}

// nodeConf is what makes a node this one: its port, and whom to follow when it
// is a standby. A primary ignores primary_conninfo.
func nodeConf(n, from Node, passFile, synchronousStandby string) string {
	lines := []string{
		fmt.Sprintf("port = %d", n.Port),
		"cluster_name = " + confQuote(n.Name),
		"primary_conninfo = " + confQuote(fmt.Sprintf("host=%s port=%d user=replicator passfile=%s application_name=%s connect_timeout=2",
			from.Host, from.ReplicationPort, connQuote(passFile), n.Name)),
		"synchronous_standby_names = " + confQuote(synchronousStandby),
	}
	return strings.Join(lines, "\n") + "\n"
}

// confQuote quotes a value of a PostgreSQL configuration file.
func confQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// connQuote quotes a value of a libpq connection string.
func connQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// accessRules let in, from this machine and with a password only, anyone to the
// databases, and the replicator and the superuser to replication.
func accessRules() string {
	return `# TYPE  DATABASE     USER                 ADDRESS        METHOD
host    all          all                  127.0.0.1/32   scram-sha-256
host    replication  replicator,postgres  127.0.0.1/32   scram-sha-256
`
}

// fill makes the roles, the application's database and pgbench-like tables.
func (b *builder) fill(ctx context.Context) error {
	a := b.rec.Nodes[0]
	admin, err := b.rec.connect(ctx, a.Port, b.rec.Admin, b.rec.Secrets.Admin, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	var statements []string
	for _, r := range []struct{ make, file string }{
		{"ALTER ROLE " + b.rec.Admin, b.rec.Secrets.Admin}, // which initdb has made
		{"CREATE ROLE app LOGIN", b.rec.Secrets.App},
		{"CREATE ROLE replicator LOGIN REPLICATION", b.rec.Secrets.Replicator},
	} {
		password, err := os.ReadFile(r.file)
		if err != nil {
			return err
		}
		stored, err := verifier(string(password))
		if err != nil {
			return err
		}
		statements = append(statements, fmt.Sprintf("%s PASSWORD '%s'", r.make, stored))
	}
	statements = append(statements, "CREATE DATABASE app OWNER app")
	if a.ScratchDir != "" {
		if err := b.account.mkdir(a.ScratchDir + "/space"); err != nil {
			return err
		}
		if err := b.account.mkdir(b.rec.Nodes[1].ScratchDir + "/space"); err != nil {
			return err
		}
		statements = append(statements, "CREATE TABLESPACE scratch OWNER app LOCATION "+confQuote(a.ScratchDir+"/space"))
	}
	if err := execAll(ctx, admin, statements...); err != nil {
		return err
	}
	inApp, err := b.rec.connect(ctx, a.Port, b.rec.Admin, b.rec.Secrets.Admin, b.rec.Database)
	if err != nil {
		return err
	}
	defer inApp.Close(ctx)
	if err := execAll(ctx, inApp, "CREATE EXTENSION amcheck"); err != nil {
		return fmt.Errorf("%w; PostgreSQL's contrib modules are needed", err)
	}
	app, err := b.rec.connect(ctx, a.Port, b.rec.User, b.rec.Secrets.App, b.rec.Database)
	if err != nil {
		return err
	}
	defer app.Close(ctx)
	return execAll(ctx, app, sampleTables(b.o.Rows)...)
}

func execAll(ctx context.Context, c *pgx.Conn, statements ...string) error {
	for i, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			// The statement is not shown: it may hold a password.
			return fmt.Errorf("statement %d of %d: %w", i+1, len(statements), err)
		}
	}
	return nil
}

// sampleTables are what an application might have, after pgbench: keys, a
// sequence, a foreign key, indexes.
func sampleTables(rows int) []string {
	branches := max(1, rows/10_000)
	return []string{
		`CREATE TABLE branches (id integer PRIMARY KEY, balance bigint NOT NULL, note text)`,
		`CREATE TABLE accounts (id bigint PRIMARY KEY, branch integer NOT NULL REFERENCES branches, balance bigint NOT NULL, owner text NOT NULL)`,
		`CREATE INDEX accounts_branch ON accounts (branch)`,
		`CREATE TABLE history (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account bigint NOT NULL, delta bigint NOT NULL, at timestamptz NOT NULL)`,
		fmt.Sprintf(`INSERT INTO branches SELECT i, 0, 'branch ' || i FROM generate_series(1, %d) i`, branches),
		fmt.Sprintf(`INSERT INTO accounts SELECT i, 1 + i %% %d, (i * 7919) %% 100000, 'owner ' || md5(i::text) FROM generate_series(1, %d) i`, branches, rows),
		fmt.Sprintf(`INSERT INTO history (account, delta, at) SELECT 1 + (i * 31) %% %d, (i * 13) %% 1000 - 500, timestamptz '2026-01-01' + i * interval '1 second' FROM generate_series(1, %d) i`, rows, max(1, rows/10)),
		`ANALYZE`,
	}
}

// configure writes the driver's configuration: where things are, and in which
// files the passwords lie. With PgBouncer, that is the service's endpoint.
func (b *builder) configure() error {
	type object = map[string]any
	file := func(path string) object { return object{"file": path} }
	var nodes []object
	scratch, relays := []string{b.path("scratch")}, []string{}
	for _, n := range b.rec.Nodes {
		nodes = append(nodes, object{
			"name": n.Name, "host": n.Host, "port": n.Port, "role": n.Role,
			"replicationHost": n.Host, "replicationPort": n.ReplicationPort,
			"dataDir": n.DataDir, "binDir": b.rec.BinDir, "osUser": b.rec.OSUser, "logFile": n.LogFile,
			"control": object{"kind": "local"},
		})
		if n.ScratchDir != "" {
			scratch = append(scratch, n.ScratchDir)
		}
		relays = append(relays, n.ReplicationControl)
	}
	service := object{"host": "127.0.0.1", "port": b.rec.ServicePort}
	endpoint := object{"kind": "relay", "control": b.rec.ServiceControl}
	admin := object{"user": b.rec.Admin, "password": file(b.rec.Secrets.Admin)}
	if p := b.rec.PgBouncer; p != nil {
		service = object{"host": p.Host, "port": p.Port}
		endpoint = object{"kind": "pgbouncer", "pgbouncer": object{
			"admin": object{"host": p.Host, "port": p.Port, "user": admin["user"], "password": admin["password"]},
			"ini":   p.ConfigFile, "database": b.rec.Database, "place": object{"kind": "local"},
		}}
	}
	raw, err := json.MarshalIndent(object{
		"database":    b.rec.Database,
		"user":        b.rec.User,
		"password":    file(b.rec.Secrets.App),
		"admin":       admin,
		"replication": object{"user": "replicator", "password": file(b.rec.Secrets.Replicator)},
		"service":     service,
		"endpoint":    endpoint,
		"nodes":       nodes,
		"scratchDirs": scratch,
		"relays":      relays,
		"failback":    object{"method": "rewind", "evidenceDir": b.rec.Evidence},
	}, "", "  ")
	if err != nil {
		return err
	}
	b.rec.Config = raw
	return b.account.mkdir(b.path("scratch"))
}
