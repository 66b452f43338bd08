package reporter_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

const token = "correct-horse-battery-staple"

// client talks to a reporter's HTTP server.
type client struct {
	t    *testing.T
	base string
	log  *lockedBuffer
}

// lockedBuffer is a log that may be written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// listen takes a free address of this machine.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := reporter.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) http(change func(*reporter.Config)) *client {
	w.t.Helper()
	c := &client{t: w.t, log: &lockedBuffer{}}
	w.run(func(rc *reporter.Config) {
		rc.HTTP, rc.Token = listen(w.t), token
		c.base = "http://" + rc.HTTP.Addr().String()
		rc.Log = slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if change != nil {
			change(rc)
		}
	})
	w.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return c
}

// do sends a request with the token, unless the header sets another one.
func (c *client) do(method, path, body string, header ...string) (int, string, http.Header) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode, string(out), res.Header
}

const smallDrill = `apiVersion: firedrill/v1
kind: Drill
metadata: {name: small}
spec:
  targets: [{name: orders, driver: postgres, config: {}}]
  phases:
    - name: kill
      objective: {rto: 30s}
      probes: [{name: write, target: orders, probe: write}]
      faults: [{name: primary, target: orders, fault: kill}]
`

func TestPostDrill(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	code, body, header := c.do("POST", "/v1/drills?who=ci", smallDrill, "Idempotency-Key", "build-42")
	if code != http.StatusAccepted || !strings.Contains(body, `"drill": "small-1"`) || header.Get("Location") != "/v1/drills/small-1" {
		t.Fatalf("%d %s", code, body)
	}
	if code, body, _ := c.do("POST", "/v1/drills?who=ci", smallDrill, "Idempotency-Key", "build-42"); code != http.StatusAccepted || !strings.Contains(body, `"drill": "small-1"`) || !strings.Contains(body, `"duplicate": true`) {
		t.Errorf("the same key again: %d %s, want the same drill", code, body)
	}
	if code, body, _ := c.do("POST", "/v1/drills?who=cd", smallDrill, "Idempotency-Key", "build-42"); code != http.StatusAccepted || !strings.Contains(body, `"drill": "small-2"`) {
		t.Errorf("the same key of another requester: %d %s, want another drill", code, body)
	}
	// Neither of these was stored, so the next drill is the third.
	other := strings.Replace(smallDrill, "name: small}", "name: large}", 1)
	for name, body := range map[string]string{"another objective": strings.Replace(smallDrill, "rto: 30s", "rto: 31s", 1), "another drill": other} {
		code, answer, _ := c.do("POST", "/v1/drills?who=ci", body, "Idempotency-Key", "build-42")
		if code != http.StatusConflict || !strings.Contains(answer, "used before, with another body") || !strings.Contains(answer, "this one stands for small-1") {
			t.Errorf("the same key with %s: %d %s, want 409", name, code, answer)
		}
	}
	if code, body, _ := c.do("POST", "/v1/drills?who=ci", other, "Idempotency-Key", "build-43"); code != http.StatusAccepted || !strings.Contains(body, `"drill": "large-3"`) {
		t.Errorf("another drill with a new key: %d %s", code, body)
	}
	code, body, _ = c.do("GET", "/v1/drills/small-1", "")
	if code != http.StatusNotFound || !strings.Contains(body, "not accepted yet") {
		t.Errorf("a drill that no injector accepted yet: %d %s", code, body)
	}
}

// TestRejectedRequest: whoever asks over HTTP learns there that the request was
// rejected, and why, also when it is made again with its key.
func TestRejectedRequest(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	code, body, _ := c.do("POST", "/v1/drills", smallDrill, "Idempotency-Key", "weekly")
	if code != http.StatusAccepted {
		t.Fatalf("%d %s", code, body)
	}
	answer := map[string]any{"state": "rejected", "reason": "target t is under drill other-3", "request": event.RequestRef{Sequence: 1}}
	if err := w.buses[event.Injector].PublishResult(t.Context(), "http", "small", answer); err != nil {
		t.Fatal(err)
	}
	code, body, _ = c.do("GET", "/v1/drills/small-1", "")
	if code != http.StatusOK || !strings.Contains(body, `"state": "rejected"`) || !strings.Contains(body, "other-3") {
		t.Errorf("status of a rejected request: %d %s", code, body)
	}
	code, body, _ = c.do("POST", "/v1/drills", smallDrill, "Idempotency-Key", "weekly")
	if code != http.StatusConflict || !strings.Contains(body, "other-3") || !strings.Contains(body, "new key") {
		t.Errorf("made again: %d %s", code, body)
	}
}

// TestRejectedRequestsAreListed, with why, beside the drills; also when a request
// cannot be read at all.
func TestRejectedRequestsAreListed(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	publish := func(name, body string) uint64 {
		t.Helper()
		ack, err := w.buses[event.Injector].Publish(t.Context(), "drill.req.ada."+name, []byte(body), "")
		if err != nil {
			t.Fatal(err)
		}
		return ack.Seq
	}
	answer := func(name string, seq uint64, more map[string]any) {
		t.Helper()
		more["request"] = event.RequestRef{Sequence: seq}
		if err := w.buses[event.Injector].PublishResult(t.Context(), "ada", name, more); err != nil {
			t.Fatal(err)
		}
	}
	rejected := func(name, why string) {
		t.Helper()
		answer(name, publish(name, "no drill"), map[string]any{"state": "rejected", "problems": []map[string]any{{"field": "kind", "fix": why}, {"fix": "more"}}})
	}
	rejected("first", "is none")
	for range 7 { // one of them becomes a drill, and is found among the others
		publish("unanswered", "no drill")
	}
	accepted := drafts("pass")[:1]
	first := accepted[0].Data.(event.DrillAccepted)
	first.Request = event.RequestRef{Subject: "drill.req.ada.live", Sequence: 5}
	accepted[0].Data = first
	w.write("live-5", accepted)
	answer("small", publish("small", smallDrill), map[string]any{"state": "rejected", "reason": "all drills are halted"})

	code, body, _ := c.do("GET", "/v1/drills", "")
	var got struct{ Drills []reporter.Line }
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s %v", code, body, err)
	}
	why := map[string]string{}
	for _, l := range got.Drills {
		if l.Rejection != nil {
			why[l.Drill] = l.Rejection.Why()
		} else if l.Drill != "live-5" || l.State != "running" {
			t.Errorf("listed: %+v", l)
		}
	}
	if len(got.Drills) != 3 || why["first-1"] != "kind: is none (the first of 2 problems)" || why["small-9"] != "all drills are halted" {
		t.Errorf("listed: %s", body)
	}
	if _, page, _ := c.do("GET", "/", "", "Accept", "text/html"); !strings.Contains(page, "all drills are halted") || strings.Contains(page, "small-9/report") || !strings.Contains(page, "live-5/report.html") {
		t.Errorf("the page: %s", page)
	}
	status, err := w.buses[event.Injector].Call(t.Context(), "status", []byte("first-1"))
	var no reporter.Rejection
	if err != nil || json.Unmarshal(status, &no) != nil || no.State != reporter.StateRejected || no.Requester != "ada" || no.Asked.IsZero() || len(no.Problems) != 2 {
		t.Errorf("status: %s, %v", status, err)
	}
	for _, other := range []string{"first-2", "unanswered-3", "other-1", "first-99", "first"} {
		if status, err := w.buses[event.Injector].Call(t.Context(), "status", []byte(other)); err == nil {
			t.Errorf("status of %s: %s", other, status)
		}
	}
}

// TestAbortingIsSaid wherever a drill's state is: it does not go on.
func TestAbortingIsSaid(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	ds := drafts("aborted")
	i := slices.IndexFunc(ds, func(d synthetic.Timed) bool { return d.Type == event.TypeAbortRequested })
	for _, x := range []struct {
		state  string
		events []synthetic.Timed
	}{{"running", ds[:i]}, {"aborting", ds[i : i+1]}} {
		w.write("live-7", x.events)
		for _, path := range []string{"/v1/drills", "/v1/drills/live-7"} {
			if _, body, _ := c.do("GET", path, ""); !strings.Contains(body, `"state": "`+x.state+`"`) {
				t.Errorf("%s: %.400s, want %s", path, body, x.state)
			}
		}
	}
}

// TestPostWhileHalted: the one who asks learns at once that nothing will happen,
// why, and what to do about it; and nothing is stored that would be rejected.
func TestPostWhileHalted(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	if err := w.buses[event.Injector].SetHalt(t.Context(), bus.Halt{Halted: true, By: "ada", Reason: "<sale> & stock-taking"}); err != nil {
		t.Fatal(err)
	}
	code, body, _ := c.do("POST", "/v1/drills", smallDrill)
	for _, want := range []string{"halted by ada", "<sale> & stock-taking", "firedrill halt --release"} {
		if code != http.StatusConflict || !strings.Contains(body, want) {
			t.Errorf("halted: %d %s, want 409 with %q", code, body, want)
		}
	}
	if code, body, _ := c.do("POST", "/v1/drills", "nothing"); code != http.StatusBadRequest {
		t.Errorf("what is no drill, while halted: %d %s", code, body)
	}
	undo := `{"apiVersion":"firedrill/v1","kind":"Undo","metadata":{"name":"undo"},"spec":{"drill":"orders-7"}}`
	if code, body, _ := c.do("POST", "/v1/drills", undo); code != http.StatusAccepted || !strings.Contains(body, `"drill": "undo-`) {
		t.Errorf("putting something back, while halted: %d %s", code, body)
	}
	if err := w.buses[event.Injector].SetHalt(t.Context(), bus.Halt{By: "ada"}); err != nil {
		t.Fatal(err)
	}
	if code, body, _ := c.do("POST", "/v1/drills", smallDrill); code != http.StatusAccepted || !strings.Contains(body, `"drill": "small-2"`) {
		t.Errorf("released: %d %s, want the request after the one to undo", code, body)
	}
}

func TestPostDrillRefusals(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	for name, x := range map[string]struct {
		body, path string
		header     []string
		code       int
		want       string
	}{
		"not a drill":  {body: "hello", code: 400, want: `"fix"`},
		"not escaped":  {body: strings.Replace(smallDrill, "driver: postgres", "driver: <x>", 1), code: 400, want: `<x>`},
		"empty":        {body: "", code: 400, want: `"fix"`},
		"wrong field":  {body: strings.Replace(smallDrill, "rto: 30s", "rto: soon", 1), code: 400, want: "spec.phases[0].objective.rto"},
		"too large":    {body: smallDrill + strings.Repeat("# x\n", 200_000), code: 413, want: "bytes"},
		"bad who":      {body: smallDrill, path: "?who=a.b", code: 400, want: `"field": "who"`},
		"wildcard":     {body: smallDrill, path: "?who=%3E", code: 400, want: `"field": "who"`},
		"bad key":      {body: smallDrill, header: []string{"Idempotency-Key", strings.Repeat("k", 200)}, code: 400, want: "Idempotency-Key"},
		"no token":     {body: smallDrill, header: []string{"Authorization", ""}, code: 401, want: "Authorization"},
		"wrong token":  {body: smallDrill, header: []string{"Authorization", "Bearer " + token + "x"}, code: 401, want: "Authorization"},
		"wrong scheme": {body: smallDrill, header: []string{"Authorization", token}, code: 401, want: "Authorization"},
	} {
		code, body, _ := c.do("POST", "/v1/drills"+x.path, x.body, x.header...)
		if code != x.code || !strings.Contains(body, x.want) || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %s, want %d with %q", name, code, body, x.code, x.want)
		}
	}
	if strings.Contains(c.log.String(), token) {
		t.Error("the token is in the log")
	}
}

func TestReads(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	w.write("orders-failover-7", drafts("pass"))
	w.published("orders-failover-7")
	w.write("orders-missing-7", drafts("missing")[:70])
	for path, want := range map[string][]string{
		"/healthz":                     {"ok"},
		"/readyz":                      {"ready"},
		"/":                            {"orders-failover-7/report.html", "PASS", "running"},
		"/v1/drills":                   {`"drill": "orders-failover-7"`, `"state": "published"`, `"verdict": "PASS"`, `"state": "running"`},
		"/v1/drills/orders-failover-7": {`"state": "published"`, "/report.html"},
		"/v1/drills/orders-missing-7":  {`"state": "running"`, `"phase": "kill-sync"`},
		"/v1/drills/orders-failover-7/report.json":            {`"verdict": "PASS"`},
		"/v1/drills/orders-failover-7/report.md":              {"## Executive Summary"},
		"/v1/drills/orders-failover-7/report.html":            {"<svg class=\"timeline\""},
		"/v1/drills/orders-failover-7/report.xml":             {"<testsuites"},
		"/v1/drills/orders-failover-7/" + reporter.FileEvents: {`"type":"drill.finished"`},
		"/v1/drills/orders-missing-7/report.html":             {"RUNNING"},
	} {
		code, body, _ := c.do("GET", path, "")
		if code != http.StatusOK {
			t.Errorf("GET %s: %d %.200s", path, code, body)
		}
		for _, x := range want {
			if !strings.Contains(body, x) {
				t.Errorf("GET %s: no %q in %.400s", path, x, body)
			}
		}
	}
	for path, code := range map[string]int{"/v1/drills/none-1": 404, "/v1/drills/a%20b": 404, "/v1/drills/none-1/events": 404, "/v1/drills/orders-failover-7/report.pdf": 404, "/v2": 404} {
		if got, body, _ := c.do("GET", path, ""); got != code {
			t.Errorf("GET %s: %d %s, want %d", path, got, body, code)
		}
	}
	for _, path := range []string{"/", "/v1/drills", "/v1/drills/orders-failover-7", "/v1/drills/orders-failover-7/report.html", "/v1/drills/orders-failover-7/events"} {
		if code, _, _ := c.do("GET", path, "", "Authorization", ""); code != http.StatusUnauthorized {
			t.Errorf("GET %s without the token: %d", path, code)
		}
	}
}

func TestPublicReads(t *testing.T) {
	w := newWorld(t)
	c := w.http(func(rc *reporter.Config) { rc.Token, rc.PublicReads = "", true })
	if code, _, _ := c.do("GET", "/v1/drills", "", "Authorization", ""); code != http.StatusOK {
		t.Errorf("a public read: %d", code)
	}
	for _, header := range []string{"", "Bearer ", "Bearer x"} {
		if code, _, _ := c.do("POST", "/v1/drills", smallDrill, "Authorization", header); code != http.StatusUnauthorized {
			t.Errorf("a drill asked for with %q of a reporter without a token: %d", header, code)
		}
	}
}

func TestNoTokenNoServer(t *testing.T) {
	w := newWorld(t)
	err := reporter.Run(t.Context(), reporter.Config{Bus: w.buses[event.Reporter], Log: quiet(), Keyring: w.ring, HTTP: listen(t)})
	if err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("Run without a token: %v", err)
	}
}

// TestEvents reads the stream while the drill goes on, loses the connection, and
// goes on where it was: every event once, in order, until the report.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	c := w.http(nil)
	all := drafts("aborted")
	w.write("orders-abort-7", all[:20])
	ids, last := c.events("orders-abort-7", "", 20)
	if len(ids) != 20 || last != "20" {
		t.Fatalf("first %d events, last %s", len(ids), last)
	}
	done := make(chan []string, 1)
	go func() {
		more, _ := c.events("orders-abort-7", last, 1000)
		done <- more
	}()
	w.write("orders-abort-7", all[20:])
	select {
	case more := <-done:
		if want := len(all) - 20 + 1; len(more) != want || more[len(more)-1] != string(event.TypeReportPublished) {
			t.Errorf("%d more events ending in %q, want %d ending in the report", len(more), more[len(more)-1], want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the stream did not end with the report")
	}
}

// events reads up to n events and returns their types, and the last one's id.
func (c *client) events(drill, after string, n int) (types []string, last string) {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", c.base+"/v1/drills/"+drill+"/events", nil)
	if err != nil {
		c.t.Error(err)
		return nil, ""
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Last-Event-ID", after)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Error(err)
		return nil, ""
	}
	defer res.Body.Close()
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 1<<20)
	for len(types) < n && in.Scan() {
		if id, ok := strings.CutPrefix(in.Text(), "id: "); ok {
			last = id
		}
		if kind, ok := strings.CutPrefix(in.Text(), "event: "); ok {
			types = append(types, kind)
		}
	}
	return types, last
}

// TestStopWithOpenStream: a stream that nobody ends must not hold up the end.
func TestStopWithOpenStream(t *testing.T) {
	w := newWorld(t)
	l := listen(t)
	stop := w.run(func(rc *reporter.Config) { rc.HTTP, rc.PublicReads = l, true })
	w.write("open-1", synthetic.Variants()["aborted"].Drafts()[:5])
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+"/v1/drills/open-1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	if _, err := res.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("stopping took %v", took)
	}
}
