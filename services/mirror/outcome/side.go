package outcome

import (
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// Side is what a comparison of one side has shown.
type Side struct {
	Place string `json:"place"`
	// Side is source or destination, Mode the mirror's.
	Side     string `json:"side"`
	Mode     string `json:"mode"`
	Verified bool   `json:"verified"`
	// Inconclusive says that there was nothing to check, so that nothing was shown.
	Inconclusive bool `json:"inconclusive"`
	// Problems counts all that keeps it from being verified, Repaired what an audit has
	// mended of it.
	Problems int64       `json:"problems"`
	Repaired int         `json:"repaired,omitempty"`
	Level    proof.Level `json:"level"`
	// Asked is the level that was asked for, Read how many contents were read.
	Asked   proof.Level `json:"asked"`
	Read    int64       `json:"read"`
	Checked int64       `json:"checked"`
	// CheckedBy counts, by level, what the evidence is worth.
	CheckedBy    map[string]int64 `json:"checkedBy"`
	Missing      proof.Findings   `json:"missing"`
	Extra        proof.Findings   `json:"extra"`
	Different    proof.Findings   `json:"different"`
	MetadataOnly proof.Findings   `json:"metadataOnly"`
	Unchecked    proof.Findings   `json:"unchecked"`
	Low          proof.Findings   `json:"low"`
	Unreadable   proof.Findings   `json:"unreadable"`
	// OwnersOnly counts those of MetadataOnly that have nothing but another owner, Disowning
	// says that the process which looked may not set owners.
	OwnersOnly int64 `json:"ownersOnly"`
	Disowning  bool  `json:"disowning,omitempty"`
	// Unedited says that the next run leaves alone what was edited at the destination.
	Unedited bool `json:"unedited,omitempty"`
	// Kept are at the destination only, as the source has them no more and the mirror
	// removes nothing; KeptElsewhere counts them where they were not looked for.
	Kept          proof.Findings `json:"kept"`
	KeptElsewhere int64          `json:"keptElsewhere"`
	// Waiting are gone from the other side, and here until a run deletes them;
	// WaitingElsewhere counts the reverse, which were not looked for here.
	Waiting          proof.Findings `json:"waiting"`
	WaitingElsewhere int64          `json:"waitingElsewhere"`
	// ManifestEntries are all of the manifest; LeftOutEntries of them, and LeftOutNames
	// that were come across, took no part by the filter.
	ManifestEntries int64    `json:"manifestEntries"`
	Filter          []string `json:"filter,omitempty"`
	LeftOutEntries  int64    `json:"leftOutEntries"`
	LeftOutNames    int64    `json:"leftOutNames"`
	// Claimed counts objects of ZFS archives, which are nothing of the mirror's.
	Claimed int64 `json:"claimed,omitempty"`
}

// SideOf gives what one side has shown.
func SideOf(v job.Verified) Side {
	s := Side{
		Place: v.Place, Side: v.Side.String(), Mode: v.Mode.String(), Verified: v.Verified(), Level: v.Verdict.Level, Asked: v.Verdict.Asked,
		Read: v.Read, Checked: v.Verdict.Checked, CheckedBy: map[string]int64{},
		Missing: v.Verdict.Missing, Extra: v.Verdict.Extra, Different: v.Verdict.Different,
		MetadataOnly: v.Verdict.MetadataOnly, Unchecked: v.Verdict.Unchecked, Low: v.Verdict.Low, Unreadable: v.Unreadable,
		Inconclusive: v.Inconclusive(), Problems: v.Verdict.Problems(), OwnersOnly: v.Verdict.Owners, Disowning: v.Disowning, Unedited: v.Unedited,
		Kept: v.Verdict.Kept, KeptElsewhere: v.Elsewhere, Waiting: v.Verdict.Waiting, WaitingElsewhere: v.Gone,
		ManifestEntries: v.Entries, Filter: v.Filter, LeftOutEntries: v.LeftOut.Entries, LeftOutNames: v.LeftOut.Names, Claimed: v.Verdict.Claimed,
	}
	for level, n := range v.Verdict.At {
		if n > 0 {
			s.CheckedBy[proof.Level(level).String()] = n
		}
	}
	return s
}

// Audit is what an audit has shown besides its sides.
type Audit struct {
	Clean bool `json:"clean"`
	// Contents counts the files that both sides should hold, Checked those that were
	// read on both and are equal.
	Contents int64 `json:"contents"`
	Checked  int64 `json:"checked"`
	// Unchecked are those of which that cannot be said, Apart those that differ and of
	// which nothing tells which one is right.
	Unchecked proof.Findings `json:"unchecked"`
	Apart     proof.Findings `json:"apart"`
	Rotten    []Rot          `json:"rotten"`
	// RottenSum counts those, Edited what is different and has not rotted.
	RottenSum int   `json:"rottenCount"`
	Edited    int64 `json:"edited"`
}

// Rot is a content that was damaged behind everybody's back.
type Rot struct {
	Key    string `json:"key"`
	Side   string `json:"side"`
	Detail string `json:"detail"`
	// Lost says that it could not be read, Repaired that it was replaced from the other side
	// and read again, Error why it could not be.
	Lost     bool   `json:"lost,omitempty"`
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"`
}

// AuditOf gives what an audit has shown.
func AuditOf(a job.Audited) Audit {
	out := Audit{
		Clean: a.Clean(), RottenSum: len(a.Rotten), Edited: a.Edited(), Contents: a.Contents, Checked: a.Checked,
		Unchecked: a.Unchecked, Apart: a.Apart, Rotten: []Rot{},
	}
	for _, r := range a.Rotten {
		one := Rot{Key: r.Key, Side: r.Side.String(), Detail: r.Detail, Lost: r.Lost, Repaired: r.Repaired}
		if r.Err != nil {
			one.Error = r.Err.Error()
		}
		out.Rotten = append(out.Rotten, one)
	}
	return out
}
