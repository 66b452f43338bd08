package proof_test

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func kept(path string, has entry.Has) entry.Entry {
	e := file(path, has)
	e.Kept = true
	return e
}

// A line says that an entry is kept, and no other line says anything new: what was written
// before there were such entries is read as it was, and is what would be written now.
func TestOnlyWhatIsKeptIsMarked(t *testing.T) {
	packed, _ := write(t, []entry.Entry{file("a", allSums), kept("b", allSums)})
	lines := unpack(t, packed)
	if strings.Contains(lines[1], "kept") || !strings.HasSuffix(strings.TrimSpace(lines[2]), `,"kept":true}`) {
		t.Errorf("got %q", lines)
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
