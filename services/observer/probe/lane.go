// Package probe makes attempts at a target on a fixed schedule and keeps what
// became of each one.
//
// A lane is open-loop: its slots lie at absolute moments of the monotonic clock
// and are never delayed by the attempt before, so that a hang shows as the many
// attempts it really cost (no coordinated omission). An attempt is never
// retried, and each has a sequence number of its own.
package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// ErrStuck is returned by Stop when attempts did not return although their
// context ended and the probe was closed. Their goroutines are left behind.
var ErrStuck = errors.New("attempts did not return after the probe was closed")

// Config describes a lane. All fields but FirstSeq and AskExtra are required.
type Config struct {
	// Probe makes the attempts; Stop closes it.
	Probe target.Probe
	Clock target.Clock
	// Interval is the distance between slots.
	Interval time.Duration
	// Deadline is D, the longest that an attempt may take.
	Deadline time.Duration
	// FirstSeq is the first attempt's sequence number; 0 means 1.
	FirstSeq int64
	// AskExtra asks another lane for an extra attempt: at once when an attempt is
	// bad after one was good, and from then on halfway between any two slots, as
	// long as attempts fail at once. Attempts that the target takes pains over are
	// not made more. It must not block.
	AskExtra func()
}

// Record is an attempt with what only the observer needs of it.
type Record struct {
	verdict.Attempt
	// Deadline is the D that was in force.
	Deadline time.Duration
	// Err is the driver's error text, clipped; empty when the attempt was ok.
	Err string
}

// Lane makes attempts until it is stopped. Its methods are safe for concurrent use.
type Lane struct {
	c      Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // attempts whose driver has not returned
	once   sync.Once
	err    error

	mu       sync.Mutex
	timer    *time.Timer // runs fire at the next slot
	halfway  *time.Timer // runs AskExtra, nil until it did once
	stopped  bool
	interval int64
	deadline time.Duration
	next     int64 // the next slot
	last     int64 // the last slot issued
	seq      int64 // the last sequence number issued
	flying   int   // attempts whose driver has not returned
	slots    []slot
	turn     turn
}

// slot is an attempt that was not taken yet.
type slot struct {
	Record
	settled bool
}

// turn remembers what the reactions to a bad attempt depend on.
type turn struct {
	down    bool
	badFrom int64 // start of the latest bad attempt
}

// Start begins to make attempts at once. The lane's attempts end with ctx; Stop
// must be called all the same.
func Start(ctx context.Context, c Config) *Lane {
	l := &Lane{c: c, interval: int64(c.Interval), deadline: c.Deadline, seq: max(c.FirstSeq, 1) - 1}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.mu.Lock() // fire must not run before there is a timer to set anew
	defer l.mu.Unlock()
	l.next = l.now()
	l.timer = time.AfterFunc(0, l.fire)
	return l
}

func (l *Lane) now() int64 { return l.c.Clock.Now().Mono }

// fire issues the slots that are due, sets the timer for the next one, and then
// makes the attempt itself: that saves handing each attempt over to a goroutine,
// whose start wakes a thread. The runtime's timer is late by less than a thread of
// its own in clock_nanosleep is (p99 2.1 ms against 3.9 ms on a loaded 2-core
// machine), at a fifth of the CPU.
func (l *Lane) fire() {
	todo := l.due()
	if len(todo) == 0 {
		return
	}
	l.launch(todo[1:])
	l.attempt(todo[0])
}

// flight is an attempt that was issued and is still to be made.
type flight struct {
	seq      int64
	deadline time.Duration
}

func (l *Lane) launch(todo []flight) {
	for _, f := range todo {
		go l.attempt(f)
	}
}

// due issues what is due and sets the timer, unless the lane has ended.
func (l *Lane) due() []flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.ctx.Err() != nil {
		return nil
	}
	now := l.now()
	todo := l.issueDue(now)
	l.expire(now)
	l.timer.Reset(time.Duration(l.next - now))
	return todo
}

// issueDue issues every slot up to now and returns the attempts to be made. Slots
// that the process slept through are issued late, never left out: their lateness
// is the run's jitter.
func (l *Lane) issueDue(now int64) []flight {
	var todo []flight
	for l.next <= now {
		todo = l.issue(todo, verdict.Attempt{Scheduled: l.next, Started: now})
		l.last = l.next
		l.next += l.interval
	}
	return todo
}

// issue numbers an attempt and adds it to those to be made, or records it as skipped
// when too many are under way.
func (l *Lane) issue(todo []flight, a verdict.Attempt) []flight {
	l.seq++
	a.Seq, a.Completed, a.Outcome = l.seq, a.Started, verdict.Unknown
	s := slot{Record: Record{Deadline: l.deadline, Attempt: a}}
	if l.flying >= l.maxFlying() {
		s.settled = true
		s.Started, s.Completed, s.Outcome = s.Scheduled, s.Scheduled, verdict.Skipped
		s.Err = fmt.Sprintf("skipped: %d attempts under way", l.flying)
		l.slots = append(l.slots, s)
		return todo
	}
	l.slots = append(l.slots, s)
	l.flying++
	l.wg.Add(1)
	return append(todo, flight{l.seq, l.deadline})
}

// maxFlying leaves twice the room that attempts need which all last until their
// deadline, so that only a driver that overruns it loses slots.
func (l *Lane) maxFlying() int { return 2*int(int64(l.deadline)/l.interval) + 8 }

func (l *Lane) attempt(f flight) {
	defer l.wg.Done()
	started := l.now() // first, so that one that ends with its time took all of it
	ctx, cancel := context.WithTimeout(l.ctx, f.deadline)
	defer cancel()
	o := call(ctx, l.c.Probe, f.seq)
	l.settle(f.seq, started, l.now(), o)
}

// call makes a driver's panic an unknown outcome: whether the write was done
// cannot be said.
func call(ctx context.Context, p target.Probe, seq int64) (o target.Outcome) {
	defer func() {
		if r := recover(); r != nil {
			o = target.Outcome{Result: target.Unknown, Err: fmt.Errorf("the driver panicked: %v", r)}
		}
	}()
	o = p.Attempt(ctx, seq)
	switch o.Result {
	case target.OK, target.Failed, target.Unknown, target.Unsent:
		return o
	}
	return target.Outcome{Result: target.Unknown, Err: fmt.Errorf("the driver returned outcome %q, want one of k, f, u, n", o.Result)}
}

func (l *Lane) settle(seq, started, completed int64, o target.Outcome) {
	l.mu.Lock()
	l.flying--
	s := l.find(seq)
	if s == nil || s.settled { // given up before: it stays unknown
		l.mu.Unlock()
		return
	}
	s.settled = true
	s.Started, s.Completed, s.Outcome = started, completed, verdict.Outcome(o.Result)
	s.Connected, s.Asked = o.Connected, min(max(0, int64(o.Asked)), completed-started)
	if o.Result == target.OK {
		s.Observed = o.Observed
	} else {
		s.Err = text(o.Err)
	}
	turned := l.turn.see(started, s.Bad())
	if s.Bad() && !turned {
		l.askHalfway(s.Attempt)
	}
	l.mu.Unlock()
	l.react(turned)
}

// askHalfway has another lane make an extra attempt between this slot and the next,
// unless the bad attempt took a while.
func (l *Lane) askHalfway(bad verdict.Attempt) {
	if l.c.AskExtra == nil || l.stopped || bad.Completed-bad.Started > l.interval/4 {
		return
	}
	in := time.Duration(bad.Scheduled + l.interval/2 - bad.Completed)
	switch {
	case in <= 0:
	case l.halfway == nil:
		l.halfway = time.AfterFunc(in, l.c.AskExtra)
	default:
		l.halfway.Reset(in)
	}
}

// see notes an attempt and says whether it turned the lane from good to bad. Only one
// that began after the latest bad one can tell that things are good again.
func (t *turn) see(started int64, bad bool) (turned bool) {
	if !bad {
		if started > t.badFrom {
			t.down = false
		}
		return false
	}
	turned = !t.down
	t.down = true
	t.badFrom = max(t.badFrom, started)
	return turned
}

func (l *Lane) react(turned bool) {
	if turned && l.c.AskExtra != nil {
		l.c.AskExtra()
	}
}

// expire gives up attempts whose driver does not return in spite of its context.
func (l *Lane) expire(now int64) {
	for i := range l.slots {
		s := &l.slots[i]
		if s.settled {
			continue
		}
		if now-s.Started < int64(s.Deadline+grace(s.Deadline)) {
			return // later slots began later
		}
		turned := l.giveUp(s, now)
		l.wg.Add(1) // the attempt given up keeps the group above zero
		go func() {
			defer l.wg.Done()
			l.react(turned)
		}()
	}
}

func (l *Lane) giveUp(s *slot, now int64) (turned bool) {
	s.settled = true
	s.Completed = now
	s.Outcome = verdict.Unknown
	s.Err = fmt.Sprintf("the driver did not return by the deadline of %v", s.Deadline)
	return l.turn.see(s.Started, true)
}

// grace is what an attempt gets to return after its context ended.
func grace(d time.Duration) time.Duration { return max(d/2, 100*time.Millisecond) }

func (l *Lane) find(seq int64) *slot {
	if len(l.slots) == 0 {
		return nil
	}
	if i := seq - l.slots[0].Seq; i >= 0 && i < int64(len(l.slots)) {
		return &l.slots[i]
	}
	return nil
}

// Extra makes an attempt now, besides the schedule.
func (l *Lane) Extra() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	now := l.now()
	todo := l.issueDue(now) // keeps sequence numbers in the order of the schedule
	l.launch(l.issue(todo, verdict.Attempt{Scheduled: now, Started: now, Extra: true}))
}

// SetInterval changes the distance between slots, counted from the last one.
func (l *Lane) SetInterval(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.interval == int64(d) {
		return
	}
	l.interval = int64(d)
	if l.seq > 0 && l.last > 0 {
		l.next = max(l.last+l.interval, l.now())
	}
	if !l.stopped {
		l.timer.Reset(time.Duration(l.next - l.now()))
	}
}

// SetDeadline changes D for the attempts to come.
func (l *Lane) SetDeadline(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = d
}

// Deadline is the D in force.
func (l *Lane) Deadline() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

// LastSeq is the highest sequence number issued so far.
func (l *Lane) LastSeq() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Take moves the settled attempts to dst, in order and without a gap, up to the
// first one that is still under way.
func (l *Lane) Take(dst []Record) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(l.now())
	n := 0
	for n < len(l.slots) && l.slots[n].settled {
		dst = append(dst, l.slots[n].Record)
		n++
	}
	rest := copy(l.slots, l.slots[n:])
	clear(l.slots[rest:])
	l.slots = l.slots[:rest]
	return dst
}

// Stop ends the schedule, waits until the attempts under way are over (at most
// their deadline, or until ctx ends), and closes the probe. Take afterwards
// returns all that was left. A second call waits for the first.
func (l *Lane) Stop(ctx context.Context) error {
	l.once.Do(func() { l.err = l.shutDown(ctx) })
	return l.err
}

func (l *Lane) shutDown(ctx context.Context) error {
	l.mu.Lock() // whoever issues attempts looks at stopped under the lock
	l.stopped = true
	l.timer.Stop()
	if l.halfway != nil {
		l.halfway.Stop()
	}
	l.mu.Unlock()
	returned := make(chan struct{})
	go func() { l.wg.Wait(); close(returned) }()
	d := l.Deadline()
	wait(ctx, returned, d+grace(d))
	l.cancel()
	closed := make(chan error, 1)
	go func() { closed <- guard(l.c.Probe.Close) }()
	var err error
	select {
	case err = <-closed:
	case <-time.After(closeWait):
		err = fmt.Errorf("close the probe: no answer in %v", closeWait)
	}
	stuck := !wait(context.WithoutCancel(ctx), returned, closeWait)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for i := range l.slots {
		if !l.slots[i].settled {
			l.giveUp(&l.slots[i], now)
		}
	}
	if stuck {
		return errors.Join(err, fmt.Errorf("%w: %d of them", ErrStuck, l.flying))
	}
	return err
}

const closeWait = 2 * time.Second

func wait(ctx context.Context, c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the driver panicked: %v", r)
		}
	}()
	return f()
}

// maxText keeps error texts small enough to ride in an event. What was tried stands
// at a text's beginning, and the cause at its end.
const (
	maxText  = 200
	headText = 60
)

func text(err error) string {
	if err == nil {
		return "no reason given"
	}
	s := strings.ToValidUTF8(err.Error(), "?")
	if len(s) <= maxText {
		return s
	}
	const cut = " … "
	head, tail := s[:headText], s[len(s)-(maxText-headText-len(cut)):]
	return strings.ToValidUTF8(head, "") + cut + strings.ToValidUTF8(tail, "")
}
