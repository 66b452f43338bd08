package mirror

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
)

func sumOfFile(name string) (Sum, error) {
	raw, err := os.ReadFile(name)
	return Sum{Size: int64(len(raw)), MD5: md5.Sum(raw)}, err
}

// compete races runners in small cases; nothing of it may stay.
func compete(t *testing.T, rounds int, works []Work, runners ...Runner) (runs []Run) {
	t.Helper()
	bin, self := programs(t)
	var cases []Case
	for _, w := range works {
		cases = append(cases, Case{Name: string(w), Set: Set{"tiny", 6, 2, 3000}, Work: w, Hashed: true})
	}
	disk, ram := t.TempDir(), t.TempDir()
	err := Race(t.Context(), Options{
		Bin: bin, Self: self, Disk: disk, RAM: ram, Runners: runners, Servers: []Server{{Name: "ram"}}, Cases: cases, Rounds: rounds,
		Say: t.Logf, Took: func(r Run) error { runs = append(runs, r); return nil },
	})
	must(t, err)
	for _, dir := range []string{disk, ram} {
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) > 0 {
			t.Errorf("the race left %s behind", left[0].Name())
		}
	}
	return runs
}

func TestNobodyWinsWithoutDoingTheWork(t *testing.T) {
	const nothing Work = "nothing"
	honest := actor{name: "honest"}
	liar := actor{name: "liar", instead: map[Work]Work{Changed: nothing, Download: nothing, CheckHash: nothing, Unchanged: Upload}}
	works := []Work{Upload, Unchanged, Changed, Download, CheckHash}
	runs := compete(t, 2, works, honest, liar)
	if len(runs) != 2*len(works)*2 {
		t.Fatalf("%d runs, want %d", len(runs), 2*len(works)*2)
	}
	for _, r := range runs {
		lies := r.Contestant == "liar" && r.Case != string(Upload)
		// That it can find something is asked once.
		lies = lies && (r.Case != string(CheckHash) || r.Round == 1)
		if lies != strings.HasPrefix(r.Failure, ErrWrong.Error()) || !lies && r.Failure != "" {
			t.Errorf("%s %s round %d: failure %q", r.Contestant, r.Case, r.Round, r.Failure)
		}
		if r.Wall <= 0 || r.RSS <= 0 {
			t.Errorf("%s %s round %d was not measured: %+v", r.Contestant, r.Case, r.Round, r.Usage)
		}
	}
}

// What firedrill leaves, such as its keys, belongs to the race, wherever that is started.
func TestFiredrillLeavesNothingWhereItIsStarted(t *testing.T) {
	t.Setenv("FIREDRILL_BIN", built(t)) // which may be relative to here
	here := t.TempDir()
	t.Chdir(here)
	works := []Work{Upload, Unchanged, Changed, Download, CheckHash, CheckContent}
	for _, r := range compete(t, 1, works, firedrill{}) {
		if r.Failure != "" {
			t.Errorf("%s: %s", r.Case, r.Failure)
		}
	}
	left, err := os.ReadDir(here)
	must(t, err)
	for _, one := range left {
		t.Errorf("it left %s", one.Name())
	}
}

// mc and rclone are the real ones: what they write has to be what is read here.
func TestMCAndItsHashesCountTogether(t *testing.T) {
	runs := compete(t, 2, []Work{Upload, Download}, mcHash{})
	if len(runs) != 4 {
		t.Errorf("%d runs, want 4", len(runs))
	}
	for _, r := range runs {
		if r.Failure != "" {
			t.Errorf("%s: %s", r.Case, r.Failure)
		}
	}
}

// forgetful makes no hashes after its first upload.
type forgetful struct {
	mcHash
	calls *int
}

func (f forgetful) Steps(t Task) []Step {
	if *f.calls++; *f.calls > 1 {
		return f.mc.Steps(t)
	}
	return f.mcHash.Steps(t)
}

func TestNobodyWinsWithTheHashesOfAnEarlierRun(t *testing.T) {
	runs := compete(t, 1, []Work{Upload, Download}, forgetful{calls: new(int)})
	if len(runs) != 2 || runs[0].Failure != "" || !strings.Contains(runs[1].Failure, "no file of hashes") {
		t.Errorf("got %+v", runs)
	}
}

func TestHashesHaveToBeRight(t *testing.T) {
	tree, err := Generate(t.Context(), filepath.Join(t.TempDir(), "tree"), Set{"tiny", 4, 2, 10})
	must(t, err)
	var right []string
	for name := range tree.Sums {
		raw, err := os.ReadFile(filepath.Join(tree.Dir, name))
		must(t, err)
		sum := blake3.Sum256(raw)
		right = append(right, hex.EncodeToString(sum[:])+"  "+name+"\n")
	}
	one := right[0]
	for what, lines := range map[string][]string{
		"too few": right[1:], "none": nil, "another's": append([]string{one[:64] + right[1][64:]}, right[2:]...),
		"too many": append([]string{one[:64] + "  extra\n"}, right...), "none of it": {"\n", "x"},
	} {
		file := filepath.Join(t.TempDir(), "hashes")
		must(t, os.WriteFile(file, []byte(strings.Join(right, "")), 0o600))
		must(t, mcHash{}.Prove(Task{State: file}, tree))
		must(t, os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600))
		if err := (mcHash{}).Prove(Task{State: file}, tree); !errors.Is(err, ErrWrong) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestWhoUploadsNothingFails(t *testing.T) {
	runs := compete(t, 1, []Work{Upload}, actor{name: "lazy", instead: map[Work]Work{Upload: "nothing"}})
	if len(runs) != 1 || !strings.Contains(runs[0].Failure, "0 of 6 objects") {
		t.Fatalf("got %+v", runs)
	}
}

func TestWhoCannotFillItsBucketFailsAlone(t *testing.T) {
	lazy := actor{name: "lazy", instead: map[Work]Work{Upload: "nothing"}}
	runs := compete(t, 1, []Work{Download}, lazy, actor{name: "honest"})
	if len(runs) != 2 || !strings.HasPrefix(runs[0].Failure, "lazy cannot upload") || runs[1].Failure != "" {
		t.Errorf("got %+v", runs)
	}
}

func TestTurnsAlternate(t *testing.T) {
	var order []string
	for _, r := range compete(t, 3, []Work{Upload}, actor{name: "a"}, actor{name: "b"}, actor{name: "c"}) {
		order = append(order, fmt.Sprint(r.Round, r.Contestant))
	}
	want := []string{"1a", "1b", "1c", "2b", "2c", "2a", "3c", "3a", "3b"}
	if !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

// rusage of a child starts with the peak of its parent: a large harness must not
// show in what its contestants take.
func TestMeasureIsNotTheHarness(t *testing.T) {
	ballast := make([]byte, 400<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	_, self := programs(t)
	m := measurer{self: self, bin: "/bin", env: environment(t.TempDir(), ""), limit: time.Minute}
	small, err := m.run(t.Context(), shell("exit 0"))
	must(t, err)
	if small.RSS > 100 {
		t.Errorf("a shell took %.0f MiB", small.RSS)
	}
	hard := shell(`x=$(head -c 120000000 /dev/zero | tr '\0' a); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done`)
	big, err := m.run(t.Context(), hard)
	must(t, err)
	if big.RSS < 110 || big.CPU <= small.CPU || big.Wall <= small.Wall {
		t.Errorf("120 MB in a shell and a loop took %+v, doing nothing %+v", big, small)
	}
	if ballast[4096] != 1 {
		t.Error("the ballast is gone")
	}
}

// Both programs of a run count, the memory of the larger one too when it comes first.
func TestStepsAreMeasuredTogether(t *testing.T) {
	_, self := programs(t)
	m := measurer{self: self, bin: "/bin", env: environment(t.TempDir(), ""), limit: time.Minute}
	loop := shell("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	large := shell(`x=$(head -c 120000000 /dev/zero | tr '\0' a)`)
	one, err := m.runAll(t.Context(), []Step{loop})
	must(t, err)
	two, err := m.runAll(t.Context(), []Step{large, loop, loop, loop})
	must(t, err)
	// Three loops take longer than one on a busy machine as well.
	if two.CPU < 1.5*one.CPU || two.Wall < 1.5*one.Wall || two.RSS < 110 {
		t.Errorf("a loop took %+v, what is large and three loops %+v", one, two)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	_, err = m.runAll(t.Context(), []Step{shell("exit 3"), shell("touch " + mark)})
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Code != 3 {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it went on after a step that failed")
	}
}

func TestNormalIsNoBatchWork(t *testing.T) {
	bin, self := programs(t)
	m := measurer{self: self, bin: bin, env: environment(t.TempDir(), ""), limit: time.Minute}
	step := Step{Program: "actor", Args: []string{batchFlag}, Env: []string{quickEnd}}
	_, err := m.run(t.Context(), step)
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Code != batchExit {
		t.Errorf("unasked a program does not become batch work: %v", err)
	}
	step.Normal = true
	_, err = m.run(t.Context(), step)
	must(t, err)
}

func shell(script string, env ...string) Step {
	return Step{Program: "sh", Args: []string{"-c", script}, Env: env}
}

func TestMeasureFailures(t *testing.T) {
	_, self := programs(t)
	m := measurer{self: self, bin: "/bin", env: environment(t.TempDir(), ""), limit: time.Minute}
	m.hide = strings.NewReplacer("hunter2", "***")
	_, err := m.run(t.Context(), shell("echo no such bucket, key=$KEY >&2; exit 3", "KEY=hunter2"))
	exit, ok := errors.AsType[*ExitError](err)
	if !ok || exit.Code != 3 || !strings.Contains(exit.Said, "no such bucket") {
		t.Errorf("got %v", err)
	}
	if strings.Contains(fmt.Sprint(err), "hunter2") {
		t.Error("the error holds the secret")
	}
	if _, err := m.run(t.Context(), Step{Program: "no-such-program"}); err == nil {
		t.Error("a program that does not exist was measured")
	}
	m.limit = 200 * time.Millisecond
	began := time.Now()
	// The grandchild keeps the pipe open: it has to end as well.
	_, err = m.run(t.Context(), shell("sleep 60; true"))
	if err == nil || !strings.Contains(err.Error(), "took longer than") || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestTreeIsTheSameEverywhereAndChanges(t *testing.T) {
	set := Set{"tiny", 250, 5, 1000}
	one, err := Generate(t.Context(), filepath.Join(t.TempDir(), "a"), set)
	must(t, err)
	two, err := Generate(t.Context(), filepath.Join(t.TempDir(), "b"), set)
	must(t, err)
	must(t, one.CompareDir(t.Context(), two.Dir))
	original := maps.Clone(one.Sums)
	for range 3 {
		before := maps.Clone(one.Sums)
		n, err := one.Change()
		must(t, err)
		touched := 0
		for name, sum := range one.Sums {
			if sum.Size != set.Size {
				t.Errorf("%s has %d bytes", name, sum.Size)
			}
			if sum != before[name] {
				touched++
			}
		}
		if n != 2 || touched != n {
			t.Errorf("%d files were said to be changed, %d are", n, touched)
		}
		must(t, one.CompareDir(t.Context(), one.Dir))
		if err := one.CompareDir(t.Context(), two.Dir); !errors.Is(err, ErrWrong) {
			t.Errorf("the changed tree equals the one before: %v", err)
		}
		_, err = two.Change()
		must(t, err)
		must(t, one.CompareDir(t.Context(), two.Dir))
	}
	if maps.Equal(original, one.Sums) {
		t.Error("after three changes everything is as it was")
	}
}

func TestCompareDirFindsWhatIsWrong(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"missing":  func(dir string) error { return os.Remove(filepath.Join(dir, "d0001/f0000001.bin")) },
		"too much": func(dir string) error { return os.WriteFile(filepath.Join(dir, "d0001/extra"), nil, 0o600) },
		"short":    func(dir string) error { return os.Truncate(filepath.Join(dir, "d0001/f0000001.bin"), 5) },
		"other": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "d0001/f0000001.bin"), []byte("0123456789"), 0o600)
		},
	} {
		tree, err := Generate(t.Context(), filepath.Join(t.TempDir(), "tree"), Set{"tiny", 4, 2, 10})
		must(t, err)
		must(t, tree.CompareDir(t.Context(), tree.Dir))
		must(t, spoil(tree.Dir))
		if err := tree.CompareDir(t.Context(), tree.Dir); !errors.Is(err, ErrWrong) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
