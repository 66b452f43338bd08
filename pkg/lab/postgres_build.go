package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/lab/relay"
)

const (
	serviceRelay = "service"
	scratchBytes = 64 << 20
)

// builder makes a lab, step by step. What differs between a lab of this process
// and a detached one is given as functions.
type builder struct {
	o       PostgresOptions
	rec     Record
	log     *slog.Logger
	account account

	relays  func(context.Context, []relay.Options) ([]relay.Announcement, error)
	started func(mounts []string) error
	bounce  func(*server)
	// detached servers must outlive this process.
	detached bool
}

func newBuilder(o PostgresOptions) (*builder, error) {
	if o.Rows < 0 || o.LinkRate < 0 || o.LinkDelay < 0 {
		return nil, fmt.Errorf("rows %d, link rate %d, link delay %v: none may be negative", o.Rows, o.LinkRate, o.LinkDelay)
	}
	if o.Rows == 0 {
		o.Rows = 10_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	bin, err := FindPostgres()
	if err != nil {
		return nil, err
	}
	a, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := prepareDir(o.Dir, a)
	if err != nil {
		return nil, err
	}
	evidence := filepath.Join(dir, "evidence")
	if o.Evidence != "" {
		evidence = o.Evidence
	}
	if evidence, err = prepareDir(evidence, a); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return &builder{o: o, log: o.Log, account: a, rec: Record{
		Kind: "postgres", Dir: dir, BinDir: bin, OSUser: a.name,
		Database: "app", User: "app", Admin: "postgres", Evidence: evidence, Keep: o.Keep,
		Began: time.Now().UTC(), UID: a.uid,
	}}, nil
}

func (b *builder) build(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"directories and passwords", b.prepare},
		{"relays", b.startRelays},
		{"initialise the primary", b.initPrimary},
		{"start the primary", func(ctx context.Context) error { return b.startNode(ctx, b.rec.Nodes[0]) }},
		{"roles and sample data", b.fill},
		{"copy the standby", b.copyStandby},
		{"start the standby", func(ctx context.Context) error { return b.startNode(ctx, b.rec.Nodes[1]) }},
		{"connect the standby", b.awaitStandby},
		{"pgbouncer", b.startBouncer},
		{"link", b.setLinks},
		{"configuration", func(context.Context) error { return b.configure() }},
	}
	for _, s := range steps {
		began := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		b.log.Debug("lab step done", "step", s.what, "took", time.Since(began))
	}
	return nil
}

func (b *builder) path(parts ...string) string {
	return filepath.Join(append([]string{b.rec.Dir}, parts...)...)
}

func (b *builder) bin(program string) string { return filepath.Join(b.rec.BinDir, program) }

func (b *builder) prepare(context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	var mounts []string
	for i, name := range []string{"a", "b"} {
		n := Node{
			Name: name, Host: "127.0.0.1", Port: ports[i], Role: Primary,
			DataDir: b.path(name, "data"), LogFile: b.path(name, "log", "postgresql.log"),
		}
		if i > 0 {
			n.Role = Standby
		}
		for _, d := range []string{b.path(name), b.path(name, "log")} {
			if err := b.account.mkdir(d); err != nil {
				return err
			}
		}
		if b.o.ScratchDisk {
			n.ScratchDir, err = b.mountScratch(b.path(name, "scratch"))
			if err != nil {
				return err
			}
			mounts = append(mounts, n.ScratchDir)
		}
		b.rec.Nodes = append(b.rec.Nodes, n)
	}
	if b.started != nil {
		if err := b.started(mounts); err != nil {
			return err
		}
	}
	return b.writeSecrets()
}

func (b *builder) writeSecrets() error {
	dir := b.path("secrets")
	if err := b.account.mkdir(dir); err != nil {
		return err
	}
	s := Secrets{
		App: filepath.Join(dir, "app"), Admin: filepath.Join(dir, "admin"),
		Replicator: filepath.Join(dir, "replicator"), PassFile: filepath.Join(dir, "pgpass"),
	}
	for _, file := range []string{s.App, s.Admin, s.Replicator} {
		password, err := newPassword()
		if err != nil {
			return err
		}
		if err := b.account.write(file, password); err != nil {
			return err
		}
		if file == s.Replicator {
			if err := b.account.write(s.PassFile, "*:*:*:replicator:"+password+"\n"); err != nil {
				return err
			}
		}
	}
	b.rec.Secrets = s
	return nil
}

// mountScratch returns "" where mounting is not allowed.
func (b *builder) mountScratch(dir string) (string, error) {
	if err := b.account.mkdir(dir); err != nil {
		return "", err
	}
	options := fmt.Sprintf("size=%d,mode=0700,uid=%d,gid=%d", scratchBytes, b.account.uid, b.account.gid)
	switch err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		b.log.Warn("the lab has no scratch disk: mounting one is not allowed here", "directory", dir)
		return "", os.Remove(dir)
	case err != nil:
		return "", fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return dir, nil
}

func unmount(dir string) error {
	if dir == "" {
		return nil
	}
	// Not mounted, or gone: stopping twice is fine.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

func (b *builder) startRelays(ctx context.Context) error {
	address := func(n Node) string { return fmt.Sprintf("%s:%d", n.Host, n.Port) }
	all := []relay.Options{{Name: serviceRelay, Upstream: address(b.rec.Nodes[0])}}
	for _, n := range b.rec.Nodes {
		all = append(all, relay.Options{Name: n.Name, Upstream: address(n)})
	}
	got, err := b.relays(ctx, all)
	if err != nil {
		return err
	}
	for i, a := range got {
		port, err := portOf(a.Listen)
		if err != nil {
			return fmt.Errorf("relay %s announced %q: %w", a.Name, a.Listen, err)
		}
		if i == 0 {
			b.rec.ServicePort, b.rec.ServiceControl = port, a.Control
			continue
		}
		b.rec.Nodes[i-1].ReplicationPort, b.rec.Nodes[i-1].ReplicationControl = port, a.Control
	}
	return nil
}

func (b *builder) initPrimary(ctx context.Context) error {
	a := b.rec.Nodes[0]
	if err := b.account.run(ctx, b.rec.Dir, b.bin("initdb"),
		"-D", a.DataDir, "-U", b.rec.Admin, "--pwfile", b.rec.Secrets.Admin, "--auth=scram-sha-256",
		"--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(a.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString(sharedConf())
	if err := errors.Join(err, conf.Close()); err != nil {
		return err
	}
	if err := b.account.write(filepath.Join(a.DataDir, "pg_hba.conf"), accessRules()); err != nil {
		return err
	}
	return b.writeNodeConfs(false)
}

func (b *builder) writeNodeConfs(synchronous bool) error {
	for i, n := range b.rec.Nodes {
		from := b.rec.Nodes[1-i]
		standby := ""
		if synchronous && n.Role == Primary {
			standby = from.Name
		}
		if err := b.account.write(b.path(n.Name, "node.conf"), nodeConf(n, from, b.rec.Secrets.PassFile, standby)); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) startNode(ctx context.Context, n Node) error {
	err := b.account.run(ctx, b.rec.Dir, b.bin("pg_ctl"), "-D", n.DataDir, "-w", "-t", "60", "-s",
		"-l", b.path(n.Name, "log", "start.log"), "start")
	if err != nil {
		return errors.Join(err, logTail(n.LogFile), logTail(b.path(n.Name, "log", "start.log")))
	}
	return nil
}

func logTail(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return fmt.Errorf("%s ends with: %s", file, lastLines(string(raw), 8))
}

func (b *builder) copyStandby(ctx context.Context) error {
	a, s := b.rec.Nodes[0], b.rec.Nodes[1]
	args := []string{"-D", s.DataDir, "-X", "stream", "-c", "fast", "--no-sync",
		"-d", fmt.Sprintf("host=%s port=%d user=replicator passfile=%s", a.Host, a.ReplicationPort, b.rec.Secrets.PassFile)}
	if a.ScratchDir != "" {
		args = append(args, "-T", a.ScratchDir+"/space="+s.ScratchDir+"/space")
	}
	if err := b.account.run(ctx, b.rec.Dir, b.bin("pg_basebackup"), args...); err != nil {
		return errors.Join(err, logTail(a.LogFile))
	}
	return b.account.write(filepath.Join(s.DataDir, "standby.signal"), "")
}

// awaitStandby waits until b streams, then makes it synchronous if asked for.
func (b *builder) awaitStandby(ctx context.Context) error {
	if err := b.await(ctx, "async"); err != nil {
		return err
	}
	if !b.o.Synchronous {
		return nil
	}
	// Only now: earlier, every commit would have waited for a standby to come.
	if err := b.writeNodeConfs(true); err != nil {
		return err
	}
	if err := b.account.run(ctx, b.rec.Dir, b.bin("pg_ctl"), "-D", b.rec.Nodes[0].DataDir, "-s", "reload"); err != nil {
		return err
	}
	return b.await(ctx, "sync")
}

func (b *builder) await(ctx context.Context, want string) error {
	c, err := b.rec.connect(ctx, b.rec.Nodes[0].Port, b.rec.Admin, b.rec.Secrets.Admin, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	err = poll(ctx, "wait for the standby to stream", 20*time.Millisecond, func() error {
		var state, kind string
		err := c.QueryRow(ctx, `SELECT coalesce(max(state), 'absent'), coalesce(max(sync_state), 'absent')
			FROM pg_stat_replication WHERE application_name = $1`, b.rec.Nodes[1].Name).Scan(&state, &kind)
		if err == nil && (state != "streaming" || kind != want) {
			err = fmt.Errorf("its state is %s, %s instead of streaming, %s", state, kind, want)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, logTail(b.rec.Nodes[1].LogFile))
	}
	return nil
}

// setLinks slows the links last, so that the copying of the standby is fast.
func (b *builder) setLinks(ctx context.Context) error {
	if b.o.LinkDelay == 0 && b.o.LinkRate == 0 {
		return nil
	}
	l := relay.Link{
		DelayMS: float64(b.o.LinkDelay) / float64(time.Millisecond), BytesPerSecond: b.o.LinkRate, DropInFlight: true,
	}
	for _, n := range b.rec.Nodes {
		if _, err := (relay.Client{URL: n.ReplicationControl}).SetLink(ctx, l); err != nil {
			return err
		}
	}
	return nil
}
