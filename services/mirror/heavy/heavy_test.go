package heavy_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/heavy"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("HEAVY_TEST_DIR"); dir != "" {
		hold(machine.Locks(dir))
	}
	goleak.VerifyTestMain(m)
}

// hold is a process that is at heavy work until it is killed.
func hold(locks machine.Locks) {
	w := heavy.Begin(context.Background(), heavy.Options{Locks: locks, By: "mirror other", Long: -1})
	if w.Pass(context.Background()) == nil {
		_, _ = os.Stdout.WriteString("it has the machine\n")
	}
	select {}
}

// site is a machine, on which work is begun that is told for whom it waits.
type site struct {
	t     *testing.T
	locks machine.Locks
}

// begin begins work; waits has for whom it waits, and "" once that is over.
func (s site) begin(ctx context.Context, by string, long time.Duration) (w *heavy.Work, waits chan string) {
	s.t.Helper()
	waits = make(chan string, 100)
	w = heavy.Begin(ctx, heavy.Options{Locks: s.locks, By: by, Long: long, Waits: func(first *machine.Head) {
		if first == nil {
			waits <- ""
			return
		}
		waits <- heavy.Reason(*first)
	}})
	s.t.Cleanup(w.End)
	return w, waits
}

func (s site) next(waits chan string, want string) {
	s.t.Helper()
	select {
	case got := <-waits:
		if got != want && (want == "" || !strings.HasPrefix(got, want+" has been at heavy work on this machine since 2")) {
			s.t.Fatalf("it was told %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatalf("it was not told %q", want)
	}
}

// passed has one go on.
func (s site) passed(w *heavy.Work) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.Pass(s.t.Context()) }()
	return done
}

func (s site) await(done <-chan error) {
	s.t.Helper()
	select {
	case err := <-done:
		if err != nil {
			s.t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatal("it does not go on")
	}
}

// One has the machine, until its end, and then who came to be heavy next.
func TestHeavyWorkIsDoneInItsOrder(t *testing.T) {
	s := site{t, machine.Locks(t.TempDir())}
	one, _ := s.begin(t.Context(), "one", -1)
	s.await(s.passed(one))
	two, twoWaits := s.begin(t.Context(), "two", -1)
	s.next(twoWaits, "one")
	three, threeWaits := s.begin(t.Context(), "three", time.Millisecond)
	s.next(threeWaits, "one")
	second, third := s.passed(two), s.passed(three)
	s.await(s.passed(one))
	one.End()
	s.next(twoWaits, "")
	s.await(second)
	s.next(threeWaits, "two")
	select {
	case err := <-third:
		t.Fatalf("the third goes on beside the second: %v", err)
	default:
	}
	two.End()
	s.next(threeWaits, "")
	s.await(third)
}

// What has not lasted yet asks for nothing, and leaves nothing.
func TestLightWorkAsksForNothing(t *testing.T) {
	s := site{t, machine.Locks(t.TempDir())}
	one, _ := s.begin(t.Context(), "one", -1)
	s.await(s.passed(one))
	light, waits := s.begin(t.Context(), "light", time.Hour)
	if err := light.Pass(t.Context()); err != nil || len(waits) > 0 {
		t.Errorf("%v, told %d times", err, len(waits))
	}
	one.End()
	left, err := filepath.Glob(filepath.Join(string(s.locks), "firedrill-heavy-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Who waits is let go when it is called off, at once, and keeps nobody waiting any more.
func TestWaitingIsCalledOff(t *testing.T) {
	s := site{t, machine.Locks(t.TempDir())}
	one, _ := s.begin(t.Context(), "one", -1)
	s.await(s.passed(one))
	ctx, cancel := context.WithCancel(t.Context())
	two, waits := s.begin(ctx, "two", -1)
	s.next(waits, "one")
	_, threeWaits := s.begin(t.Context(), "three", -1)
	s.next(threeWaits, "one")
	cancel()
	if err := two.Pass(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	two.End()
	if len(waits) > 0 {
		t.Errorf("it was told %q", <-waits)
	}
	one.End()
	s.next(threeWaits, "")
}

// A process that is killed has the machine no more.
func TestWhoDiedHasNothing(t *testing.T) {
	s := site{t, machine.Locks(t.TempDir())}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HEAVY_TEST_DIR="+string(s.locks))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	w, waits := s.begin(t.Context(), "next", -1)
	s.next(waits, "mirror other")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.await(s.passed(w))
	s.next(waits, "")
	_ = cmd.Wait() // it was killed
}

// Where nothing can be locked nobody waits.
func TestWhereNothingCanBeLocked(t *testing.T) {
	for _, locks := range []machine.Locks{"", machine.Locks(filepath.Join(t.TempDir(), "none"))} {
		s := site{t, locks}
		for range 2 {
			waits, why := make(chan *machine.Head, 9), make(chan error, 9)
			w := heavy.Begin(t.Context(), heavy.Options{Locks: locks, By: "a", Long: -1,
				Waits: func(first *machine.Head) { waits <- first }, Unlocked: func(err error) { why <- err }})
			t.Cleanup(w.End)
			s.await(s.passed(w))
			if len(waits) > 0 {
				t.Errorf("it waits for %v", <-waits)
			}
			if told := len(why); told == 1 != (locks != "") {
				t.Errorf("%q: it was told %d times why it waits for nobody", locks, told)
			}
		}
	}
}

// Who cannot look for whom it waits goes on waiting; after too long it says why it waits no
// more.
func TestWhoCannotLookWaitsForATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lock")
	gone := dir + " is elsewhere"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	s := site{t, machine.Locks(dir)}
	one, _ := s.begin(t.Context(), "one", -1)
	s.await(s.passed(one))
	begin := func(by string, blind time.Duration) (w *heavy.Work, told chan string) {
		told = make(chan string, 100)
		w = heavy.Begin(t.Context(), heavy.Options{Locks: s.locks, By: by, Long: -1, Waits: func(first *machine.Head) {
			said := ""
			if first != nil {
				said = heavy.Reason(*first)
			}
			told <- said
		}, Unlocked: func(why error) { told <- why.Error() }}.Blind(blind))
		t.Cleanup(w.End)
		return w, told
	}
	patient, waits := begin("patient", time.Hour)
	s.next(waits, "one")
	hasty, hastyWaits := begin("hasty", 2*time.Second)
	s.next(hastyWaits, "one")
	goesOn, second := s.passed(patient), s.passed(hasty)
	move(dir, gone)
	s.next(hastyWaits, "")
	if why := <-hastyWaits; !strings.Contains(why, dir) {
		t.Errorf("it was told %q", why)
	}
	s.await(second)
	select {
	case err := <-goesOn:
		t.Fatalf("it goes on beside the first: %v", err)
	default:
	}
	if len(waits) > 0 {
		t.Errorf("it was told %q", <-waits)
	}
	move(gone, dir)
	one.End()
	s.next(waits, "")
	s.await(goesOn)
}

// What a mirror says of itself decides, and else its limit.
func TestWhichMirrorsAreHeavy(t *testing.T) {
	s := site{t, machine.Locks(t.TempDir())}
	one, _ := s.begin(t.Context(), "one", -1)
	s.await(s.passed(one))
	yes, no := true, false
	for name, c := range map[string]struct {
		m           drill.Mirror
		never, soon bool
	}{
		"heavy":             {drill.Mirror{Heavy: &yes}, false, true},
		"heavy and limited": {drill.Mirror{Heavy: &yes, BytesPerSecond: 1}, false, true},
		"not heavy":         {drill.Mirror{Heavy: &no}, true, false},
		"limited":           {drill.Mirror{BytesPerSecond: 1}, true, false},
		"as it comes":       {drill.Mirror{}, false, false},
	} {
		waits := make(chan struct{}, 9)
		w := heavy.OfMirror(t.Context(), c.m, heavy.Options{Locks: s.locks, By: name, Long: time.Hour, Waits: func(*machine.Head) { waits <- struct{}{} }})
		if w == nil != c.never {
			t.Errorf("%s: it is never heavy: %t", name, w == nil)
		}
		if c.soon {
			<-waits
		} else if err := w.Pass(t.Context()); err != nil || len(waits) > 0 {
			t.Errorf("%s: it waits: %v", name, err)
		}
		w.End()
	}
}
