package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// PgBouncer is a connection pooler in front of the primary.
type PgBouncer struct {
	Host string `json:"host"`
	Port int    `json:"port"`
	// ConfigFile is its ini file; [databases] has the one line that decides
	// where clients go.
	ConfigFile string `json:"configFile"`
	LogFile    string `json:"logFile"`
	// The console takes the lab's superuser and password, database "pgbouncer".
}

// findBouncer looks where Debian puts it, which is not in everybody's PATH.
func findBouncer() (string, error) {
	for _, p := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"} {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("pgbouncer %w: run deploy/lab/install.sh as root, or `apt-get install pgbouncer`", ErrNotInstalled)
}

func (b *builder) startBouncer(ctx context.Context) error {
	if !b.o.PgBouncer {
		return nil
	}
	program, err := findBouncer()
	if err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	dir := b.path("pgbouncer")
	if err := b.account.mkdir(dir); err != nil {
		return err
	}
	p := &PgBouncer{Host: "127.0.0.1", Port: ports[0], ConfigFile: filepath.Join(dir, "pgbouncer.ini"), LogFile: filepath.Join(dir, "pgbouncer.log")}
	users := ""
	for _, u := range [][2]string{{b.rec.User, b.rec.Secrets.App}, {b.rec.Admin, b.rec.Secrets.Admin}} {
		password, err := os.ReadFile(u[1])
		if err != nil {
			return err
		}
		users += fmt.Sprintf("%q %q\n", u[0], password)
	}
	if err := b.account.write(filepath.Join(dir, "users.txt"), users); err != nil {
		return err
	}
	if err := b.account.write(p.ConfigFile, bouncerConf(b.rec, *p, dir)); err != nil {
		return err
	}
	s, err := b.account.start(program, dir, filepath.Join(dir, "start.log"), b.detached, p.ConfigFile)
	if err != nil {
		return err
	}
	b.rec.PgBouncer = p
	b.bounce(s)
	address := net.JoinHostPort(p.Host, fmt.Sprint(p.Port))
	err = poll(ctx, "wait for pgbouncer", 20*time.Millisecond, func() error {
		if s.over() {
			return &giveUp{errors.New("it ended at once")}
		}
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		return errors.Join(err, logTail(p.LogFile), logTail(filepath.Join(dir, "start.log")))
	}
	return nil
}

func bouncerConf(r Record, p PgBouncer, dir string) string {
	a := r.Nodes[0]
	return strings.Join([]string{
		"[databases]",
		fmt.Sprintf("%s = host=%s port=%d dbname=%s", r.Database, a.Host, a.Port, r.Database),
		"[pgbouncer]",
		"listen_addr = " + p.Host,
		fmt.Sprintf("listen_port = %d", p.Port),
		"unix_socket_dir =",
		"auth_type = scram-sha-256",
		"auth_file = " + filepath.Join(dir, "users.txt"),
		"admin_users = " + r.Admin,
		"logfile = " + p.LogFile,
		"pidfile = " + filepath.Join(dir, "pgbouncer.pid"),
		"pool_mode = session",
		"server_connect_timeout = 2",
		"server_login_retry = 1",
		"server_reset_query = DISCARD ALL",
		"max_client_conn = 200",
		"default_pool_size = 40",
		"",
	}, "\n")
}

// server is a long-running child that is waited for.
type server struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program in the background, its output in a file. Unless it is
// detached it gets a parent-death signal, besides the lab's watchdog.
func (a account) start(program, dir, output string, detached bool, args ...string) (*server, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = a.attr()
	if !detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.home, "LC_ALL=C", "TZ=UTC"}
	cmd.Stdout, cmd.Stderr = out, out
	s := &server{cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		defer close(s.done)
		// How it ended shows in its log.
		_ = cmd.Wait()
	}()
	return s, nil
}

func (s *server) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of a server that was told to end.
func (s *server) wait() { <-s.done }

// kill ends the server and waits for it.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}
