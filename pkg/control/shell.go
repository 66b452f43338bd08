package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// prepare makes the process that runs a command. Every way to a machine runs the
// same script with the same arguments, environment, input and directory.
func (h *Host) prepare(ctx context.Context, c Command) *exec.Cmd {
	if h.Local() {
		if as, ok := become(c.User); ok {
			return direct(ctx, c, as)
		}
	}
	argv := append(slices.Clone(h.prefix), "sh", "-s")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(assemble(c))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if h.Local() {
		cmd.Dir = "/"
		cmd.Env = localEnv(account{}) // asUser changes what is the user's
	}
	// A way to another machine keeps firedrill's whole environment: ssh needs its
	// agent there, and kubectl its configuration. It does not reach the machine.
	return cmd
}

// direct starts this machine's shell with the script as an argument: each process
// saved is a millisecond of a drill's plan.
func direct(ctx context.Context, c Command, as account) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", c.Script, "sh"}, c.Args...)...)
	cmd.Dir = "/"
	cmd.Env = localEnv(as)
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		cmd.Env = append(cmd.Env, k+"="+c.Env[k])
	}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as.credential}
	return cmd
}

// localEnv is the environment of a script on this machine. Of firedrill's own only
// what is named here is handed on: the rest holds tokens and passwords, which the
// script's user must not see, and which a server that the script starts would keep.
func localEnv(as account) []string {
	var env []string
	for _, kv := range os.Environ() {
		switch k, _, _ := strings.Cut(kv, "="); {
		case k == "PATH", k == "LANG", k == "TZ", strings.HasPrefix(k, "LC_"):
			env = append(env, kv)
		}
	}
	if as.name == "" {
		as = ownAccount()
	}
	return append(env, "LC_ALL=C", "HOME="+as.home, "USER="+as.name, "LOGNAME="+as.name)
}

// ownAccount is this process's user. One that has no entry, as in a container with
// a number for a user, is what the environment says.
func ownAccount() account {
	u, err := user.Current()
	if err != nil {
		return account{name: os.Getenv("USER"), home: os.Getenv("HOME")}
	}
	return account{name: u.Username, home: u.HomeDir}
}

// account is a user that a process of this machine runs as.
type account struct {
	name, home string
	// credential is what the process takes on; nil when it is that user already.
	credential *syscall.Credential
}

// become tells how a process of this machine becomes a user. It is not ok when this
// process cannot tell, or may not: asUser asks the system's own tools then.
func become(name string) (as account, ok bool) {
	if name == "" {
		return ownAccount(), true
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, false
	}
	as = account{name: name, home: u.HomeDir}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, false
	}
	if int(uid) == os.Geteuid() && os.Getuid() == os.Geteuid() {
		return as, true
	}
	if os.Geteuid() != 0 || !groupsAreInFiles(nameSwitch) {
		return account{}, false
	}
	as.credential, err = credential(u, uint32(uid))
	return as, err == nil
}

// credential is a user with the groups that /etc/group names.
func credential(u *user.User, uid uint32) (*syscall.Credential, error) {
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	c := &syscall.Credential{Uid: uid, Gid: uint32(gid)}
	for _, id := range ids {
		g, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, err
		}
		c.Groups = append(c.Groups, uint32(g))
	}
	return c, nil
}

// nameSwitch says where this machine looks users and groups up.
const nameSwitch = "/etc/nsswitch.conf"

// groupsAreInFiles reports whether /etc/group has all groups. firedrill is built
// without cgo, so that is all it reads; a group from LDAP or SSSD would be lost, and
// with it what the user may do. compat may bring in NIS, so it does not count. A
// machine that does not say where it looks reads the files.
func groupsAreInFiles(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		database, from, _ := strings.Cut(line, ":")
		// initgroups, where there is one, goes before group.
		if d := strings.TrimSpace(database); d != "group" && d != "initgroups" {
			continue
		}
		for _, source := range strings.Fields(from) {
			if source != "files" && source != "systemd" {
				return false
			}
		}
	}
	return true
}

// assemble builds the text that sh -s reads. The command travels on standard
// input, not as an argument: ssh joins its arguments with spaces and lets the
// far shell split them again, env and kubectl exec do not, and only a script on
// standard input means the same through all of them. It also keeps secrets out
// of process lists.
func assemble(c Command) string {
	var b strings.Builder
	b.WriteString("export LC_ALL=C\n")
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		fmt.Fprintf(&b, "export %s=%s\n", k, Quote(c.Env[k]))
	}
	inner := "cd /\n" + c.Script + "\n"
	run := "sh -c " + Quote(inner) + " sh"
	for _, a := range c.Args {
		run += " " + Quote(a)
	}
	if c.User != "" {
		run = asUser(c.User, run)
	}
	// The braces make the shell read all of its script before it runs any.
	if c.Stdin == nil {
		fmt.Fprintf(&b, "{ %s; exit $?; } </dev/null\n", run)
		return b.String()
	}
	fmt.Fprintf(&b, "{ base64 -d <<'FIREDRILL_STDIN' | { %s; exit $?; }\n%s\nFIREDRILL_STDIN\nexit $?; }\n",
		run, wrap64(c.Stdin))
	return b.String()
}

// asUser runs a command line as another user, directly when it already is.
// setpriv needs no session as su does; it leaves the environment as it is, while su
// makes HOME, USER and LOGNAME the user's.
func asUser(name, run string) string {
	u := Quote(name)
	// On one line: a here-document begins at the next line's start.
	return fmt.Sprintf(`if [ "$(id -un)" = %[1]s ]; then %[2]s; `+
		`elif command -v setpriv >/dev/null 2>&1; then `+
		`HOME=$(getent passwd %[1]s | cut -d: -f6) USER=%[1]s LOGNAME=%[1]s; export HOME="${HOME:-/}" USER LOGNAME; `+
		`setpriv --reuid=%[1]s --regid="$(id -g %[1]s)" --init-groups -- %[2]s; `+
		`else su -s /bin/sh %[1]s -c %[3]s; fi`, u, run, Quote(run))
}

// Quote makes s one word of a POSIX shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func wrap64(b []byte) string {
	s := base64.StdEncoding.EncodeToString(b)
	var out strings.Builder
	for len(s) > 76 {
		out.WriteString(s[:76] + "\n")
		s = s[76:]
	}
	out.WriteString(s)
	return out.String()
}
