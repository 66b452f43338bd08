package minio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

func spec(name, probe, lane string) target.ProbeSpec {
	return target.ProbeSpec{Drill: testDrill, Probe: probe, Name: name, Lane: lane, Epoch: 1, Deadline: 250 * time.Millisecond}
}

func openProbe(t *testing.T, s *store, spec target.ProbeSpec) target.Probe {
	t.Helper()
	p, err := s.OpenProbe(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func attempt(ctx context.Context, p target.Probe, seq int64) target.Outcome {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	return p.Attempt(ctx, seq)
}

// attempts are the outcomes of an open loop, by number.
type attempts struct {
	mu       sync.Mutex
	outcomes map[int64]byte
	began    map[int64]event.Reading
	ended    map[int64]event.Reading
}

// openLoop makes an attempt every 10 ms until ctx ends, and waits for the last.
func openLoop(ctx context.Context, p target.Probe) *attempts {
	a := &attempts{outcomes: map[int64]byte{}, began: map[int64]event.Reading{}, ended: map[int64]event.Reading{}}
	c := clock.System()
	var wg sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for seq := int64(1); ; seq++ {
		select {
		case <-ctx.Done():
			wg.Wait()
			return a
		case <-tick.C:
		}
		wg.Go(func() {
			began := c.Now()
			o := attempt(context.WithoutCancel(ctx), p, seq)
			ended := c.Now()
			a.mu.Lock()
			defer a.mu.Unlock()
			a.outcomes[seq], a.began[seq], a.ended[seq] = o.Result, began, ended
		})
	}
}

func has(r event.Ranges, seq int64) bool {
	return slices.ContainsFunc(r, func(run [2]int64) bool { return run[0] <= seq && seq <= run[1] })
}

// TestKillIsMeasuredAndLosesNothing is a whole drill by the roles: steady, kill,
// start, stable, ledger.
func TestKillIsMeasuredAndLosesNothing(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan *attempts, 1)
	p := openProbe(t, s, spec("writes", ProbeWrite, target.LanePooled))
	go func() { results <- openLoop(ctx, p) }()
	reads := openProbe(t, s, target.ProbeSpec{Drill: testDrill, Probe: ProbeRead, Name: "reads", Lane: target.LaneFresh, Epoch: 1, Params: json.RawMessage(`{"of":"writes"}`)})
	eventually(t, "canaries to be read", func() error {
		if o := attempt(t.Context(), reads, 1); o.Result != target.OK || o.Observed < 20 {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	fault, op, record := do(t, s, "kill", FaultKill, nil)
	var atKill int64
	started, _, _ := do(t, s, "start", ActionStart, nil)
	eventually(t, "new canaries to be read", func() error {
		o := attempt(t.Context(), reads, 2)
		if atKill == 0 {
			atKill = o.Observed
		}
		if o.Result != target.OK || o.Observed < atKill+20 {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	cancel()
	a := <-results
	mend(t, s, op, record)

	held, err := s.ReadLedger(t.Context(), spec("writes", ProbeWrite, target.LanePooled), int64(len(a.outcomes)))
	if err != nil {
		t.Fatal(err)
	}
	count := map[byte]int{}
	recovered := 0
	var lastBad, firstOK event.Reading
	for seq := int64(1); seq <= int64(len(a.outcomes)); seq++ {
		o := a.outcomes[seq]
		count[o]++
		switch there := has(held.Present, seq); {
		case o == target.OK && !there:
			t.Errorf("canary %d was acknowledged and is lost", seq)
		case o == target.Failed && there:
			t.Errorf("canary %d was called failed and is there", seq)
		case o == target.Unknown && there:
			recovered++
		}
		if o != target.OK {
			lastBad, firstOK = a.began[seq], event.Reading{}
		} else if !lastBad.IsZero() && firstOK.IsZero() {
			firstOK = a.ended[seq]
		}
	}
	if len(held.Duplicates) > 0 || count[target.OK] < 40 || lastBad.IsZero() || firstOK.IsZero() {
		t.Fatalf("outcomes %v, duplicates %v, last bad %v, first ok %v", count, held.Duplicates, lastBad, firstOK)
	}
	low, high := time.Duration(lastBad.Mono-fault.Ended.Mono), time.Duration(firstOK.Mono-fault.Began.Mono)
	t.Logf("%d ok, %d failed, %d unknown (%d of them stored); recovered within [%v, %v], healthy after %v", count[target.OK], count[target.Failed],
		count[target.Unknown], recovered, low, high, time.Duration(started.Ended.Mono-fault.Began.Mono))
	if low < 0 || high < low {
		t.Errorf("recovery within [%v, %v]", low, high)
	}
	for _, check := range []string{CheckHealth, CheckWritable, CheckCanaries} {
		mustBe(t, s, check, event.ResultPass)
	}
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	err := target.Poll(t.Context(), 30*time.Second, 20*time.Millisecond, what, func(context.Context) (bool, string, error) {
		err := f()
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, s *store, check, want string) []event.Property {
	t.Helper()
	props, err := s.Check(t.Context(), target.CheckSpec{Drill: testDrill, Step: "check", Check: check, Name: check}, nil)
	if err != nil {
		t.Fatalf("check %s: %v", check, err)
	}
	if !slices.ContainsFunc(props, func(p event.Property) bool { return p.Result == want }) || want == event.ResultPass && len(props) == 0 {
		t.Errorf("check %s is not %s: %+v", check, want, props)
	}
	if want == event.ResultPass && slices.ContainsFunc(props, func(p event.Property) bool { return p.Result != want }) {
		t.Errorf("check %s: %+v", check, props)
	}
	return props
}

// TestLossesBehindTheServersBackAreFound: what nobody acknowledged a deletion of is
// lost, and what cannot be read whole is too.
func TestLossesBehindTheServersBackAreFound(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	for _, size := range []int{100, 200_000} { // inside xl.meta, and in a part
		for _, fault := range []string{FaultDeleteObject, FaultCorruptObject} {
			name := fmt.Sprintf("%s-%d", fault, size)
			t.Run(name, func(t *testing.T) {
				sp := spec(name, ProbeWrite, target.LanePooled)
				sp.Params = raw(t, map[string]any{"size": size})
				p := openProbe(t, s, sp)
				for seq := range int64(5) {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					if o := p.Attempt(ctx, seq+1); o.Result != target.OK {
						t.Fatalf("write %d: %+v", seq, o)
					}
					cancel()
				}
				_, op, record := do(t, s, name, fault, map[string]any{"key": r.root.tree().Name(sp.Ledger(), 5)})
				if held := r.ledger(t, s, sp); held.Present.Len() != 4 || has(held.Present, 5) {
					t.Errorf("held under the fault: %v", held.Present)
				}
				if fault == FaultCorruptObject {
					mustBe(t, s, CheckCanaries, event.ResultFail)
				}
				// As the process that wrote the canaries, and as another one.
				for _, s := range []*store{s, r.open(t)} {
					reads := openProbe(t, s, target.ProbeSpec{Drill: testDrill, Probe: ProbeRead, Name: "reads", Lane: target.LanePooled, Epoch: 1, Params: raw(t, map[string]any{"of": name})})
					o := attempt(t.Context(), reads, 1)
					if fault == FaultCorruptObject && (o.Result != target.Failed || o.Observed != 0) {
						t.Errorf("the damaged canary is read: %+v", o)
					}
					if fault == FaultDeleteObject && (o.Result != target.OK || o.Observed != 4) {
						t.Errorf("the stale read does not show: %+v", o)
					}
				}
				if got := mend(t, r.open(t), op, record); !strings.Contains(got, "put ") {
					t.Errorf("undo: %s", got)
				}
				if held := r.ledger(t, s, sp); held.Present.Len() != 5 {
					t.Errorf("held after the undo: %v", held.Present)
				}
				mustBe(t, s, CheckCanaries, event.ResultPass)
			})
		}
	}
	t.Run("a canary by the seed", func(t *testing.T) {
		_, op, record := do(t, s, "seeded", FaultDeleteObject, nil)
		if rec, err := readRecord(record); err != nil || !strings.HasPrefix(rec.Object.Key, s.tree().Drill(testDrill)+"/") {
			t.Errorf("%s, %v", record, err)
		}
		mend(t, s, op, record)
	})
}

func (r *rig) ledger(t *testing.T, s *store, sp target.ProbeSpec) target.Held {
	t.Helper()
	held, err := s.ReadLedger(t.Context(), sp, 100)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// TestFaultWithoutCanariesIsPlannedAndNotDone: a drill is planned before its probes begin. At
// its turn, or in a drill that writes none, it is refused before it is said to be done.
func TestFaultWithoutCanariesIsPlannedAndNotDone(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	for _, fault := range []string{FaultDeleteObject, FaultCorruptObject} {
		op := target.Operation{Drill: testDrill, Step: "x", Name: fault, Limit: time.Minute, Fence: 1}
		if _, err := s.Plan(t.Context(), op); err == nil || !strings.Contains(err.Error(), "write probe") {
			t.Errorf("%s is planned at its turn: %v", fault, err)
		}
		early := op
		early.CanariesToCome = true
		plan, err := s.Plan(t.Context(), early)
		if err != nil || len(plan.Parts) != 1 || plan.Parts[0].Labels["drive"] != r.drive() {
			t.Fatalf("%s: %+v, %v", fault, plan, err)
		}
		if _, err := s.Do(t.Context(), op, plan); err == nil || !strings.Contains(err.Error(), "write probe") {
			t.Errorf("%s is done: %v", fault, err)
		}
		if got := mend(t, s, op, plan.Undo); !strings.Contains(got, "nothing was to be done") {
			t.Errorf("undo of %s: %s", fault, got)
		}
	}
}

// TestUndoLeavesNewerObjectsAlone: somebody has mended what the fault broke.
func TestUndoLeavesNewerObjectsAlone(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	for _, fault := range []string{FaultDeleteObject, FaultCorruptObject} {
		_, op, record := do(t, s, fault, fault, map[string]any{"key": "victims/small"})
		r.put(t, "victims/small", []byte("restored from a copy"))
		if got := mend(t, s, op, record); !strings.Contains(got, "left victims/small alone") {
			t.Error(got)
		}
		if got, err := get(t.Context(), r.root.users.client(), testBucket, "victims/small"); err != nil || string(got) != "restored from a copy" {
			t.Errorf("%s: %q, %v", fault, got, err)
		}
	}
}

func TestOnlyWhatIsAllowedCanBeBroken(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	r.put(t, "precious", []byte("x"))
	for name, params := range map[string]string{
		"another object":        `{"key":"precious"}`,
		"another drill's":       `{"key":"firedrill/test-01/x"}`,
		"a prefix's namesake":   `{"key":"victimsX/a"}`,
		"nothing there":         `{"key":"victims/none"}`,
		"a directory":           `{"key":"victims"}`,
		"a drive of others":     `{"key":"victims/small","drive":"/etc"}`,
		"a node of others":      `{"key":"victims/small","node":"z"}`,
		"a way out of a bucket": `{"key":"victims/../precious"}`,
	} {
		if p, err := s.Plan(t.Context(), target.Operation{Drill: testDrill, Step: "x", Name: FaultDeleteObject, Params: json.RawMessage(params)}); err == nil {
			t.Errorf("%s: planned: %+v", name, p)
		}
	}
	// A link on the drive leads elsewhere.
	if err := os.Symlink(filepath.Join(r.drive(), testBucket, "precious"), filepath.Join(r.drive(), testBucket, "victims", "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Plan(t.Context(), target.Operation{Drill: testDrill, Step: "x", Name: FaultDeleteObject, Params: json.RawMessage(`{"key":"victims/link"}`)}); err == nil {
		t.Error("a link is followed")
	}
	root := r.store(t, r.edit(t, func(c map[string]any) {
		c["user"], c["secretKey"] = r.AccessKey, map[string]any{"env": "FIREDRILL_TEST_ROOT"}
		c["admin"] = map[string]any{}
	}))
	root.admin = root.client
	if _, err := root.Plan(t.Context(), target.Operation{Drill: testDrill, Step: "x", Name: FaultReadOnly}); err == nil || !strings.Contains(err.Error(), "user of the store's own") {
		t.Errorf("the root user's rights are taken away: %v", err)
	}
}

// TestPoliciesChangedMeanwhileStay: the undo takes only the fault's own away then.
func TestPoliciesChangedMeanwhileStay(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	_, op, record := do(t, s, "ro", FaultReadOnly, nil)
	if err := r.root.setPolicies(t.Context(), testUser, "readwrite,"+undo.Token(testDrill, "ro")); err != nil {
		t.Fatal(err)
	}
	mend(t, s, op, record)
	if got, err := r.root.policiesOf(t.Context(), testUser); err != nil || got != "readwrite" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRightsComeBackRightAfterAStart: a server that has just started says that it is
// well, and knows neither policies nor who has them.
func TestRightsComeBackRightAfterAStart(t *testing.T) {
	r := startRig(t)
	_, op, record := do(t, r.open(t), "ro", FaultReadOnly, nil)
	to, err := neturl.Parse(r.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	passOn := httputil.ReverseProxy{Rewrite: func(q *httputil.ProxyRequest) {
		q.SetURL(to)
		q.Out.Host = q.In.Host // it is signed
	}}
	var asked atomic.Int64
	young := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case asked.Add(1) > 5:
			passOn.ServeHTTP(w, q)
		case strings.HasSuffix(q.URL.Path, "/user-info"):
			_, _ = io.WriteString(w, `{"status":"enabled"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"Code":"XMinioAdminNoSuchPolicy"}`)
		}
	}))
	t.Cleanup(young.Close)
	s := r.store(t, r.edit(t, func(c map[string]any) { c["endpoint"] = young.URL }))
	if got := mend(t, s, op, record); !strings.Contains(got, "gave user") {
		t.Errorf("undo: %s", got)
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAReplacedConductorIsRefused(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	old := target.Operation{Drill: testDrill, Step: "kill", Name: FaultKill, Fence: 1, Limit: time.Minute}
	p, err := s.Plan(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	newer := old
	newer.Fence = 2
	if _, err := s.Undo(t.Context(), newer, p.Undo); err != nil {
		t.Fatal(err)
	}
	pid := r.PID()
	if _, err := s.Do(t.Context(), old, p); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("the fault: %v", err)
	}
	if _, err := s.Undo(t.Context(), old, p.Undo); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("the undo: %v", err)
	}
	if err := r.healthy(t.Context()); err != nil || r.PID() != pid {
		t.Errorf("it was hit: %v", err)
	}
}

func TestAnotherStoreIsRefused(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	op := target.Operation{Drill: testDrill, Step: "kill", Name: FaultKill, Fence: 1, Limit: time.Minute}
	p, err := s.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := readRecord(p.Undo)
	if err != nil {
		t.Fatal(err)
	}
	rec.Deployment = "00000000-0000-0000-0000-000000000000"
	p.Undo = raw(t, rec)
	if _, err := s.Do(t.Context(), op, p); !errors.Is(err, ErrFence) {
		t.Errorf("the fault: %v", err)
	}
	if _, err := s.Undo(t.Context(), op, p.Undo); !errors.Is(err, ErrFence) {
		t.Errorf("the undo: %v", err)
	}
}

func TestCycleLeavesNothing(t *testing.T) {
	r := startRig(t)
	s := r.open(t)
	writes := openProbe(t, s, spec("writes", ProbeWrite, target.LanePooled))
	cycles := spec("cycles", ProbeCycle, target.LaneFresh)
	cycles.Params = json.RawMessage(`{"of":"writes"}`)
	p := openProbe(t, s, cycles)
	for seq := range int64(5) {
		if o := attempt(t.Context(), p, seq+1); o.Result != target.OK || o.Observed != seq {
			t.Fatalf("cycle %d: %+v", seq+1, o)
		}
		if o := attempt(t.Context(), writes, seq+1); o.Result != target.OK {
			t.Fatalf("write %d: %+v", seq+1, o)
		}
	}
	left := 0
	err := s.listCanaries(t.Context(), s.tree().Drill(testDrill)+"/", func(string, int64, int64) { left++ })
	if err != nil || left != 5 {
		t.Errorf("%d objects are left, want the 5 canaries: %v", left, err)
	}
}
