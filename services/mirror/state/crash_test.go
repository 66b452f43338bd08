package state_test

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// What makes the test binary the process that is to be killed, and what it notes;
// with no seed it does no more than to open the state.
const (
	victimDir  = "FIREDRILL_STATE_VICTIM"
	victimSeed = "FIREDRILL_STATE_SEED"
)

// step is what the victim does next: a note, or to forget a key, and then maybe
// more. It depends on nothing but its arguments.
type step struct {
	past                 plan.Past
	forget, sync, commit bool
}

func steps(seed uint64, i int) step {
	rng := rand.New(rand.NewPCG(seed, uint64(i)))
	key := fmt.Sprintf("d%d/f%03d", rng.IntN(5), rng.IntN(100))
	do := step{past: left(key, int64(seed)<<20+int64(i)), forget: rng.IntN(8) == 0}
	if seed%2 == 0 { // each is tried where most of the time goes into it
		do.sync, do.commit = rng.IntN(12) == 0, rng.IntN(150) == 0
	} else {
		do.sync, do.commit = rng.IntN(50) == 0, rng.IntN(4) == 0
	}
	return do
}

// victim notes until it is killed, and says how many notes were promised to be there.
func victim(dir, seed string) error {
	if _, err := fmt.Println("begin"); err != nil {
		return err
	}
	s, err := state.OpenSmall(dir)
	if err != nil || seed == "" {
		return err
	}
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		do := steps(n, i)
		if do.forget {
			err = s.Forget(do.past.Key)
		} else {
			err = s.Note(do.past)
		}
		if err == nil && do.commit {
			err = s.Commit()
		}
		if err == nil && do.sync {
			err = s.Sync()
		}
		if err == nil && (do.sync || do.commit) {
			_, err = fmt.Println(i + 1)
		}
		if err != nil {
			return err
		}
	}
}

// kill starts a victim, kills it some time after it has said so many lines, and
// gives the last of them.
func kill(t *testing.T, dir, seed string, lines int, after time.Duration) (last string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimSeed+"="+seed)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		last = scanner.Text()
		switch {
		case n == lines && after == 0:
			_ = cmd.Process.Kill() // it may have ended
		case n == lines:
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.Exited() && seed != "" {
		t.Fatalf("the victim was not killed: %v: %s", err, complaint.String())
	}
	return last
}

// after is what the notes of a victim make of a state: one outcome for each number
// of notes from synced to the next line that it would have said.
func after(base map[string]plan.Past, seed uint64, synced int) (outcomes []map[string]plan.Past) {
	now := maps.Clone(base)
	for i := 0; ; i++ {
		if i >= synced {
			outcomes = append(outcomes, maps.Clone(now))
		}
		do := steps(seed, i)
		if do.forget {
			delete(now, do.past.Key)
		} else {
			now[do.past.Key] = do.past
		}
		if i >= synced && (do.sync || do.commit) {
			return append(outcomes, now)
		}
	}
}

func TestAKilledProcessLosesNothingThatWasSynced(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	base := map[string]plan.Past{}
	total := 0
	for round := range uint64(30) {
		// Nearly all of its time goes into fsync. At once after a line it is killed
		// between them.
		wait := time.Duration(rng.IntN(2)*rng.IntN(2000)) * time.Microsecond
		last := kill(t, dir, strconv.FormatUint(round, 10), rng.IntN(40), wait)
		synced, err := strconv.Atoi(last)
		if err != nil && last != "begin" {
			t.Fatalf("the victim said %q", last)
		}
		if round%3 == 0 { // and while it merges what the other left
			kill(t, dir, "", 0, time.Duration(rng.IntN(1500))*time.Microsecond)
		}
		got, err := readAll(dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		possible := false
		for _, want := range after(base, round, synced) {
			possible = possible || reflect.DeepEqual(got, want)
		}
		if !possible {
			t.Fatalf("round %d: after %d synced notes the state holds %d records that no number of notes leaves", round, synced, len(got))
		}
		base = got
		total += synced
	}
	t.Logf("%d synced notes, %d records are left", total, len(base))
	if total == 0 {
		t.Error("the victims came to nothing")
	}
}
