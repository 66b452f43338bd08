package canary_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFull = errors.New("all are in use")

func ok() target.Outcome { return target.Outcome{Result: target.OK} }

// kinds are the two ways of making an attempt.
func kinds() map[string]func(*canary.Lane, context.Context, func() target.Outcome) target.Outcome {
	return map[string]func(*canary.Lane, context.Context, func() target.Outcome) target.Outcome{
		"in line": (*canary.Lane).Do,
		"detached": func(l *canary.Lane, ctx context.Context, f func() target.Outcome) target.Outcome {
			return l.DoDetached(ctx, "the server", f)
		},
	}
}

// held is an attempt that lasts until it is released.
type held struct {
	begun, release chan struct{}
	out            chan target.Outcome
}

func hold(ctx context.Context, do func(*canary.Lane, context.Context, func() target.Outcome) target.Outcome, l *canary.Lane) held {
	h := held{make(chan struct{}), make(chan struct{}), make(chan target.Outcome, 1)}
	go func() {
		h.out <- do(l, ctx, func() target.Outcome {
			close(h.begun)
			<-h.release
			return ok()
		})
	}()
	<-h.begun
	return h
}

func wantFailed(t *testing.T, o target.Outcome, err error) {
	t.Helper()
	if o.Result != target.Failed || !errors.Is(o.Err, err) {
		t.Errorf("%+v, want %v", o, err)
	}
}

func wantUnsent(t *testing.T, o target.Outcome, err error) {
	t.Helper()
	if o.Result != target.Unsent || !errors.Is(o.Err, err) {
		t.Errorf("%+v, want it unsent for %v", o, err)
	}
}

// wantFull: an attempt that found no slot is unsent, or has failed where those under way may
// hang for good.
func wantFull(t *testing.T, kind string, o target.Outcome) {
	t.Helper()
	want := map[string]byte{"in line": target.Unsent, "detached": target.Failed}[kind]
	if o.Result != want || !errors.Is(o.Err, errFull) {
		t.Errorf("%s: %+v, want %c for %v", kind, o, want, errFull)
	}
}

func TestALaneHasSlots(t *testing.T) {
	for name, do := range kinds() {
		t.Run(name, func(t *testing.T) {
			var b canary.Book
			l := b.Open(canary.LaneOptions{Slots: 2, Full: errFull})
			one, two := hold(t.Context(), do, l), hold(t.Context(), do, l)
			wantFull(t, name, do(l, t.Context(), ok))
			close(one.release)
			if o := <-one.out; o.Result != target.OK {
				t.Errorf("%+v", o)
			}
			// A detached attempt's slot comes free a moment after its outcome.
			for do(l, t.Context(), ok).Result != target.OK {
				if name == "in line" {
					t.Fatal("the slot is not free")
				}
			}
			close(two.release)
			<-two.out
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNothingIsSentWhenItIsTooLate(t *testing.T) {
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	for name, do := range kinds() {
		t.Run(name, func(t *testing.T) {
			var b canary.Book
			l := b.Open(canary.LaneOptions{Slots: 1, Full: errFull})
			sent := func() target.Outcome { t.Error("sent"); return ok() }
			wantUnsent(t, do(l, ctx, sent), context.Canceled)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			wantUnsent(t, do(l, t.Context(), sent), canary.ErrClosed)
		})
	}
}

func TestCloseWaitsForAttempts(t *testing.T) {
	for name, do := range kinds() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b canary.Book
				dropped := make(chan struct{}, 1)
				l := b.Open(canary.LaneOptions{Slots: 1, Full: errFull, Drop: func() { dropped <- struct{}{} }})
				h := hold(t.Context(), do, l)
				closed := make(chan error, 1)
				go func() { closed <- l.Close() }()
				<-dropped
				synctest.Wait() // it has gone as far as it can
				select {
				case err := <-closed:
					t.Fatalf("it is closed while an attempt is under way: %v", err)
				default:
				}
				if !l.Closed() {
					t.Error("it takes more attempts")
				}
				close(h.release)
				if err := <-closed; err != nil {
					t.Error(err)
				}
				if o := <-h.out; o.Result != target.OK {
					t.Errorf("%+v", o)
				}
			})
		})
	}
}

// TestAnAttemptThatHangsHasItsSlot: long after it was given up.
func TestAnAttemptThatHangsHasItsSlot(t *testing.T) {
	var b canary.Book
	l := b.Open(canary.LaneOptions{Slots: 1, Full: errFull})
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	h := hold(ctx, kinds()["detached"], l)
	cancel(late)
	if o := <-h.out; o.Result != target.Unknown || !errors.Is(o.Err, late) || o.Err.Error() != "the server did not answer: too late" {
		t.Errorf("%+v", o)
	}
	wantFailed(t, l.DoDetached(t.Context(), "the server", ok), errFull)
	if err := l.Close(); err != nil { // it waits for no such attempt
		t.Error(err)
	}
	close(h.release)
}

func TestAClosedBookHasNoOpenLanes(t *testing.T) {
	var b canary.Book
	var dropped atomic.Int64
	o := canary.LaneOptions{Slots: 1, Full: errFull, Drop: func() { dropped.Add(1) }}
	kept, shut := b.Open(o), b.Open(o)
	if err := shut.Close(); err != nil || dropped.Load() != 1 {
		t.Fatalf("%d dropped, %v", dropped.Load(), err)
	}
	h := hold(t.Context(), (*canary.Lane).Do, kept)
	b.Close() // it waits for no attempt
	if dropped.Load() != 2 {
		t.Errorf("%d dropped: what is closed is closed again, or what is open is not", dropped.Load())
	}
	wantUnsent(t, kept.Do(t.Context(), ok), canary.ErrClosed)
	wantUnsent(t, b.Open(o).Do(t.Context(), ok), canary.ErrClosed)
	close(h.release)
	if o := <-h.out; o.Result != target.OK {
		t.Errorf("%+v", o)
	}
	b.Close()
	if err := kept.Close(); err != nil {
		t.Error(err)
	}
}

func TestALaneMayKeepNothing(t *testing.T) {
	var b canary.Book
	l := b.Open(canary.LaneOptions{Full: errFull})
	wantFailed(t, l.Do(t.Context(), failed), errGone)
	if o := l.Do(t.Context(), ok); o.Result != target.OK {
		t.Errorf("no slot at all: %+v", o)
	}
}

var errGone = errors.New("gone")

func failed() target.Outcome { return target.Outcome{Result: target.Failed, Err: errGone} }

// TestWhatIsKeptIsDroppedAfterAFailure: whatever an attempt came to but ok, also one that
// was given up or panicked.
func TestWhatIsKeptIsDroppedAfterAFailure(t *testing.T) {
	var b canary.Book
	n := 0
	l := b.Open(canary.LaneOptions{Slots: 2, Drop: func() { n++ }})
	for _, c := range []struct {
		what  string
		make  func()
		drops int
	}{
		{"ok", func() { l.Do(t.Context(), ok) }, 0},
		{"failed", func() { l.Do(t.Context(), failed) }, 1},
		{"failed again", func() { l.Do(t.Context(), failed) }, 1},
		{"unknown", func() { l.Do(t.Context(), func() target.Outcome { return target.Outcome{Result: target.Unknown} }) }, 1},
		{"held back", func() { l.Do(t.Context(), func() target.Outcome { return target.Outcome{Result: target.Unsent} }) }, 0},
		{"panicked", func() {
			defer func() { _ = recover() }()
			l.Do(t.Context(), func() target.Outcome { panic("no server") })
		}, 1},
		{"failed, detached", func() { l.DoDetached(t.Context(), "the server", failed) }, 1},
		{"given up", func() {
			ctx, cancel := context.WithCancel(t.Context())
			h := hold(ctx, kinds()["detached"], l)
			cancel()
			<-h.out
			close(h.release)
		}, 1},
		{"ok at last", func() { l.DoDetached(t.Context(), "the server", ok) }, 0},
	} {
		n = 0
		if c.make(); n != c.drops || l.Closed() {
			t.Errorf("%s: dropped %d times, want %d; closed: %t", c.what, n, c.drops, l.Closed())
		}
	}
}

// TestEachFailureDrops, also of those that overlap: what came back between them may have
// been made before the last one began.
func TestEachFailureDrops(t *testing.T) {
	for kind, do := range kinds() {
		var b canary.Book
		n := 0
		l := b.Open(canary.LaneOptions{Slots: 2, Full: errFull, Drop: func() { n++ }})
		fail := func(l *canary.Lane, ctx context.Context, wait func() target.Outcome) target.Outcome {
			return do(l, ctx, func() target.Outcome { wait(); return failed() })
		}
		first, second := hold(t.Context(), fail, l), hold(t.Context(), fail, l)
		wantFull(t, kind, do(l, t.Context(), ok))
		for i, h := range []held{first, second} {
			close(h.release)
			wantFailed(t, <-h.out, errGone)
			refused := map[string]int{"detached": 1}[kind]
			if n != refused+i+1 {
				t.Errorf("%s: dropped %d times after %d failures", kind, n, i+1)
			}
		}
	}
}

// TestLanesAreUsedAtOnce is for the race detector: all that may happen at once does, and
// no more attempts are under way than there are slots, none after Close.
func TestLanesAreUsedAtOnce(t *testing.T) {
	const slots = 3
	var b canary.Book
	var wg sync.WaitGroup
	for range 4 {
		l := b.Open(canary.LaneOptions{Slots: slots, Full: errFull, Drop: func() {}})
		var under atomic.Int64
		var over atomic.Bool
		for range 8 {
			wg.Go(func() {
				for range 200 {
					o := l.Do(t.Context(), func() target.Outcome {
						if n := under.Add(1); n > slots || over.Load() {
							t.Errorf("%d attempts are under way, the lane is over: %t", n, over.Load())
						}
						under.Add(-1)
						return ok()
					})
					if o.Err != nil && !errors.Is(o.Err, errFull) && !errors.Is(o.Err, canary.ErrClosed) {
						t.Error(o.Err)
					}
				}
			})
		}
		wg.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			over.Store(true)
		})
	}
	wg.Go(b.Close)
	wg.Wait()
}
