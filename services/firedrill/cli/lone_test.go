package cli

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// process is a `firedrill run` of its own.
type process struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	said bytes.Buffer
	news chan struct{}
}

func (p *process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
	return p.said.Write(data)
}

func (p *process) words() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// start starts a firedrill command as a process with a state directory.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, done: make(chan struct{}), news: make(chan struct{}, 1)}
	p.cmd = exec.Command(os.Args[0], append([]string{"--state-dir", dir}, args...)...)
	p.cmd.Env = append(os.Environ(), envCommand+"=1", envSystem+"="+strconv.Itoa(os.Getpid()))
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the code is in its state
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.done
	})
	return p
}

// says waits until the process has said something.
func (p *process) says(words string) {
	p.t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(p.words(), words) {
		select {
		case <-p.news:
		case <-p.done:
			if !strings.Contains(p.words(), words) {
				p.t.Fatalf("it ended without a word on %q:\n%s", words, p.words())
			}
		case <-limit:
			p.t.Fatalf("no word on %q:\n%s", words, p.words())
		}
	}
}

// ends waits for the process's end and returns its exit code.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		p.t.Fatalf("it does not end:\n%s", p.words())
		return 0
	}
}

// broken starts a run whose drill has broken the shop, and waits for nobody to mend it.
func broken(t *testing.T, dir string) *process {
	t.Helper()
	p := start(t, dir, "run", "--out", filepath.Join(dir, "out"), simDrill(t, "{}", "1m", "[]"))
	p.says("fault took effect")
	return p
}

// lone is the id of the first drill of a state directory that broken was started in.
const lone = "lone-1"

// TestALoneRunIsReached from another process, which finds it by the state directory.
func TestALoneRunIsReached(t *testing.T) {
	dir := t.TempDir()
	p := broken(t, dir)
	info, err := os.Stat(filepath.Join(dir, "up.json"))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("the record: %v, %v", info.Mode(), err)
	}
	rec, ok := allinone.ReadRecord(dir)
	if !ok || !rec.Private() || rec.PID != p.cmd.Process.Pid {
		t.Fatalf("%+v, %v", rec, ok)
	}
	if did := command(t, dir, "list"); did.code != run.OK || !strings.Contains(did.out, lone) || !strings.Contains(did.out, "running") {
		t.Errorf("list: %+v", did)
	}
	if did := command(t, dir, "status", lone); did.code != run.OK || !strings.Contains(did.out, lone+": running") {
		t.Errorf("status: %+v", did)
	}
	for name, login := range map[string][]string{
		"without the login": {"--nats-url", rec.NATSURL},
		"with another one":  {"--nats-url", rec.NATSURL, "--nkey-seed-file", strangersSeed(t)},
	} {
		for _, args := range [][]string{{"list"}, {"abort", lone}, {"halt"}} {
			did := command(t, dir, append(login, args...)...)
			if did.code != run.Crash || !strings.Contains(did.errs, "Authorization") || strings.Contains(did.errs, string(rec.Seed)) {
				t.Errorf("%s, %v: %+v", name, args, did)
			}
		}
	}
	// It is there for one drill, whoever else would like one.
	other := simDrill(t, "{}", "1m", mend)
	if did := command(t, dir, "run", other); did.code != run.BadArguments || !strings.Contains(did.errs, "another `firedrill run` is under way here") {
		t.Errorf("a second run: %+v", did)
	}
	if did := command(t, dir, "validate", other); did.code != run.OK || !strings.Contains(did.out, "but not now: another `firedrill run`") {
		t.Errorf("validate: %+v", did)
	}
	for _, args := range [][]string{{"undo", lone}, {"dead", "replay", "1"}, {"mirror", "sync", "--fleet", "offsite"}} {
		if did := command(t, dir, args...); did.code != run.BadArguments || !strings.Contains(did.errs, "another `firedrill run` is under way here") {
			t.Errorf("%v: %+v", args, did)
		}
	}
	watch := start(t, dir, "watch", "--json", lone)
	if did := command(t, dir, "abort", "--reason", "the shop opens", lone); did.code != run.OK || !strings.Contains(did.out, lone+" is being aborted") || !strings.Contains(did.out, "`firedrill --state-dir "+dir+" watch "+lone+"`") {
		t.Errorf("abort: %+v", did)
	}
	if code := p.ends(); code != run.Inconclusive {
		t.Errorf("the run exits with %d:\n%s", code, p.words())
	}
	p.says("the shop opens")
	p.says("finished: everything is put back")
	if code := watch.ends(); code != run.Inconclusive {
		t.Errorf("watch exits with %d:\n%s", code, watch.words())
	}
	var report struct{ ID string }
	if err := json.Unmarshal([]byte(watch.words()), &report); err != nil || report.ID != lone {
		t.Errorf("watch: %v\n%s", err, watch.words())
	}
	gone(t, dir)
	for words, args := range map[string][]string{
		"published  INVALID":                {"list"},
		lone + ": finished, everything put": {"status", lone},
		"# DR Drill Report":                 {"report", lone},
		"whole: ":                           {"verify", lone},
	} {
		if did := command(t, dir, args...); did.code != run.OK || did.errs != "" || !strings.Contains(did.out, words) {
			t.Errorf("%v afterwards: %+v", args, did)
		}
	}
	holdsNot(t, dir, string(rec.Seed), p.words()+watch.words())
}

// TestOneFiredrillOfTheMachineDrillsASystem: a second one breaks nothing, though it has a
// state directory of its own.
func TestOneFiredrillOfTheMachineDrillsASystem(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	p := broken(t, dir)
	did := command(t, other, "run", "--out", filepath.Join(other, "out"), simDrill(t, "{}", "1m", mend))
	if did.code != run.Inconclusive || !strings.Contains(did.out, "another firedrill on this machine drills it (drill "+lone) || strings.Contains(did.out, "fault took effect") {
		t.Errorf("the second one: %+v", did)
	}
	if did := command(t, dir, "abort", lone); did.code != run.OK {
		t.Errorf("abort: %+v", did)
	}
	if code := p.ends(); code != run.Inconclusive {
		t.Errorf("the first one exits with %d:\n%s", code, p.words())
	}
}

// TestNothingIsBrokenWithoutRoomForEvents, which are what a drill is put back by.
func TestNothingIsBrokenWithoutRoomForEvents(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	did := command(t, disk, "run", "--out", t.TempDir(), simDrill(t, "{}", "1m", mend))
	if did.code != run.Inconclusive || !strings.Contains(did.out, "a drill needs 64 MiB") || strings.Contains(did.out, "fault took effect") {
		t.Errorf("%+v", did)
	}
}

// gone fails the test if there is a record.
func gone(t *testing.T, dir string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(dir, "*up*json")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// holdsNot fails the test if a secret is in a text or in a file of a state directory.
func holdsNot(t *testing.T, dir, secret, text string) {
	t.Helper()
	if strings.Contains(text, secret) {
		t.Errorf("the secret is printed:\n%s", text)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// strangersSeed is the file of a login that a private server does not know.
func strangersSeed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	e, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: dir, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown()
	return write(t, "seed.nk", string(e.Seed())+"\n")
}

// TestHaltStopsALoneRun, says which drill that is, and blocks the next until it is
// released, for which no firedrill has to run.
func TestHaltStopsALoneRun(t *testing.T) {
	dir := t.TempDir()
	p := broken(t, dir)
	did := command(t, dir, "halt", "the shop opens")
	if did.code != run.OK || !strings.Contains(did.out, "halted: running drills are being aborted") || !strings.Contains(did.out, lone+" is being aborted and everything put back") {
		t.Errorf("halt: %+v", did)
	}
	if code := p.ends(); code != run.Inconclusive {
		t.Errorf("the run exits with %d:\n%s", code, p.words())
	}
	p.says("ABORT: all drills are halted by " + requester() + ": the shop opens\n")
	p.says("p/fault/break undone")
	p.says("finished: everything is put back")
	drill := simDrill(t, "{}", "1m", mend)
	if did := command(t, dir, "run", "--out", filepath.Join(dir, "out"), drill); did.code != run.BadArguments || !strings.Contains(did.errs, "firedrill halt --release") {
		t.Errorf("a run while all is halted: %+v", did)
	}
	if did := command(t, dir, "halt", "again"); did.code != run.OK || !strings.Contains(did.out, "halted already") || !strings.Contains(did.out, "the shop opens") {
		t.Errorf("a second halt: %+v", did)
	}
	if did := command(t, dir, "halt", "--release"); did.code != run.OK || !strings.Contains(did.out, "released") {
		t.Errorf("release: %+v", did)
	}
	if did := command(t, dir, "run", "--quiet", "--out", filepath.Join(dir, "out"), drill); did.code == run.BadArguments || !strings.Contains(did.out, "report: ") {
		t.Errorf("a run after the release: %+v", did)
	}
}

// TestHaltWhereNoneEverRan blocks the first drill, and says that none ever ran there:
// it may be the wrong place.
func TestHaltWhereNoneEverRan(t *testing.T) {
	dir := t.TempDir()
	if did := command(t, dir, "halt", "--release"); did.code != run.BadArguments || !strings.Contains(did.errs, "no firedrill is running here") {
		t.Errorf("a release: %+v", did)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("a release has left %v, %v", left, err)
	}
	did := command(t, dir, "halt", "the shop opens")
	if did.code != run.OK || strings.Contains(did.out, "being aborted") || !strings.Contains(did.out, "halted: new ones are rejected until ") || !strings.Contains(did.errs, "WARNING: no firedrill ever ran in "+dir) {
		t.Errorf("halt: %+v", did)
	}
	file := simDrill(t, "{}", "1m", mend)
	if did := command(t, dir, "validate", file); did.code != run.OK || !strings.Contains(did.out, "ALL DRILLS ARE HALTED by "+requester()) {
		t.Errorf("validate: %+v", did)
	}
	if did := command(t, dir, "run", file); did.code != run.BadArguments || !strings.Contains(did.errs, "all drills are halted by "+requester()+" (the shop opens)") {
		t.Errorf("the first run: %+v", did)
	}
	if did := command(t, dir, "halt", "--release"); did.code != run.OK || !strings.Contains(did.out, "released") || strings.Contains(did.out, "ever ran") {
		t.Errorf("release: %+v", did)
	}
}

// publish stores a request in a state directory where no firedrill runs.
func publish(t *testing.T, dir string, r asked) {
	t.Helper()
	server, b := openStore(t, dir, "")
	defer server.Shutdown()
	defer b.Close()
	if _, err := b.Publish(t.Context(), r.subject, r.raw, r.msgID); err != nil {
		t.Fatal(err)
	}
}

// TestALoneRunTakesItsOwnRequestOnly: what somebody has left in the store would be done
// with the operator's rights, and may bring its own targets.
func TestALoneRunTakesItsOwnRequestOnly(t *testing.T) {
	dir := t.TempDir()
	raw, err := os.ReadFile(simDrill(t, "{}", "1m", mend))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, dir, asked{document{raw: raw, name: "lone"}, "drill.req.mallory.lone", "theirs"})
	// One drill after the other is accepted, and this one only after theirs.
	if did := command(t, dir, "undo", "gone-7"); did.code != run.BadArguments || !strings.Contains(did.errs, "rejected: ") {
		t.Errorf("the own one: %+v", did)
	}
	server, b := openStore(t, dir, "")
	defer server.Shutdown()
	defer b.Close()
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("drills: %+v, %v", all, err)
	}
	answers := ""
	err = b.ResultsOf(t.Context(), "mallory", "lone", time.Time{}, func(raw []byte) error {
		answers += string(raw)
		return nil
	})
	if err != nil || !strings.Contains(answers, "takes no other requests") {
		t.Errorf("their answer: %q, %v", answers, err)
	}
}

// TestAnIDOfAnotherRequest is said to be that: what was stored under it is not what is
// asked for, and nobody would answer that.
func TestAnIDOfAnotherRequest(t *testing.T) {
	file := simDrill(t, "{}", "1m", mend)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for subject, body := range map[string]string{
		"drill.req." + requester() + ".lone": string(raw) + "# another one\n",
		"drill.req.mallory.lone":             string(raw),
	} {
		dir := t.TempDir()
		publish(t, dir, asked{document{raw: []byte(body), name: "lone"}, subject, "weekly"})
		did := command(t, dir, "run", "--id", "weekly", file)
		if did.code != run.BadArguments || !strings.Contains(did.errs, `--id "weekly": another request has it, stored on 20`) || !strings.Contains(did.errs, subject) || !strings.Contains(did.errs, "take another --id") {
			t.Errorf("%s: %+v", subject, did)
		}
	}
}

// TestAKilledRunConfusesNobody: its record is not taken for a running firedrill, even
// if its number is another process's by now.
func TestAKilledRunConfusesNobody(t *testing.T) {
	dir := t.TempDir()
	p := broken(t, dir)
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.ends()
	record := filepath.Join(dir, "up.json")
	raw, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	var rec allinone.Record
	if err := json.Unmarshal(raw, &rec); err != nil {
		t.Fatal(err)
	}
	rec.PID = os.Getpid()
	if raw, err = json.Marshal(rec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if did := command(t, dir, "list"); did.code != run.OK || !strings.Contains(did.out, "  left  ") {
		t.Errorf("list: %+v", did)
	}
	if did := command(t, dir, "status", lone); did.code != run.OK || !strings.Contains(did.out, lone+": left before its end") || !strings.Contains(did.out, "to undo    p/fault/break") {
		t.Errorf("status: %+v", did)
	}
	for _, args := range [][]string{{"watch", lone}, {"abort", lone}} {
		if did := command(t, dir, args...); did.code != run.BadArguments || !strings.Contains(did.errs, "no firedrill is running here") {
			t.Errorf("%v: %+v", args, did)
		}
	}
	if did := command(t, dir, "run", simDrill(t, "{}", "1m", mend)); did.code != run.BadArguments || !strings.Contains(did.errs, lone+" was left before everything was put back") {
		t.Errorf("run: %+v", did)
	}
	if did := command(t, dir, "halt"); did.code != run.OK || !strings.Contains(did.out, lone+" was left before everything was put back") {
		t.Errorf("halt: %+v", did)
	}
	up := start(t, dir, "up", "--listen", "127.0.0.1:0", "--http", "", "--out", filepath.Join(dir, "out"))
	up.says("firedrill is up")
	if info, err := os.Stat(record); err != nil || info.Mode() != 0o600 {
		t.Errorf("the record of the next one: %v, %v", info.Mode(), err)
	}
	if did := command(t, dir, "watch", lone); did.code != run.Inconclusive || !strings.Contains(did.out, "everything is put back") {
		t.Errorf("watch: %+v", did)
	}
	if err := up.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := up.ends(); code != run.OK {
		t.Errorf("up exits with %d:\n%s", code, up.words())
	}
	gone(t, dir)
}
