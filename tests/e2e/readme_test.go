package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/event"
)

// TestReadmeExamples runs what README.md tells people to type, as it stands there,
// in one shell. Only the ports and the length of the stable window are others.
func TestReadmeExamples(t *testing.T) {
	asking := snippets(t, "## Asking from any system")
	start, viaNATS, python, viaHTTP := asking[0], asking[1], asking[2], asking[3]
	after := snippets(t, "## What you get")[0]
	sh := startShell(t)
	natsAddr, httpAddr := freeAddress(t), freeAddress(t)

	start = replaceOnce(t, start, "lab up --sync", "lab up --sync --stable 1s")
	sh.atEnd("out/bin/firedrill lab down --force")
	start = strings.TrimSpace(start) + " --listen " + natsAddr + " --http " + httpAddr + " >up.log 2>&1 &"
	if out := sh.run(start); !strings.Contains(out, "PostgreSQL is up") {
		t.Fatalf("%s\nsaid %s", start, out)
	}
	sh.atEnd("cat up.log; out/bin/firedrill list; kill -INT $!; wait $!")
	awaitReady(t, "http://"+httpAddr+"/readyz")

	curl := replaceOnce(t, viaHTTP, "127.0.0.1:8080", httpAddr)
	first, again := sh.ask(curl), sh.ask(curl)
	if first.Drill == "" || first.Duplicate || first.StatusURL != "/v1/drills/"+first.Drill || again.Drill != first.Drill || !again.Duplicate {
		t.Errorf("curl was answered %+v, and the second time %+v", first, again)
	}
	other := replaceOnce(t, replaceOnce(t, curl, "@out/lab/request.yaml", "@out/lab/drill.yaml"), "curl -sS", "curl -sS -o /dev/null -w '{\"code\": %{http_code}}'")
	if code := sh.ask(other).Code; code != http.StatusConflict {
		t.Errorf("the key for another drill was answered %d", code)
	}
	verdict := asksOverNATS(t, sh, natsAddr, viaNATS, python, first.Drill)
	token := regexp.MustCompile(`-H "Authorization: [^"]*"`).FindString(curl)
	if got := sh.ask("curl -sS " + token + " http://" + httpAddr + first.StatusURL); got.Drill != first.Drill || got.Verdict != verdict {
		t.Errorf("the drill's own address says %+v, the answer over NATS %s", got, verdict)
	}
	for line := range strings.Lines(strings.ReplaceAll(after, "<drill>", first.Drill)) {
		out := sh.run("PATH=$PWD/out/bin:$PATH\n" + line)
		if !strings.Contains(line, "report") {
			continue
		}
		if published, err := os.ReadFile(filepath.Join(sh.dir, "out/drills", first.Drill, "report.json")); err != nil || out != string(published) {
			t.Errorf("%s: not the bytes of the report on disk (%d and %d), %v", line, len(out), len(published), err)
		}
	}
}

// asksOverNATS runs the example for Python, and publishes what the one for the nats
// command does, which is the same, with the Go client in its place. It returns the
// verdict of the drill that is under way, once that has finished.
func asksOverNATS(t *testing.T, sh *shell, addr, viaNATS, python, underWay string) (verdict string) {
	t.Helper()
	sub := regexp.MustCompile(`(?m)^nats sub '(\S+)' &`).FindStringSubmatch(viaNATS)
	req := regexp.MustCompile(`(?m)^nats request (\S+) "\$\(cat (\S+)\)" -H Nats-Msg-Id:(\S+)$`).FindStringSubmatch(viaNATS)
	if sub == nil || req == nil {
		t.Fatalf("the example for the nats command has another shape:\n%s", viaNATS)
	}
	nc, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	answers, err := nc.SubscribeSync(sub[1])
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(sh.dir, req[2]))
	if err != nil {
		t.Fatal(err)
	}
	program := replaceOnce(t, python, "nats://127.0.0.1:4222", "nats://"+addr)
	var seq uint64
	said := sh.python(program)
	if n, err := fmt.Sscanf(said, "%d asked for\n", &seq); n != 1 || err != nil || said != fmt.Sprintf("%d asked for\n", seq) {
		t.Fatalf("the example for Python said %q, %v", said, err)
	}
	if again, want := sh.python(program), fmt.Sprintf("%d asked for before, nothing new was stored\n", seq); again != want {
		t.Errorf("the second time, the example for Python said %q, want %q", again, want)
	}
	type ack struct {
		Stream    string
		Seq       uint64
		Duplicate bool
	}
	var got ack
	m := nats.NewMsg(req[1])
	m.Header.Set("Nats-Msg-Id", req[3])
	m.Data = body
	r, err := nc.RequestMsg(m, 10*time.Second)
	if err == nil {
		err = json.Unmarshal(r.Data, &got)
	}
	if want := (ack{"REQUESTS", seq, true}); err != nil || got != want {
		t.Errorf("the server acknowledged %+v, want %+v, %v", got, want, err)
	}
	// It is another drill than HTTP's of the same key, and that one has the system.
	no := nextAnswer(t, answers, func(r result) bool { return r.Request.Sequence == seq })
	if no.State != "rejected" || no.Request.MsgID != req[3] || !strings.Contains(no.Reason, "is under drill "+underWay) {
		t.Errorf("the answer to a drill of a system under drill %s: %+v", underWay, no)
	}
	end := nextAnswer(t, answers, func(r result) bool { return r.Drill == underWay && r.State == "finished" })
	if end.Verdict == "" { // which one is the machine's affair
		t.Errorf("the last answer to drill %s: %+v", underWay, end)
	}
	return end.Verdict
}

// result is an answer on drill.res.
type result struct {
	State, Drill, Verdict, Reason string
	Request                       event.RequestRef
}

// nextAnswer waits for an answer that is meant; the same requester hears others too.
func nextAnswer(t *testing.T, answers *nats.Subscription, meant func(result) bool) (r result) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	for {
		m, err := answers.NextMsgWithContext(deadline)
		r = result{}
		if err == nil {
			err = json.Unmarshal(m.Data, &r)
		}
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if meant(r) {
			return r
		}
	}
}

// snippets are the code blocks of one chapter of README.md, in their order.
func snippets(t *testing.T, chapter string) []string {
	t.Helper()
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(raw), "\n"+chapter+"\n")
	if !found {
		t.Fatalf("README.md has no chapter %q", chapter)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var out []string
	for _, m := range regexp.MustCompile("(?s)```[a-z]+\n(.*?)```").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 || chapter == "## Asking from any system" && len(out) != 4 {
		t.Fatalf("%d examples in the chapter %q", len(out), chapter)
	}
	return out
}

func replaceOnce(t *testing.T, text, old, instead string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q does not stand in this just once:\n%s", old, text)
	}
	return strings.Replace(strings.TrimSpace(text), old, instead, 1)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// shell is a person's shell, in a folder that looks like the repository after make.
type shell struct {
	t   *testing.T
	dir string
	in  io.Writer
	out *bufio.Reader
}

func startShell(t *testing.T) *shell {
	t.Helper()
	bin, err := filepath.Abs(os.Getenv("FIREDRILL_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	sh := &shell{t: t, dir: inMemory(t)}
	if sh.dir == "" {
		sh.dir = t.TempDir()
	}
	if err := os.Mkdir(filepath.Join(sh.dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(sh.dir, "out/bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sh.dir, 0o711); err != nil { // PostgreSQL runs as another user
		t.Fatal(err)
	}
	cmd := exec.Command("bash")
	cmd.Dir = sh.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.in, sh.out = in, bufio.NewReader(out)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // the shell ends
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the shell: %v\n%s", err, errs.String())
		}
	})
	return sh
}

// run has the shell execute lines and returns what they said; the last one has to
// succeed.
func (sh *shell) run(lines string) string {
	sh.t.Helper()
	const mark = "=== that was it: "
	if _, err := fmt.Fprintf(sh.in, "%s\nprintf '\\n%s%%d\\n' $?\n", lines, mark); err != nil {
		sh.t.Fatal(err)
	}
	var said strings.Builder
	for {
		line, err := sh.out.ReadString('\n')
		if err != nil {
			sh.t.Fatalf("%s\nthe shell ended: %v\n%s", lines, err, said.String())
		}
		if code, over := strings.CutPrefix(line, mark); over {
			text := strings.TrimSuffix(said.String(), "\n")
			if code != "0\n" {
				sh.t.Errorf("%s\nended with %s%s", lines, code, text)
			}
			return text
		}
		said.WriteString(line)
	}
}

// python runs a program with the NATS client for Python, in the shell's folder, and
// returns what it said.
func (sh *shell) python(program string) string {
	sh.t.Helper()
	bin, err := filepath.Abs(filepath.Join(os.Getenv("FIREDRILL_BIN"), "python/bin/python3"))
	if err != nil {
		sh.t.Fatal(err)
	}
	cmd := exec.CommandContext(sh.t.Context(), bin, "-")
	cmd.Dir, cmd.Stdin = sh.dir, strings.NewReader(program)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		sh.t.Fatalf("%s, which make python prepares: %v\n%s", bin, err, &errs)
	}
	return string(out)
}

// atEnd has the shell execute lines when the test is over.
func (sh *shell) atEnd(lines string) {
	sh.t.Cleanup(func() {
		if out := sh.run(lines); sh.t.Failed() {
			sh.t.Logf("%s\n%s", lines, out)
		}
	})
}

// answer is what the HTTP API says to a request, and of a drill.
type answer struct {
	Drill     string `json:"drill"`
	StatusURL string `json:"status_url"`
	Duplicate bool   `json:"duplicate"`
	Verdict   string `json:"verdict"`
	Code      int    `json:"code"`
}

func (sh *shell) ask(lines string) (a answer) {
	sh.t.Helper()
	if out := sh.run(lines); json.Unmarshal([]byte(out), &a) != nil {
		sh.t.Fatalf("%s\nsaid %s", lines, out)
	}
	return a
}

// awaitReady waits until firedrill answers.
func awaitReady(t *testing.T, url string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		resp, err := http.Get(url)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is not ready: %v", url, err)
		}
	}
}
