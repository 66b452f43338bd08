package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is the OS user that servers run as. PostgreSQL refuses to be root.
type account struct {
	name     string
	home     string
	uid, gid int
	// other is true if it is not the user of this process.
	other bool
}

// serverAccount is postgres when this process is root, and else its own user.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("the user of this process: %w", err)
		}
		return account{name: u.Username, home: u.HomeDir, uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL refuses to run as root, and there is no user postgres: %w; install Debian's postgresql package, or run as another user", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("user postgres: uid %q: %w", u.Uid, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("user postgres: gid %q: %w", u.Gid, err)
	}
	return account{name: "postgres", home: u.HomeDir, uid: uid, gid: gid, other: true}, nil
}

func (a account) attr() *syscall.SysProcAttr {
	// A session of its own: the terminal's Ctrl-C is for the drill, not the servers.
	attr := &syscall.SysProcAttr{Setsid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// run runs a program as the account, and reports its output when it fails.
func (a account) run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = a.attr()
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.home, "LC_ALL=C", "TZ=UTC"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, lastLines(out.String(), 12))
	}
	return nil
}

// mkdir makes a directory of the account's, mode 0700.
func (a account) mkdir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return a.own(path)
}

func (a account) write(path string, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return a.own(path)
}

func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// letIn makes every directory above dir enterable for the account. It changes
// only directories of this user below the system's temporary directory, where
// test frameworks make private ones; for others it says what to do.
func (a account) letIn(dir string) error {
	if !a.other {
		return nil
	}
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		if err != nil {
			return err
		}
		sys, _ := st.Sys().(*syscall.Stat_t)
		switch {
		case st.Mode().Perm()&0o001 != 0, sys != nil && int(sys.Uid) == a.uid && st.Mode().Perm()&0o100 != 0:
		case sys != nil && int(sys.Uid) == os.Geteuid() && strings.HasPrefix(at, temp+"/"):
			if err := os.Chmod(at, st.Mode().Perm()|0o011); err != nil {
				return fmt.Errorf("let user %s into %s: %w", a.name, at, err)
			}
		default:
			return fmt.Errorf("directory %s cannot be entered by user %s, who runs PostgreSQL: choose a lab directory elsewhere, such as below %s, or `chmod o+x %s`", at, a.name, temp, at)
		}
		if at == "/" {
			return nil
		}
	}
}

// freePorts returns n ports of 127.0.0.1 that nothing listens on, below the
// range that the kernel takes for outgoing connections: a server that is down
// for a while must find its port free when it comes back, and a client that
// dials it meanwhile must not connect to itself.
func freePorts(n int) ([]int, error) {
	low, high := 10000, ephemeralFrom()
	if high-low < 1000 {
		low, high = 61000, 65535
	}
	var out []int
	for try := 0; len(out) < n; try++ {
		if try > 200 {
			return nil, fmt.Errorf("no %d free ports between %d and %d after %d tries", n, low, high, try)
		}
		k, err := rand.Int(rand.Reader, big.NewInt(int64(high-low)))
		if err != nil {
			return nil, fmt.Errorf("random port: %w", err)
		}
		port := low + int(k.Int64())
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		// Kept open until all are found, so that none is chosen twice.
		defer l.Close()
		out = append(out, port)
	}
	return out, nil
}

func ephemeralFrom() int {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768
	}
	var from int
	if _, err := fmt.Fscan(bytes.NewReader(raw), &from); err != nil {
		return 32768
	}
	return from
}

// newPassword is 24 random bytes in characters that need no quoting anywhere.
func newPassword() (string, error) {
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("random password: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// poll waits for a condition, which is asked every interval, until ctx ends.
// The error then wraps the last reason given.
func poll(ctx context.Context, what string, every time.Duration, condition func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		var give *giveUp
		if errors.As(err, &give) {
			return fmt.Errorf("%s: %w", what, give.err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), err)
		}
	}
}

// giveUp ends a poll: waiting longer will not help.
type giveUp struct{ err error }

func (g *giveUp) Error() string { return g.err.Error() }

func lastLines(s string, n int) string {
	var lines []string
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		if l := strings.TrimSpace(sc.Text()); l != "" {
			lines = append(lines, l)
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
