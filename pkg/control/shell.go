package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
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
		if as, ok := credential(c.User); ok {
			return direct(ctx, c, as)
		}
	}
	argv := append(slices.Clone(h.prefix), "sh", "-s")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(assemble(c))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if h.Local() {
		cmd.Dir = "/"
	}
	return cmd
}

// direct starts this machine's shell with the script as an argument: each process
// saved is a millisecond of a drill's plan.
func direct(ctx context.Context, c Command, as *syscall.Credential) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", c.Script, "sh"}, c.Args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		cmd.Env = append(cmd.Env, k+"="+c.Env[k])
	}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	return cmd
}

// credential is what a process of this machine takes on to be a user; nil when it
// is that user already. It is not ok when this process may not become the user,
// or there is no such user.
func credential(name string) (as *syscall.Credential, ok bool) {
	if name == "" {
		return nil, true
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, false
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	ids, err3 := u.GroupIds()
	switch {
	case err1 != nil || err2 != nil || err3 != nil:
		return nil, false
	case int(uid) == os.Getuid():
		return nil, true
	case os.Geteuid() != 0:
		return nil, false
	}
	as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, id := range ids {
		g, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, false
		}
		as.Groups = append(as.Groups, uint32(g))
	}
	return as, true
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
// setpriv needs no session as su does.
func asUser(name, run string) string {
	u := Quote(name)
	// On one line: a here-document begins at the next line's start.
	return fmt.Sprintf(`if [ "$(id -un)" = %[1]s ]; then %[2]s; `+
		`elif command -v setpriv >/dev/null 2>&1; then setpriv --reuid=%[1]s --regid="$(id -g %[1]s)" --init-groups -- %[2]s; `+
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
