package proof

import "fmt"

// Level is how much was checked of what a location holds.
type Level uint8

const (
	// LevelNone: nothing was checked.
	LevelNone Level = iota
	// L0: the roots of two manifests are equal, or that of one is the one that was signed. It
	// says nothing about what the locations hold now.
	L0
	// L1: every entry was listed, with its size and the ETag of the manifest, and
	// nothing else was. Of an object that still has the time that it was written with
	// the attributes are taken to be those that it was written with.
	L1
	// L2: the location's own checksum of every content was compared.
	L2
	// L3: every content was read within the rolling period, and hashed.
	L3
	// L4: every content was read now, and hashed.
	L4
)

// String is the level's name.
func (l Level) String() string {
	if l == LevelNone {
		return "none"
	}
	return fmt.Sprintf("L%d", uint8(l)-1)
}

// MarshalText gives the level's name, as verdicts in JSON have it.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (l *Level) UnmarshalText(text []byte) error {
	for is := LevelNone; is <= L4; is++ {
		if is.String() == string(text) {
			*l = is
			return nil
		}
	}
	return fmt.Errorf("%q is no level: use L1, L2, L3 or L4", text)
}

// Finding is an entry at which a location is not as its manifest says.
type Finding struct {
	Key string `json:"key"`
	// Detail says what differs; empty where that is plain.
	Detail string `json:"detail,omitempty"`
}

// maxFindings is how many findings of a sort a verdict keeps.
const maxFindings = 1000

// Findings are those of one sort.
type Findings struct {
	// Count counts all of them, First keeps the first 1,000.
	Count int64     `json:"count"`
	First []Finding `json:"first,omitempty"`
}

// Add counts one more. It is not for concurrent use.
func (f *Findings) Add(key, detail string) {
	f.Count++
	if len(f.First) < maxFindings {
		f.First = append(f.First, Finding{key, detail})
	}
}

// Verdict is what a check has shown.
type Verdict struct {
	// Level is what was checked of every single entry: the lowest of them. It says
	// how hard was looked, not that nothing was found.
	Level Level `json:"level"`
	// Asked is the level that the check was made for.
	Asked Level `json:"asked"`
	// Checked counts the entries of the manifest for which there was evidence, and
	// At those by the level that the evidence is worth.
	Checked int64         `json:"checked"`
	At      [L4 + 1]int64 `json:"at"`
	// Unchecked entries are there, and there was no hash to compare. Of Low ones
	// there was, and it is worth less than what was asked.
	// Unread counts those of the Unchecked whose content could not be read.
	Unchecked Findings `json:"unchecked"`
	Unread    int64    `json:"unread,omitempty"`
	Low       Findings `json:"low"`
	// Missing are in the manifest and not in the location, Extra the reverse.
	Missing Findings `json:"missing"`
	Extra   Findings `json:"extra"`
	// Different have another content, or are of another kind.
	Different Findings `json:"different"`
	// MetadataOnly have the content, and other attributes. Owners counts those of them
	// that have nothing but another owner or group.
	MetadataOnly Findings `json:"metadataOnly"`
	Owners       int64    `json:"owners"`
	// Kept are entries that only the destination is to hold, and that it does hold. They
	// are among the Checked, or the Unchecked.
	Kept Findings `json:"kept"`
	// Waiting are entries that the other side had no more, and that this one holds until a
	// run deletes them. They are counted like those.
	Waiting Findings `json:"waiting"`
	// Claimed counts what the location holds that is somebody else's, such as the objects of
	// an archive. Nobody looked at it.
	Claimed int64 `json:"claimed,omitempty"`
}

// Verified reports whether the location was shown to hold the contents of the
// manifest and nothing else, at the level that was asked for. Equal roots (L0) alone
// never show that, nor does it that there was nothing to check.
func (v Verdict) Verified() bool {
	return v.Level >= L1 && v.Problems() == 0
}

// Problems counts all that keeps the location from being verified.
func (v Verdict) Problems() int64 {
	return v.Missing.Count + v.Extra.Count + v.Different.Count + v.Unchecked.Count + v.Low.Count
}

// Nothing reports whether a location was looked at, and there was nothing to compare.
func (v Verdict) Nothing() bool {
	return v.Asked >= L1 && v.Checked+v.Problems() == 0
}

// String is the verdict in one line.
func (v Verdict) String() string {
	text := "NOT verified"
	switch {
	case v.Verified():
		text = "verified"
	case v.Nothing():
		return "INCONCLUSIVE: nothing was checked"
	}
	level := v.Level.String()
	if v.Level < v.Asked && v.Checked > 0 {
		level += fmt.Sprintf(" where %v was asked for", v.Asked)
	}
	text += fmt.Sprintf(" (%s): %d checked", level, v.Checked)
	for _, f := range []struct {
		n    int64
		what string
	}{
		{v.Missing.Count, "missing"}, {v.Extra.Count, "extra"}, {v.Different.Count, "different"},
		{v.Unchecked.Count, "unchecked"}, {v.Low.Count, "checked at a lower level only"}, {v.MetadataOnly.Count, "with other attributes"},
	} {
		if f.n > 0 {
			text += fmt.Sprintf(", %d %s", f.n, f.what)
		}
	}
	if v.Kept.Count > 0 {
		text += fmt.Sprintf("; %d of these are kept at the destination only", v.Kept.Count)
	}
	if v.Waiting.Count > 0 {
		text += fmt.Sprintf("; %d of these wait for deletion, as the other side has them no more", v.Waiting.Count)
	}
	if v.Claimed > 0 {
		text += fmt.Sprintf("; beside them %d of ZFS archives, which are not compared", v.Claimed)
	}
	return text
}

// CheckRoots compares two manifests by their roots. The level is L0 where they are
// equal, which is not verified: somebody has to look at the location, too.
func CheckRoots(a, b Root) Verdict {
	if a != b {
		return Verdict{}
	}
	return Verdict{Level: L0}
}
