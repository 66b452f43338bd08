package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// TestWhatCannotBeWrittenIsSaidFirst: before anything is broken, and before it is asked for.
func TestWhatCannotBeWrittenIsSaidFirst(t *testing.T) {
	dir := t.TempDir()
	file := write(t, "file", "no folder")
	drill := simDrill(t, "{}", "1m", mend)
	for flag, value := range map[string]string{"--out": filepath.Join(file, "o"), "--junit": filepath.Join(file, "j.xml")} {
		did := command(t, dir, "run", flag, value, drill)
		if did.code != run.BadArguments || strings.Contains(did.out, "accepted") || !strings.Contains(did.errs, flag+" "+value+": nothing can be written there: ") || !strings.Contains(did.errs, "name another place with "+flag) {
			t.Errorf("%s: %+v", flag, did)
		}
	}
	inside := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(entries)
	}
	before := inside()
	for _, out := range []string{filepath.Join(dir, "a", "b"), dir} {
		if err := tryOut("--out", out, out); err != nil {
			t.Error(err)
		}
		if left := inside(); left != before {
			t.Errorf("%s: left behind: %s", out, left)
		}
	}
}

// startBlocked starts a run in a state directory whose report cannot be written: a file
// lies where its folder out would be, since the fault took effect.
func startBlocked(t *testing.T, dir string) (p *process, out string) {
	t.Helper()
	out = filepath.Join(dir, "out")
	p = start(t, dir, "run", "--out", out, simDrill(t, "{}", "1m", mend))
	p.says("fault took effect")
	if err := os.WriteFile(out, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, out
}

// TestAReportThatCannotBeMade ends the run all the same, as soon as that is given up; it
// says where the history is, and the next `firedrill up` writes it.
func TestAReportThatCannotBeMade(t *testing.T) {
	t.Parallel() // it waits for most of its time
	dir := t.TempDir()
	p, out := startBlocked(t, dir)
	if code := p.ends(); code != run.Crash {
		t.Errorf("the run exits with %d:\n%s", code, p.words())
	}
	p.says(lone + " is over, and everything is put back, but its report could not be made: write report of drill " + lone)
	p.says("its history is kept in " + filepath.Join(dir, "nats") + ": `firedrill --state-dir " + dir + " up --out " + out + "` writes the report once that is mended")
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	up := start(t, dir, "up", "--listen", "127.0.0.1:0", "--http", "", "--out", out)
	up.says("firedrill is up")
	if did := command(t, dir, "watch", lone); did.code == run.Crash || !strings.Contains(did.out, lone+": ") {
		t.Errorf("watch: %+v", did)
	}
	if _, err := os.Stat(filepath.Join(out, lone, "report.html")); err != nil {
		t.Error(err)
	}
	if did := command(t, dir, "dead", "list"); did.code != run.OK || !strings.HasPrefix(did.out, "no dead letters") {
		t.Errorf("dead letters: %+v", did)
	}
	ended(t, up)
}

// TestASignalAfterTheEnd ends a run that waits for its report, the first one already.
func TestASignalAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	p, _ := startBlocked(t, dir)
	p.says("message will be tried again")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(); code != run.Interrupted || strings.Contains(p.words(), "aborting") {
		t.Errorf("the run exits with %d:\n%s", code, p.words())
	}
	p.says("everything that " + lone + " did is put back, but it has no report yet\n`firedrill --state-dir " + dir + " up` writes that\n")
}

// ended asks a firedrill to end, and fails the test unless it does so in peace.
func ended(t *testing.T, p *process) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(); code != run.OK {
		t.Errorf("it exits with %d:\n%s", code, p.words())
	}
}

// TestUpSaysWhatItWaitsFor: a drill that another process conducts, unless that is silent.
func TestUpSaysWhatItWaitsFor(t *testing.T) {
	for holder, want := range map[string]string{
		"elsewhere":       somebodysDrill + " is under way, conducted by elsewhere of another process (lease 1): it is taken over when that was silent for 1h0m0s",
		allinone.Instance: somebodysDrill + " is under way, and is taken up again",
	} {
		dir := t.TempDir()
		server, b := openStore(t, dir, "")
		begin(t, b, event.RequestRef{MsgID: "weekly"})
		if _, err := b.Append(t.Context(), somebodysDrill, event.Draft{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Holder: holder, Epoch: 1, TTL: event.Duration(time.Hour)}}); err != nil {
			t.Fatal(err)
		}
		b.Close()
		server.Shutdown()
		up := start(t, dir, "up", "--lease-ttl", "1h", "--listen", "127.0.0.1:0", "--http", "", "--out", filepath.Join(dir, "out"))
		up.says(want)
		if err := up.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		up.ends()
	}
}

// TestUpNamesTheAddressThatIsTaken, and does not say that it is up.
func TestUpNamesTheAddressThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	t.Setenv("FIREDRILL_HTTP_TOKEN", "geheim-geheim-geheim")
	for flag, args := range map[string][]string{
		"--http":   {"up", "--listen", "127.0.0.1:0", "--http", taken},
		"--listen": {"up", "--listen", taken, "--http", ""},
	} {
		dir := t.TempDir()
		did := command(t, dir, append(args, "--out", filepath.Join(dir, "out"))...)
		if did.code != run.Crash || did.out != "" || !strings.Contains(did.errs, "firedrill: "+flag+" "+taken+": address already in use: another process has it") {
			t.Errorf("%s: %+v", flag, did)
		}
	}
}
