package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// written makes a state of n records in several blocks, and gives its file.
func written(t testing.TB, dir string, n int) (path string, raw []byte, want map[string]plan.Past) {
	t.Helper()
	s, err := state.OpenSmall(dir)
	must(t, err)
	want = map[string]plan.Past{}
	for i := range n {
		p := left(fmt.Sprintf("d%d/f%03d", i/10, i), int64(i))
		want[p.Key] = p
		must(t, s.Note(p))
	}
	must(t, s.Commit())
	must(t, s.Close())
	path = s.Path("past")
	raw, err = os.ReadFile(path)
	must(t, err)
	return path, raw, want
}

// readAll opens a state and reads it.
func readAll(dir string) (map[string]plan.Past, error) {
	s, err := state.OpenSmall(dir)
	if err != nil {
		return nil, err
	}
	all, err := collect(s.Past())
	return all, errors.Join(err, s.Close())
}

// found checks that damage is found, and that what was read before is not damaged.
func found(t testing.TB, dir, what string, want map[string]plan.Past) {
	t.Helper()
	got, err := readAll(dir)
	e, ok := errors.AsType[*state.CorruptError](err)
	if !ok || !errors.Is(err, state.ErrCorrupt) {
		t.Fatalf("%s: %d records, %v", what, len(got), err)
	}
	if !strings.Contains(e.Error(), "remove "+filepath.Join(dir, "past")) {
		t.Fatalf("%s: the error does not say what to do: %v", what, e)
	}
	for key, p := range got {
		if !reflect.DeepEqual(p, want[key]) {
			t.Fatalf("%s: got %+v", what, p)
		}
	}
}

func TestEveryFlippedOrCutByteOfTheStateIsFound(t *testing.T) {
	dir := t.TempDir()
	path, raw, want := written(t, dir, 20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range raw {
		damaged := bytes.Clone(raw)
		damaged[i] ^= 1 << rng.IntN(8)
		must(t, os.WriteFile(path, damaged, 0o600))
		found(t, dir, fmt.Sprintf("byte %d of %d", i, len(raw)), want)
		must(t, os.WriteFile(path, raw[:i], 0o600))
		found(t, dir, fmt.Sprintf("the first %d of %d bytes", i, len(raw)), want)
		must(t, os.WriteFile(path, slices.Delete(bytes.Clone(raw), i, i+1), 0o600))
		found(t, dir, fmt.Sprintf("without byte %d", i), want)
	}
	must(t, os.WriteFile(path, append(bytes.Clone(raw), 0), 0o600))
	found(t, dir, "one byte more", want)
	must(t, os.WriteFile(path, append(bytes.Clone(raw), raw...), 0o600))
	found(t, dir, "twice", want)
	must(t, os.WriteFile(path, raw, 0o600))
	if got, err := readAll(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("undamaged: %d records, %v", len(got), err)
	}
}

func TestBlocksThatChangedPlacesAreFound(t *testing.T) {
	dir := t.TempDir()
	path, _, want := written(t, dir, 40)
	blocks, err := state.Blocks(path)
	must(t, err)
	n := uint64(len(want))
	for name, damaged := range map[string][][]byte{
		"swapped": append([][]byte{blocks[1], blocks[0]}, blocks[2:]...),
		"missing": blocks[1:],
		"twice":   append(blocks[:1:1], blocks...),
		"none":    nil,
	} {
		must(t, state.WritePast(path, n, damaged...))
		found(t, dir, name, want)
	}
	must(t, state.WritePast(path, n, blocks...))
	if got, err := readAll(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("undamaged: %d records, %v", len(got), err)
	}
}

func TestDamageIsNotCommitted(t *testing.T) {
	dir := t.TempDir()
	path, raw, _ := written(t, dir, 40)
	for i := 20; i < len(raw)-20; i += 37 {
		damaged := bytes.Clone(raw)
		damaged[i] ^= 1
		must(t, os.WriteFile(path, damaged, 0o600))
		s, err := state.OpenSmall(dir)
		must(t, err)
		must(t, s.Note(left("d0/f000", 1)))
		if err := s.Commit(); !errors.Is(err, state.ErrCorrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
		must(t, s.Close())
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
			t.Fatalf("byte %d: the state was written: %v", i, err)
		}
		must(t, os.Remove(s.Path("journal")))
		onlyFiles(t, dir, "lock", "past")
	}
}

// head is the length of the beginning of a journal.
const head = 20

// journaled makes notes, of which some were synced and some were not, and gives the
// journal and what each number of notes amounts to.
func journaled(t *testing.T, dir string) (path string, raw []byte, outcomes []map[string]plan.Past, synced int) {
	s, err := state.OpenSmall(dir)
	must(t, err)
	outcomes = []map[string]plan.Past{{}}
	for i := range 20 {
		now := maps.Clone(outcomes[i])
		p := plan.Past{Key: fmt.Sprintf("f%d", i%9), Source: entry.Entry{Path: "f", Size: int64(i)}}
		if i%4 == 3 {
			delete(now, p.Key)
			must(t, s.Forget(p.Key))
		} else {
			now[p.Key] = p
			must(t, s.Note(p))
		}
		outcomes = append(outcomes, now)
		if i == 5 || i == 13 {
			must(t, s.Sync())
			synced = i + 1
		}
	}
	must(t, s.FlushJournal())
	path = s.Path("journal")
	raw, err = os.ReadFile(path)
	must(t, err)
	must(t, s.Close())
	must(t, os.Remove(path))
	return path, raw, outcomes, synced
}

// outcome opens the state with this journal. It gives how many notes were taken, at
// least least of them.
func outcome(t *testing.T, path string, raw []byte, outcomes []map[string]plan.Past, least int) (int, error) {
	t.Helper()
	must(t, os.WriteFile(path, raw, 0o600))
	got, err := readAll(filepath.Dir(path))
	if err != nil {
		must(t, os.Remove(path))
		return 0, err
	}
	if err := os.Remove(filepath.Join(filepath.Dir(path), "past")); err != nil && len(got) > 0 {
		t.Fatal(err)
	}
	for n := least; n < len(outcomes); n++ {
		if reflect.DeepEqual(got, outcomes[n]) {
			return n, nil
		}
	}
	t.Fatalf("%d records are not what %d or more notes amount to", len(got), least)
	return 0, nil
}

func TestATornJournalIsCutOff(t *testing.T) {
	path, raw, outcomes, synced := journaled(t, t.TempDir())
	last := 0
	for i := range len(raw) + 1 {
		n, err := outcome(t, path, raw[:i], outcomes, 0)
		if i < head {
			if !errors.Is(err, state.ErrCorrupt) {
				t.Fatalf("the first %d bytes: %v", i, err)
			}
			continue
		}
		if err != nil || n < last {
			t.Fatalf("the first %d bytes: %d notes, %d before, %v", i, n, last, err)
		}
		last = n
	}
	if last != len(outcomes)-1 {
		t.Fatalf("the whole journal has %d notes", last)
	}
	for name, behind := range map[string][]byte{"zeros": make([]byte, 5000), "itself": raw, "a beginning": raw[head:200]} {
		if n, err := outcome(t, path, append(bytes.Clone(raw), behind...), outcomes, synced); err != nil || n != last {
			t.Errorf("%s behind it: %d notes, %v", name, n, err)
		}
	}
}

func TestDamageInTheMiddleOfAJournalIsFound(t *testing.T) {
	path, raw, outcomes, synced := journaled(t, t.TempDir())
	dir := filepath.Dir(path)
	cut := 0
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			damaged := bytes.Clone(raw)
			damaged[i] ^= bit
			n, err := outcome(t, path, damaged, outcomes, synced)
			switch {
			case err == nil && n == len(outcomes)-1:
				t.Fatalf("byte %d: not found", i)
			case err == nil:
				cut++
			case !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), "remove "+filepath.Join(dir, "past")):
				t.Fatalf("byte %d: %v", i, err)
			case cut > 0:
				t.Fatalf("byte %d was not synced, and is said to be damaged: %v", i, err)
			}
		}
	}
	if cut == 0 || cut > len(raw) {
		t.Errorf("%d of %d bytes behind the last Sync", cut/2, len(raw))
	}
}

func TestAJournalThatComesBackChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := state.OpenSmall(dir)
	must(t, err)
	must(t, s.Note(left("a", 1)))
	must(t, s.Note(left("b", 1)))
	must(t, s.Forget("a"))
	must(t, s.Sync())
	raw, err := os.ReadFile(s.Path("journal"))
	must(t, err)
	must(t, s.Commit())
	must(t, s.Close())
	must(t, os.WriteFile(s.Path("journal"), raw, 0o600))
	if got, err := readAll(dir); err != nil || !reflect.DeepEqual(got, map[string]plan.Past{"b": left("b", 1)}) {
		t.Errorf("%d records, %v", len(got), err)
	}
	onlyFiles(t, dir, "lock", "past")
}

func FuzzBlock(f *testing.F) {
	dir := f.TempDir()
	path, _, _ := written(f, dir, 20)
	blocks, err := state.Blocks(path)
	must(f, err)
	f.Add(uint64(20), blocks[0], blocks[1])
	f.Add(uint64(8), blocks[0], []byte{})
	f.Fuzz(func(t *testing.T, total uint64, a, b []byte) {
		dir := t.TempDir()
		must(t, state.WritePast(filepath.Join(dir, "past"), total, a, b))
		if _, err := readAll(dir); err != nil && !errors.Is(err, state.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	s, err := state.Open(dir)
	must(f, err)
	must(f, s.Note(left("a", 1)))
	must(f, s.FlushJournal())
	raw, err := os.ReadFile(s.Path("journal"))
	must(f, err)
	must(f, s.Close())
	f.Add(raw[head+8:])
	f.Add([]byte("fkey"))
	f.Add([]byte("n"))
	f.Add([]byte("n!\x00\x010")) // a key, and no more
	f.Add([]byte("s12345678"))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		must(t, state.WriteJournal(dir, body))
		if _, err := readAll(dir); err != nil && !errors.Is(err, state.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}
