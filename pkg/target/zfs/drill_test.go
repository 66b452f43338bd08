package zfs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

func spec(name, probe, lane string) target.ProbeSpec {
	s := target.ProbeSpec{Drill: testDrill, Probe: probe, Name: name, Lane: lane, Epoch: 1, Deadline: time.Second}
	if probe != ProbeWrite {
		s.Params = json.RawMessage(`{"of":"writes"}`)
	}
	return s
}

func openProbe(t *testing.T, p *pool, spec target.ProbeSpec) target.Probe {
	t.Helper()
	l, err := p.OpenProbe(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func attempt(ctx context.Context, p target.Probe, seq int64) target.Outcome {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return p.Attempt(ctx, seq)
}

// write writes canaries from 1 to n and returns when they lie where they stay.
func (r *rig) write(t *testing.T, p *pool, n int64) target.ProbeSpec {
	t.Helper()
	s := spec("writes", ProbeWrite, target.LanePooled)
	l := openProbe(t, p, s)
	for seq := range n {
		if o := attempt(t.Context(), l, seq+1); o.Result != target.OK {
			t.Fatalf("write %d: %+v", seq+1, o)
		}
	}
	r.sync(t)
	return s
}

// attempts are the outcomes of an open loop.
type attempts struct {
	mu  sync.Mutex
	all []made
	// ended is closed after the last one.
	ended chan struct{}
}

type made struct {
	seq          int64
	outcome      byte
	began, ended event.Reading
}

// openLoop makes attempts until ctx ends.
func openLoop(ctx context.Context, p target.Probe, every time.Duration) *attempts {
	a := &attempts{ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		c := clock.System()
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for seq := int64(1); ; seq++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			wg.Go(func() {
				m := made{seq: seq, began: c.Now()}
				m.outcome = attempt(context.WithoutCancel(ctx), p, seq).Result
				m.ended = c.Now()
				a.mu.Lock()
				defer a.mu.Unlock()
				a.all = append(a.all, m)
			})
		}
	}()
	return a
}

// okSince reports whether an attempt that began after a moment was ok.
func (a *attempts) okSince(r event.Reading) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.all, func(m made) bool { return m.outcome == target.OK && m.began.Mono > r.Mono })
}

// wait waits for the last attempt, and returns all in order of their start.
func (a *attempts) wait() []made {
	<-a.ended
	slices.SortFunc(a.all, func(x, y made) int { return cmp.Compare(x.seq, y.seq) })
	return a.all
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	err := target.Poll(t.Context(), time.Minute, 20*time.Millisecond, what, func(context.Context) (bool, string, error) {
		err := f()
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, p *pool, name string, baseline json.RawMessage) []event.Property {
	t.Helper()
	spec := target.CheckSpec{Drill: testDrill, Step: "check", Check: name, Name: name}
	if name == CheckHealth {
		spec.Params = json.RawMessage(`{"settleSeconds":1}`)
	}
	props, err := p.Check(t.Context(), spec, baseline)
	if err != nil {
		t.Fatalf("check %s: %v", name, err)
	}
	return props
}

func mustPass(t *testing.T, p *pool, name string, baseline json.RawMessage) {
	t.Helper()
	props := check(t, p, name, baseline)
	if len(props) == 0 || slices.ContainsFunc(props, func(p event.Property) bool { return p.Result != event.ResultPass }) {
		t.Errorf("check %s: %+v", name, props)
	}
}

func mustNotPass(t *testing.T, p *pool, name, want string, baseline json.RawMessage) {
	t.Helper()
	if props := check(t, p, name, baseline); !slices.ContainsFunc(props, func(p event.Property) bool { return p.Result == want }) {
		t.Errorf("check %s is not %s: %+v", name, want, props)
	}
}

func (r *rig) baseline(t *testing.T, p *pool, name string) json.RawMessage {
	t.Helper()
	raw, err := p.Baseline(t.Context(), target.CheckSpec{Drill: testDrill, Step: "check", Check: name, Name: name})
	if err != nil || len(raw) == 0 {
		t.Fatalf("baseline of %s: %s, %v", name, raw, err)
	}
	return raw
}

// TestScrubFindsAndRepairsDamage is a whole drill by the roles: steady, damage, scrub,
// stable, ledger.
func TestScrubFindsAndRepairsDamage(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	scrubbed, settings := r.baseline(t, p, CheckScrub), r.baseline(t, p, CheckSettings)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writing := openLoop(ctx, openProbe(t, p, spec("writes", ProbeWrite, target.LanePooled)), 20*time.Millisecond)
	looking := openLoop(ctx, openProbe(t, p, spec("state", ProbePool, target.LaneFresh)), 100*time.Millisecond)
	reads := openProbe(t, p, spec("reads", ProbeRead, target.LaneFresh))
	eventually(t, "canaries to be read", func() error {
		if o := attempt(t.Context(), reads, 1); o.Result != target.OK || o.Observed < 20 {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	r.sync(t) // a drill would wait for it
	fault, op, record := do(t, p, "damage", FaultCorruptVdev, map[string]any{"canaries": 5})
	rec, err := readRecord(record)
	if err != nil || len(rec.Spots) == 0 || len(rec.Spots) > 5 {
		t.Fatalf("%+v, %v", rec, err)
	}
	if s, err := p.look(t.Context()); err != nil || s.state != online || len(s.damage) != len(rec.Spots) || strings.Contains(s.text, "unrecoverable") {
		t.Errorf("ZFS knows of the damage before the scrub, or it is not there: %v\n%s", err, s.text)
	}
	mustNotPass(t, p, CheckHealth, event.ResultFail, nil)
	mustNotPass(t, p, CheckScrub, event.ResultInconclusive, scrubbed)
	mended, _, _ := do(t, p, "scrub", ActionScrub, nil)
	if got := fmt.Sprint(mended.Details); !strings.Contains(got, "scrubbed pool tank") || !strings.Contains(got, "ONLINE 0 0 ") {
		t.Errorf("the scrub says %s", got)
	}
	eventually(t, "the pool to be seen well", func() error {
		if !looking.okSince(mended.Ended) {
			return errors.New("it was not yet")
		}
		return nil
	})
	cancel()
	measured, wrote := looking.wait(), writing.wait()
	if got := mend(t, p, op, record); !strings.Contains(got, "nothing was to be done") {
		t.Errorf("undo after the scrub: %s", got)
	}
	judgeRecovery(t, measured, fault)
	r.judgeLedger(t, p, wrote)
	mustPass(t, p, CheckHealth, nil)
	mustPass(t, p, CheckScrub, scrubbed)
	mustPass(t, p, CheckCanaries, nil)
	mustPass(t, p, CheckSettings, settings)
	r.undamaged(t, rec.Spots)
}

// judgeRecovery wants the outage of the pool's state to begin with the fault.
func judgeRecovery(t *testing.T, all []made, fault target.Effect) {
	t.Helper()
	var lastBad, firstOK event.Reading
	for _, m := range all {
		switch {
		case m.outcome != target.OK:
			lastBad, firstOK = m.began, event.Reading{}
			if m.ended.Mono < fault.Began.Mono {
				t.Errorf("attempt %d was bad before the fault", m.seq)
			}
		case !lastBad.IsZero() && firstOK.IsZero():
			firstOK = m.ended
		}
	}
	if lastBad.IsZero() || firstOK.IsZero() {
		t.Fatalf("of %d attempts the last bad one began %v, the first good one after it ended %v", len(all), lastBad, firstOK)
	}
	low, high := time.Duration(lastBad.Mono-fault.Ended.Mono), time.Duration(firstOK.Mono-fault.Began.Mono)
	t.Logf("found, repaired and cleared within [%v, %v]", low, high)
	if low < 0 || high < low {
		t.Errorf("recovery within [%v, %v]", low, high)
	}
}

func (r *rig) judgeLedger(t *testing.T, p *pool, wrote []made) {
	t.Helper()
	held, err := p.ReadLedger(t.Context(), spec("writes", ProbeWrite, target.LanePooled), int64(len(wrote)))
	if err != nil {
		t.Fatal(err)
	}
	ok := 0
	for _, m := range wrote {
		there := slices.ContainsFunc(held.Present, func(run [2]int64) bool { return run[0] <= m.seq && m.seq <= run[1] })
		if m.outcome == target.OK {
			ok++
		}
		if m.outcome == target.OK != there && m.outcome != target.Unknown {
			t.Errorf("canary %d: %c, and there: %v", m.seq, m.outcome, there)
		}
	}
	if ok < 40 || len(held.Duplicates) > 0 {
		t.Errorf("%d of %d writes were acknowledged, %v", ok, len(wrote), held.Duplicates)
	}
}

// undamaged checks the disks themselves: both hold what they held.
func (r *rig) undamaged(t *testing.T, spots []spot) {
	t.Helper()
	for _, vdev := range r.Vdevs("tank") {
		now, err := r.pool.readSpots(t.Context(), vdev, spots)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range spots {
			if sumOf(now[i]) != s.Sum {
				t.Errorf("%s at %d is not what it was", vdev, s.At)
			}
		}
	}
}

// TestDiskComesBack is a drill of a disk that was away while canaries were written.
func TestDiskComesBack(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	state := openProbe(t, p, spec("state", ProbePool, target.LanePooled))
	r.write(t, p, 5)
	_, op, record := do(t, p, "away", FaultOfflineVdev, nil)
	if o := attempt(t.Context(), state, 1); o.Result != target.Failed || !strings.Contains(o.Err.Error(), "DEGRADED") {
		t.Errorf("without a disk: %+v", o)
	}
	r.write(t, p, 200)
	do(t, p, "back", ActionOnline, nil)
	if o := attempt(t.Context(), state, 2); o.Result != target.OK || o.Observed != 200 {
		t.Errorf("with the disk: %+v", o)
	}
	if got := mend(t, p, op, record); !strings.Contains(got, "nothing was to be done") {
		t.Errorf("undo: %s", got)
	}
	// What it missed is on it now: the other one is not needed.
	do(t, p, "other", FaultOfflineVdev, map[string]any{"vdev": r.Vdevs("tank")[1]})
	mustPass(t, p, CheckCanaries, nil)
}

// TestBothSidesDamagedIsALoss: what no disk holds any more is lost, and nothing
// pretends otherwise.
func TestBothSidesDamagedIsALoss(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	s := r.write(t, p, 10)
	_, op, record := do(t, p, "damage", FaultCorruptVdev, map[string]any{"canaries": 3})
	rec, err := readRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range rec.Spots {
		if err := r.Damage("tank", 1, x.At-labelsBefore, x.Holds); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := p.ReadLedger(t.Context(), s, 10); err != nil || held.Present.Len() != 7 {
		t.Errorf("held: %v, %v", held.Present, err)
	}
	mustNotPass(t, p, CheckCanaries, event.ResultFail, nil)
	if d, err := p.Undo(t.Context(), op, record); err == nil {
		t.Errorf("the undo says that all is well: %v", d)
	}
	mustNotPass(t, p, CheckHealth, event.ResultFail, nil)
	if _, err := os.Stat(p.marker().File); err != nil {
		t.Errorf("the fault is forgotten: %v", err)
	}
}

// TestDamageOfWhatIsGoneIsNoDamage: the canaries were removed before the fault was
// undone.
func TestDamageOfWhatIsGoneIsNoDamage(t *testing.T) {
	r := startRig(t)
	p := r.open(t)
	r.write(t, p, 10)
	_, op, record := do(t, p, "damage", FaultCorruptVdev, nil)
	if err := p.DropLedgers(t.Context(), testDrill); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.sync(t) // what is freed is given away some time later
	}
	if got := mend(t, p, op, record); !strings.Contains(got, "scrubbed") || !strings.Contains(got, "holds nothing any more") {
		t.Errorf("undo: %s", got)
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}
