package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// policy is an S3 policy, as far as the README's is one.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

// leastPolicy is the one in the README, for a bucket.
func leastPolicy(t *testing.T, bucket string) policy {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "README.md"))
	must(t, err)
	_, text, ok := strings.Cut(string(raw), "```json\n")
	text, _, closed := strings.Cut(text, "```")
	if !ok || !closed {
		t.Fatal("the README holds no policy")
	}
	var p policy
	must(t, json.Unmarshal([]byte(strings.ReplaceAll(text, "PREFIX/", "p/")), &p))
	for i := range p.Statement {
		for j, r := range p.Statement[i].Resource {
			p.Statement[i].Resource[j] = strings.ReplaceAll(r, "BUCKET", bucket)
		}
	}
	return p
}

// actions are all that it allows.
func (p policy) actions() (all []string) {
	for _, s := range p.Statement {
		all = append(all, s.Action...)
	}
	return all
}

// only leaves of it the actions that keep says.
func (p policy) only(keep func(string) bool) policy {
	out := policy{Version: p.Version}
	for _, s := range p.Statement {
		s.Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return !keep(a) })
		if len(s.Action) > 0 {
			out.Statement = append(out.Statement, s)
		}
	}
	return out
}

// account is a user of the tests' server with a policy of its own.
type account struct {
	t    *testing.T
	name string
}

const userSecret = "secret-of-the-user"

func newAccount(t *testing.T, name string) account {
	t.Helper()
	u := account{t, name}
	u.admin("user", "add", "lab", name, userSecret)
	return u
}

// admin has mc change the server.
func (u account) admin(args ...string) {
	u.t.Helper()
	m := server.Start(u.t)
	c := exec.CommandContext(u.t.Context(), enginetest.Binary(u.t, "mc"), append([]string{"--config-dir", u.t.TempDir(), "admin"}, args...)...)
	c.Env = append(os.Environ(), "MC_HOST_lab="+strings.Replace(m.Endpoint, "://", "://"+url.PathEscape(m.AccessKey)+":"+url.PathEscape(m.SecretKey)+"@", 1))
	if out, err := c.CombinedOutput(); err != nil {
		u.t.Fatalf("mc admin %v: %v: %s", args[:2], err, out)
	}
}

// allow gives the user a policy in place of any other.
func (u account) allow(name string, p policy) {
	u.t.Helper()
	raw, err := json.Marshal(p)
	must(u.t, err)
	file := filepath.Join(u.t.TempDir(), "policy.json")
	must(u.t, os.WriteFile(file, raw, 0o600))
	u.admin("policy", "create", "lab", name, file)
	u.admin("policy", "attach", "lab", name, "--user", u.name)
}

// inParts ends with an error once it has put some parts of a file.
type inParts struct{ engine.Local }

func (p inParts) Do(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	done, err := p.Local.Do(ctx, it)
	if it.Parts != nil {
		err = errors.Join(err, errKilled)
	}
	return done, err
}

// guest is a mirror of which the bucket is reached as a user with few rights.
type guest struct {
	*world
	account
	back *world
}

// newGuest makes the user, and the bucket for it.
func newGuest(t *testing.T, name string) *guest {
	t.Helper()
	g := &guest{world: between(t, drill.MirrorMirror, true), account: newAccount(t, name), back: &world{TB: t, env: newEnv(t)}}
	g.mirror.To += "/p"
	g.mirror.KeepDeleted = event.Duration(time.Hour)
	t.Setenv("POLICY_TEST_ID", name)
	t.Setenv("POLICY_TEST_SECRET", userSecret)
	s := &g.env.Stores[0]
	s.AccessKey, s.SecretKey = &drill.SecretSource{Env: "POLICY_TEST_ID"}, &drill.SecretSource{Env: "POLICY_TEST_SECRET"}
	g.back.env.Stores = g.env.Stores
	g.back.to = filepath.Join(t.TempDir(), "restored")
	g.back.mirror = drill.Mirror{Name: "back", From: g.mirror.To, To: "dir:" + g.back.to}
	for i := range 20 {
		g.write(fmt.Sprintf("d/%02d", i), "content")
	}
	g.write("large", strings.Repeat("0123456789abcdef", (64<<20)/16+1)) // more than a place writes whole
	return g
}

// run makes a run and gives what went wrong.
func (g *guest) run(w *world, pool func(*engine.Worker) engine.Pool) error {
	j, err := w.env.OpenRun(g.t.Context(), w.mirror, false)
	if err != nil {
		return err
	}
	o := SyncOptions{}
	if pool != nil {
		o.Pool = pool(j.Worker())
	}
	res, err := j.Sync(g.t.Context(), o)
	if err = errors.Join(err, j.Close(g.t.Context())); err == nil && !res.Whole() {
		for _, f := range res.Failures {
			err = errors.Join(err, f.Err)
		}
		err = errors.Join(err, errors.Join(res.Errors...), fmt.Errorf("not whole: %d deletes held back, %d refusals", res.HeldBack, len(res.Refusals)))
	}
	return err
}

// looked does something with the mirror open for reading, and gives what went wrong.
func (g *guest) looked(do func(*Job) (good bool, err error)) error {
	j, err := g.env.openJob(g.t.Context(), g.mirror, Looks)
	if err != nil {
		return err
	}
	good, err := do(j)
	if err = errors.Join(err, j.Close(g.t.Context())); err == nil && !good {
		err = errors.New("it differs")
	}
	return err
}

// life is what a mirror goes through. It gives the first step that fails, and why; "" if
// none does.
func (g *guest) life(restorer func()) (step string, err error) {
	sync := func() error { return g.run(g.world, nil) }
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"first run, cut short in a large file", func() error {
			err := g.run(g.world, func(w *engine.Worker) engine.Pool {
				return inParts{engine.Local{Worker: w, Items: 1, SplitAbove: engine.DefaultPartSize}}
			})
			if errors.Is(err, errKilled) {
				return nil
			}
			return errors.Join(err, errors.New("it was not cut short"))
		}},
		{"next run, of another content", func() error {
			g.write("large", "other content")
			return sync()
		}},
		{"unchanged", sync},
		{"changed", func() error {
			g.write("d/00", "other content")
			must(g.t, os.Chmod(filepath.Join(g.from, "d/01"), 0o640))
			return sync()
		}},
		{"deleted", func() error {
			must(g.t, os.Remove(filepath.Join(g.from, "d/02")))
			return sync()
		}},
		{"brought back", func() error {
			j, err := g.env.openJob(g.t.Context(), g.mirror, Repairs)
			if err != nil {
				return err
			}
			var failed error
			_, err = j.Restore(g.t.Context(), RestoreOptions{Each: func(r Restored) { failed = errors.Join(failed, r.Err, r.Alone) }})
			return errors.Join(err, failed, j.Close(g.t.Context()))
		}},
		{"verify", func() error {
			return g.looked(func(j *Job) (bool, error) {
				v, err := j.Verify(g.t.Context(), plan.Dest, VerifyOptions{Level: proof.L4})
				return !v.differs(), err
			})
		}},
		{"audit", func() error {
			return g.looked(func(j *Job) (bool, error) {
				a, err := j.Audit(g.t.Context(), AuditOptions{})
				return !a.Sides[plan.Source].differs() && !a.Sides[plan.Dest].differs(), err
			})
		}},
		{"restore", func() error {
			restorer()
			if err := g.run(g.back, nil); err != nil {
				return err
			}
			got, err := os.ReadFile(filepath.Join(g.back.to, "d", "00"))
			if err == nil && string(got) != "other content" {
				err = fmt.Errorf("it holds %q", got)
			}
			return err
		}},
	} {
		if err := s.do(); err != nil {
			return s.name, err
		}
	}
	return "", nil
}

// TestTheLeastPolicy: with the policy of the README a mirror does all that it does, with
// what it says of sources it is brought back, and without any of its actions some step
// fails and names that.
func TestTheLeastPolicy(t *testing.T) {
	g := newGuest(t, "least")
	least := leastPolicy(t, g.bucket.Bucket)
	g.allow("least", least)
	if step, err := g.life(func() {
		g.allow("source", least.only(func(a string) bool { return a == "s3:ListBucket" || a == "s3:GetObject" }))
		g.admin("policy", "detach", "lab", "least", "--user", "least")
	}); err != nil {
		t.Errorf("%s: %v", step, err)
	}
	if len(least.actions()) < 5 {
		t.Errorf("it has only %q", least.actions())
	}
	for i, without := range least.actions() {
		t.Run(without, func(t *testing.T) {
			g := newGuest(t, fmt.Sprintf("without-%d", i))
			g.allow(g.name, leastPolicy(t, g.bucket.Bucket).only(func(a string) bool { return a != without }))
			switch step, err := g.life(func() {}); {
			case err == nil:
				t.Error("nothing fails without it")
			case !strings.Contains(err.Error(), without) || strings.Contains(err.Error(), userSecret):
				t.Errorf("%s: it does not name what is missing: %v", step, err)
			default:
				t.Logf("%s: %v", step, err)
			}
		})
	}
}
