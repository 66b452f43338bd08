package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// up runs a whole firedrill with an inventory, and returns its state directory.
func up(t *testing.T, inventory string) (stateDir string) {
	t.Helper()
	inv, err := drill.ParseInventory([]byte(inventory))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stack, err := allinone.Start(t.Context(), allinone.Options{StateDir: dir, Listen: "127.0.0.1:0", OutDir: t.TempDir(),
		Registry: target.NewRegistry(postgres.Driver{}), Inventory: inv, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stack.Close)
	return dir
}

// with runs a command in a state directory.
func with(t *testing.T, stateDir string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), append([]string{"--state-dir", stateDir}, args...), Streams{In: strings.NewReader(""), Out: &o, Err: &e}, target.NewRegistry(postgres.Driver{}))
	return code, o.String(), e.String()
}

// inline is a drill that brings its own configuration.
func inline(t *testing.T) (path string) {
	t.Helper()
	_, config, _ := strings.Cut(orders(`["true"]`), "config:")
	config, _, _ = strings.Cut(config, "\nguards")
	return write(t, "inline.yaml", strings.NewReplacer("Failover", "failover", "kil}", "kill}", "node: c", "node: b",
		"targets: [{name: orders, inventory: orders}]", "targets:\n    - name: orders\n      driver: postgres\n      config:"+strings.TrimRight(config, "\n")).Replace(promoteC))
}

// TestRejectedRequestsAreKnown to whoever asks for the drill that they did not become.
func TestRejectedRequestsAreKnown(t *testing.T) {
	dir, file := up(t, orders(`["true"]`)), inline(t)
	code, out, errs := with(t, dir, "run", file)
	if code != run.BadArguments || !strings.Contains(errs, "rejected by the firedrill that runs here: it only drills what its inventory lists") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	code, out, errs = with(t, dir, "status", "failover-1")
	if code != run.OK || !strings.HasPrefix(out, "failover-1: rejected on 20") || !strings.Contains(out, "no configuration of their own") {
		t.Errorf("status: exit %d, %s%s", code, out, errs)
	}
	for _, command := range []string{"watch", "report", "verify"} {
		if code, out, errs := with(t, dir, command, "failover-1"); code != run.BadArguments || out != "" || !strings.Contains(errs, "failover-1: rejected on 20") {
			t.Errorf("%s: exit %d, %s%s", command, code, out, errs)
		}
	}
	code, out, errs = with(t, dir, "list")
	if code != run.OK || errs != "" || !strings.Contains(out, "failover-1  20") || !strings.Contains(out, "rejected") || !strings.Contains(out, "no configuration of their own") {
		t.Errorf("list: exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := with(t, dir, "status", "failover-2"); code != run.BadArguments || !strings.Contains(errs, "no such drill") {
		t.Errorf("a drill that nobody asked for: exit %d, %s", code, errs)
	}
}

// TestRejectedRequestsComeLast: they are no drills, and said where nothing runs, too.
func TestRejectedRequestsComeLast(t *testing.T) {
	dir := t.TempDir()
	if did := command(t, dir, "undo", "gone-7"); did.code != run.BadArguments || !strings.Contains(did.errs, "rejected: ") {
		t.Fatalf("%+v", did)
	}
	server, b := openStore(t, dir, "")
	begin(t, b, event.RequestRef{MsgID: "weekly"})
	if _, err := b.Append(t.Context(), somebodysDrill, event.Draft{Type: event.TypeDrillFinished, Data: event.DrillFinished{Complete: true}}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	server.Shutdown()
	did := command(t, dir, "list")
	first, last := strings.Index(did.out, "\n"+somebodysDrill), strings.Index(did.out, "\nundo-1")
	if did.code != run.OK || first < 0 || last < first {
		t.Errorf("%+v", did)
	}
}

// TestListForPrograms has what is on the page, and what the state is.
func TestListForPrograms(t *testing.T) {
	dir := serve(t)
	listed := func() (l listing) {
		t.Helper()
		code, out, errs := with(t, dir, "list", "--json")
		if err := json.Unmarshal([]byte(out), &l); err != nil || code != run.OK || len(l.Drills) != 1 {
			t.Fatalf("exit %d, %s%s: %v", code, out, errs, err)
		}
		return l
	}
	l := listed()
	if d := l.Drills[0]; l.Halt != nil || d.Requester != "ada" || d.Title != "Loss of the primary" || d.State != "running" || d.Started.IsZero() {
		t.Errorf("%+v", l)
	}
	if code, _, errs := with(t, dir, "halt", "the disks are full"); code != run.OK {
		t.Fatal(errs)
	}
	abort(t, dir)
	l = listed()
	if l.Halt == nil || l.Halt.Reason != "the disks are full" || l.Drills[0].State != "aborting" {
		t.Errorf("halted and aborting: %+v", l)
	}
	says(t, dir, []string{"aborting", "ada", "Loss of the primary"}, "list")
	says(t, dir, []string{somebodysDrill + ": aborting: enough"}, "status", somebodysDrill)
}

// abort has the drill of serve aborted, as its injector would.
func abort(t *testing.T, dir string) {
	t.Helper()
	rec, ok := allinone.ReadRecord(dir)
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	signer, err := ring.Signer(event.Injector)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.Connect(t.Context(), bus.Options{URL: rec.NATSURL, Keyring: ring.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: event.Injector, Instance: "test", Signer: signer, Clock: clock.System()}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Append(t.Context(), somebodysDrill, event.Draft{Type: event.TypeAbortRequested, Data: event.AbortRequested{By: "me", Cause: "operator", Reason: "enough"}}); err != nil {
		t.Fatal(err)
	}
}

// TestValidateSaysWhatRunWouldMeet: a drill that is fine by itself, and that the
// firedrill here would not take.
func TestValidateSaysWhatRunWouldMeet(t *testing.T) {
	dir, file := up(t, orders(`["true"]`)), inline(t)
	named := write(t, "named.yaml", strings.NewReplacer("Failover", "failover", "kil}", "kill}", "node: c", "node: b").Replace(promoteC))
	const inventory = "\n  but the firedrill that runs here would reject it: it only drills what its inventory lists"
	if code, out, errs := with(t, dir, "validate", file); code != run.OK || !strings.HasPrefix(out, file+": valid"+inventory) {
		t.Errorf("inline: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := with(t, dir, "validate", named); code != run.OK || out != named+": valid\n" {
		t.Errorf("named: exit %d, %s%s", code, out, errs)
	}
	if _, out, _ := with(t, dir, "plan", file); !strings.HasPrefix(out, "NOTE    the firedrill that runs here would reject it") {
		t.Errorf("the plan of one that is inline: %s", out)
	}
	if code, _, errs := with(t, dir, "halt", "the disks are full"); code != run.OK {
		t.Fatal(errs)
	}
	if code, out, errs := with(t, dir, "validate", named); code != run.OK || !strings.Contains(out, "\n  but it would be rejected now: ALL DRILLS ARE HALTED by "+requester()) || !strings.Contains(out, "the disks are full") {
		t.Errorf("halted: exit %d, %s%s", code, out, errs)
	}
	if _, out, _ := with(t, dir, "validate", "--json", file); strings.Count(out, "would ") != 2 || !strings.Contains(out, `"valid": true`) {
		t.Errorf("as JSON: %s", out)
	}
	if code, out, errs := invoke(t, "", "validate", file); code != run.OK || out != file+": valid\n" {
		t.Errorf("nothing ever ran: exit %d, %s%s", code, out, errs)
	}
}

// TestValidateSaysWhatALoneRunWouldMeet: what the last firedrill has left.
func TestValidateSaysWhatALoneRunWouldMeet(t *testing.T) {
	dir, file := leave(t), inline(t)
	if code, out, errs := with(t, dir, "validate", file); code != run.OK || !strings.Contains(out, "\n  but not now: drill "+somebodysDrill+" was left before everything was put back") || strings.Contains(out, "HALTED") {
		t.Errorf("left: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := with(t, dir, "halt", "the disks are full"); code != run.OK || strings.Contains(out, "being aborted") || !strings.Contains(out, "halted: new ones are rejected until ") {
		t.Fatalf("halt: exit %d, %s%s", code, out, errs)
	}
	if _, out, _ := with(t, dir, "plan", file); !strings.Contains(out, "NOTE    it would be rejected now: ALL DRILLS ARE HALTED") || !strings.Contains(out, "the disks are full") || !strings.Contains(out, "NOTE    not now: drill ") {
		t.Errorf("halted: %s", out)
	}
}

// TestALeftDrillIsFinishedFirst: to start services on it only to leave it again would
// help nobody, and nobody can abort what has no firedrill.
func TestALeftDrillIsFinishedFirst(t *testing.T) {
	dir, file := leave(t), inline(t)
	for _, args := range [][]string{{"run", file}, {"undo", "other-1"}} {
		code, out, errs := with(t, dir, args...)
		if code != run.BadArguments || out != "" || !strings.Contains(errs, "drill "+somebodysDrill+" was left before everything was put back") ||
			!strings.Contains(errs, "`firedrill --state-dir "+dir+" up`") || strings.Contains(errs, "abort") {
			t.Errorf("%v: exit %d, %s%s", args, code, out, errs)
		}
	}
	a := &app{stateDir: dir, logLevel: "error"}
	if err := a.refuseLeft(t.Context(), leftRequest()); err != nil {
		t.Errorf("whoever asks for the same drill again: %v", err)
	}
	for name, change := range map[string]func(*asked){
		"under another id":  func(r *asked) { r.msgID = "monthly" },
		"for another drill": func(r *asked) { r.raw = []byte("kind: Undo") },
		"as another one":    func(r *asked) { r.subject = "drill.req.bob.somebody" },
	} {
		r := leftRequest()
		change(&r)
		if err := a.refuseLeft(t.Context(), r); err == nil || !strings.Contains(err.Error(), somebodysDrill+" was left") {
			t.Errorf("whoever asks %s: %v", name, err)
		}
	}
	a.stateDir = t.TempDir()
	if err := a.refuseLeft(t.Context(), leftRequest()); err != nil {
		t.Errorf("nothing was ever run here: %v", err)
	}
	if entries, err := os.ReadDir(a.stateDir); err != nil || len(entries) != 0 {
		t.Errorf("looking has left something: %v, %v", entries, err)
	}
}
