package proof_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func lone(path string, has entry.Has, why entry.Lone) entry.Entry {
	e := file(path, has)
	e.Lone = why
	return e
}

func kept(path string, has entry.Has) entry.Entry { return lone(path, has, entry.Kept) }

// A line says that an entry is kept, and no other line says anything new: what was written
// before there were such entries is read as it was, and is what would be written now.
func TestOnlyWhatIsKeptIsMarked(t *testing.T) {
	packed, _ := write(t, []entry.Entry{file("a", allSums), kept("b", allSums)})
	lines := unpack(t, packed)
	if strings.Contains(lines[1], "kept") || !strings.HasSuffix(strings.TrimSpace(lines[2]), `,"kept":true}`) {
		t.Errorf("got %q", lines)
	}
	packed, _ = write(t, []entry.Entry{lone("a", allSums, entry.GoneSource), lone("b", allSums, entry.GoneDest)})
	lines = unpack(t, packed)
	if !strings.HasSuffix(strings.TrimSpace(lines[1]), `,"gone":"source"}`) || !strings.HasSuffix(strings.TrimSpace(lines[2]), `,"gone":"destination"}`) {
		t.Errorf("got %q", lines)
	}
	w, err := proof.NewWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	if err := w.Add(lone("a", 0, entry.GoneDest+1)); !errors.Is(err, proof.ErrEntry) {
		t.Errorf("for no reason that is known: %v", err)
	}
}

// What waits for deletion is looked for like anything else, and counted by itself.
func TestWhatWaitsForDeletionIsCheckedAndCounted(t *testing.T) {
	for why, gone := range map[entry.Lone]string{entry.GoneSource: "source", entry.GoneDest: "destination"} {
		other := file("c", allSums)
		other.Size++
		v := check(t, seq(file("a", allSums), lone("b", allSums, why), lone("c", allSums, why), lone("d", 0, why), lone("e", allSums, why)),
			seq(file("a", allSums), file("b", allSums), other, file("d", 0)), proof.Evidence{Level: proof.L4})
		switch {
		case v.Waiting.Count != 2, v.Kept.Count != 0, v.Waiting.First[0].Key != "b", !strings.Contains(v.Waiting.First[0].Detail, "gone from the "+gone),
			!strings.HasSuffix(v.String(), "; 2 of these wait for deletion, as the other side has them no more"):
			t.Errorf("waiting: %v, %+v", v, v.Waiting)
		case v.Different.Count != 1 || v.Different.First[0].Key != "c":
			t.Errorf("edited: %+v", v.Different)
		case v.Unchecked.Count != 1 || strings.Contains(v.Unchecked.First[0].Detail, "--check audit"):
			t.Errorf("of what nothing is known: %+v", v.Unchecked)
		case v.Missing.Count != 1 || v.Missing.First[0].Key != "e" || !strings.Contains(v.Missing.First[0].Detail, "somebody else has removed it"):
			t.Errorf("removed by others: %+v", v.Missing)
		}
	}
}

// That a content could not be read is said, and why, and not that nothing is known of it.
func TestWhatCouldNotBeReadIsNotCalledUnknown(t *testing.T) {
	how := proof.Evidence{Level: proof.L4, Unread: func(key string) string { return map[string]string{"a": "the disk has a hole", "x": "so has it"}[key] }}
	v := check(t, seq(file("a", allSums), file("b", allSums)), seq(file("a", 0), file("b", 0), file("x", 0)), how)
	if v.Unread != 1 {
		t.Errorf("%d were not read, of those that are unchecked", v.Unread)
	}
	if got := v.Unchecked.First; len(got) != 2 || got[0].Detail != "it could not be read: the disk has a hole" || got[1].Detail != "no hash is known on both sides" {
		t.Errorf("got %+v", got)
	}
}

// What is kept is looked for like anything else, and counted by itself; nothing is said of
// it that was not seen.
func TestWhatIsKeptIsCheckedAndCounted(t *testing.T) {
	want := seq(file("a", allSums), kept("b", allSums), kept("c", allSums), kept("d", 0), kept("e", allSums))
	other := file("c", allSums)
	other.Size++
	got := seq(file("a", allSums), file("b", allSums), other, file("d", 0))
	v := check(t, want, got, proof.Evidence{Level: proof.L4})
	switch {
	case v.Verified(), v.Kept.Count != 2, v.Kept.First[0].Key != "b", v.Kept.First[1].Key != "d", !strings.HasSuffix(v.String(), "; 2 of these are kept at the destination only"):
		t.Errorf("kept: %v, %+v", v, v.Kept)
	case v.Different.Count != 1 || v.Different.First[0].Key != "c":
		t.Errorf("damaged: %+v", v.Different)
	case v.Unchecked.Count != 1 || v.Unchecked.First[0].Key != "d" || strings.Contains(v.Unchecked.First[0].Detail, "--check audit"):
		t.Errorf("of what nothing is known: %+v", v.Unchecked)
	case v.Missing.Count != 1 || v.Missing.First[0].Key != "e" || !strings.Contains(v.Missing.First[0].Detail, "at the destination only"):
		t.Errorf("lost: %+v", v.Missing)
	}
}

func TestWhatHasAnotherOwnerOnlyIsCounted(t *testing.T) {
	theirs, edited := file("a", allSums), file("b", allSums)
	theirs.UID++
	edited.GID++
	edited.MTime++
	v := check(t, seq(file("a", allSums), file("b", allSums)), seq(theirs, edited), proof.Evidence{Level: proof.L4, Metadata: true})
	if v.Owners != 1 || v.MetadataOnly.Count != 2 || !v.Verified() {
		t.Errorf("%d of %+v", v.Owners, v.MetadataOnly)
	}
}
