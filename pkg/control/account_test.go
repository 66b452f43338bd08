package control

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestScriptsOfThisMachineSeeNoSecrets: firedrill's environment holds tokens and
// passwords, and the script's user may be another, or start a server that keeps it.
func TestScriptsOfThisMachineSeeNoSecrets(t *testing.T) {
	t.Setenv("FIREDRILL_HTTP_TOKEN", "marker-of-the-test")
	t.Setenv("HOME", "/marker-of-the-test")
	h := hosts(t)["local"]
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	own, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	const show = `env; printf '%s|%s|%s|%s\n' "$HOME" "$USER" "$LOGNAME" "$GIVEN"`
	run := func(c Command) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return h.Run(ctx, c) }
	}
	given := map[string]string{"GIVEN": "given"}
	for name, c := range map[string]struct {
		run  func(context.Context) ([]byte, error)
		want *user.User
	}{
		"as itself": {run(Command{Script: show, Env: given}), own},
		"as nobody": {run(Command{Script: show, Env: given, User: "nobody"}), nobody},
		"by setpriv": {func(ctx context.Context) ([]byte, error) {
			// What prepare makes where the groups are not in files.
			cmd := exec.CommandContext(ctx, "sh", "-s")
			cmd.Env, cmd.Dir = localEnv(account{}), "/"
			cmd.Stdin = strings.NewReader(assemble(Command{Script: show, Env: given, User: "nobody"}))
			return cmd.Output()
		}, nobody},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := c.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(out), "marker-of-the-test") {
				t.Errorf("firedrill's environment is seen:\n%s", out)
			}
			if want := c.want.HomeDir + "|" + c.want.Username + "|" + c.want.Username + "|given\n"; !strings.HasSuffix(string(out), want) {
				t.Errorf("not the user's environment, want %q:\n%s", want, out)
			}
		})
	}
}

// TestTheWayToAMachineKeepsTheEnvironment: ssh needs its agent, kubectl its file.
func TestTheWayToAMachineKeepsTheEnvironment(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/the/agent")
	got, err := hosts(t)["argv"].Output(t.Context(), Command{Script: `printf %s "$SSH_AUTH_SOCK"`})
	if err != nil || got != "/the/agent" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestBecome compares with what the system says of each user that there is.
func TestBecome(t *testing.T) {
	// Others than root become nobody, and where groups come from elsewhere setpriv does it.
	possible := os.Geteuid() == 0 && groupsAreInFiles(nameSwitch)
	for _, name := range []string{"nobody", "postgres", "www-data"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "id", "-G", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		as, ok := become(name)
		if ok != possible || ok && as.credential == nil {
			t.Fatalf("%s: %+v, %v", name, as, ok)
		}
		if !ok {
			continue
		}
		var groups []string
		for _, g := range as.credential.Groups {
			groups = append(groups, strconv.FormatUint(uint64(g), 10))
		}
		want := strings.Fields(string(out))
		slices.Sort(want)
		slices.Sort(groups)
		uid, gid := strconv.FormatUint(uint64(as.credential.Uid), 10), strconv.FormatUint(uint64(as.credential.Gid), 10)
		if uid != u.Uid || gid != u.Gid || !slices.Equal(groups, want) {
			t.Errorf("%s: uid %s, gid %s, groups %v; the system says %s, %s, %v", name, uid, gid, groups, u.Uid, u.Gid, want)
		}
	}
	if as, ok := become("no-such-user-here"); ok {
		t.Errorf("a user that is not: %+v", as)
	}
}

func TestGroupsAreInFiles(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "passwd: files sss\n": true,
		"group: files\n": true, "group:\tfiles systemd # sss\n": true, " group : files": true,
		"group: files sss\n": false, "group: files [NOTFOUND=return] ldap\n": false, "group: compat\n": false,
		"group: files\ninitgroups: files sss\n": false,
	} {
		path := filepath.Join(t.TempDir(), "nsswitch.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := groupsAreInFiles(path); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if !groupsAreInFiles(filepath.Join(t.TempDir(), "none")) {
		t.Error("a machine without the file has its groups elsewhere")
	}
}
