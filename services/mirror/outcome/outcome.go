// Package outcome is what a comparison of a mirror has shown, in the form in which it is
// published, printed as JSON, and read again.
package outcome

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// Outcome is what one comparison came to.
type Outcome struct {
	// Do is what was asked for: verify, drift or audit.
	Do string `json:"do"`
	// Good says that all is as it should be. Differs says that a side was seen not to be
	// what the last run left there, also if it was repaired, or that nothing of it was there
	// to be looked at: what could not be shown only is neither.
	Good    bool `json:"good"`
	Differs bool `json:"differs"`
	// Asked is the level of proof that was asked for, Level that which was reached for every
	// entry of every side.
	Asked   proof.Level `json:"asked"`
	Level   proof.Level `json:"level"`
	Seconds float64     `json:"seconds"`
	// Counts add up what was found on the sides.
	Counts Counts `json:"counts"`
	// Problems are the first findings, in words.
	Problems []string `json:"problems,omitempty"`
	// Sides are what each side has shown, Audit what an audit has shown besides. Each sort
	// of finding is counted, and of very many only the first are listed.
	Sides []Side `json:"sides"`
	Audit *Audit `json:"audit,omitempty"`
	// Root stands for what both sides should hold, and Entries counts that.
	Root    string `json:"root,omitempty"`
	Entries int64  `json:"entries"`
}

// Counts count entries, on each side by itself.
type Counts struct {
	Checked      int64 `json:"checked"`
	Missing      int64 `json:"missing"`
	Extra        int64 `json:"extra"`
	Different    int64 `json:"different"`
	MetadataOnly int64 `json:"metadataOnly"`
	Unchecked    int64 `json:"unchecked"`
	Low          int64 `json:"low"`
	Unreadable   int64 `json:"unreadable"`
	// Rotten and Apart are those of an audit, Repaired counts the rotten ones that it mended.
	Rotten   int64 `json:"rotten,omitempty"`
	Apart    int64 `json:"apart,omitempty"`
	Repaired int64 `json:"repaired,omitempty"`
}

// Of gives the outcome of a comparison that came to its end, with as many problems, and of
// each sort and side as many findings, as few says; of drift with all findings. In any case
// there are no more than a message has room for.
func Of(c job.Compared, root proof.Root, took time.Duration, few int) Outcome {
	o := Outcome{
		Do: c.What, Good: c.Good(), Differs: c.Differs(), Asked: c.Level, Level: c.Reached(), Seconds: took.Seconds(),
		Sides: []Side{}, Entries: root.Entries,
	}
	if root.Entries > 0 {
		o.Root = root.Hash.String()
	}
	for _, v := range c.Shown {
		s := SideOf(v)
		o.Counts.add(s)
		o.Sides = append(o.Sides, s)
	}
	if c.Audited != nil {
		a := AuditOf(*c.Audited)
		o.Audit = &a
		o.Counts.Rotten, o.Counts.Apart = int64(a.RottenSum), a.Apart.Count
		for i := range o.Sides {
			o.Sides[i].Repaired = c.Audited.Repaired(c.Shown[i])
			o.Counts.Repaired += int64(o.Sides[i].Repaired)
		}
	}
	o.Problems = o.problems(few)
	if c.What == drill.MirrorDrift {
		few = math.MaxInt // Their names are what was asked for.
	}
	o.cut(few)
	return o
}

func (n *Counts) add(s Side) {
	n.Checked += s.Checked
	n.Missing += s.Missing.Count
	n.Extra += s.Extra.Count
	n.Different += s.Different.Count
	n.MetadataOnly += s.MetadataOnly.Count
	n.Unchecked += s.Unchecked.Count
	n.Low += s.Low.Count
	n.Unreadable += s.Unreadable.Count
}

// Words say in one line what was found, on each side by itself.
func (o Outcome) Words() string {
	if len(o.Sides) == 0 || o.Counts == (Counts{}) {
		return fmt.Sprintf("%s at %v: nothing was checked", o.Do, o.Asked)
	}
	var parts []string
	for _, s := range o.Sides {
		var n Counts
		n.add(s)
		parts = append(parts, s.Side+": "+n.words())
	}
	if both := (counted{{o.Counts.Rotten, "rotten"}, {o.Counts.Apart, "not alike on both sides"}, {o.Counts.Repaired, "repaired"}}).words(); both != "" {
		parts = append(parts, both)
	}
	return fmt.Sprintf("%s at %v: %s", o.Do, o.Level, strings.Join(parts, "; "))
}

// words are those of one side.
func (n Counts) words() string {
	text := fmt.Sprintf("%d checked", n.Checked)
	if more := (counted{
		{n.Missing, "missing"}, {n.Extra, "extra"}, {n.Different, "different"}, {n.MetadataOnly, "with other attributes"},
		{n.Unchecked, "unchecked"}, {n.Low, "checked at a lower level only"}, {n.Unreadable, "could not be read"},
	}).words(); more != "" {
		text += ", " + more
	}
	return text
}

// counted are numbers and what they count.
type counted []struct {
	n    int64
	what string
}

// words leave out what there is none of.
func (c counted) words() string {
	var out []string
	for _, f := range c {
		if f.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", f.n, f.what))
		}
	}
	return strings.Join(out, ", ")
}

// problems are the first findings of all sorts that are none of what should be.
func (o Outcome) problems(few int) (out []string) {
	add := func(what, at string, all proof.Findings) {
		for _, f := range all.First[:min(len(all.First), few)] {
			detail := f.Detail
			if detail != "" {
				detail = ": " + detail
			}
			if len(out) < few {
				out = append(out, fmt.Sprintf("%s %s %s%s", what, entry.Quote(f.Key), at, detail))
			}
		}
	}
	if o.Audit != nil {
		for _, r := range o.Audit.Rotten {
			detail := r.Detail
			if r.Repaired {
				detail = "repaired; it was damaged: " + detail
			}
			add("rotten", "on the "+r.Side, proof.Findings{First: []proof.Finding{{Key: r.Key, Detail: detail}}})
		}
		add("different", "on both sides", o.Audit.Apart)
	}
	for _, s := range o.Sides {
		at := "at " + s.Place
		if s.Inconclusive {
			out = append(out, "nothing was checked "+at)
		}
		add("missing", at, s.Missing)
		add("extra", at, s.Extra)
		add("different", at, s.Different)
		add("unreadable", at, s.Unreadable)
		add("with other attributes", at, s.MetadataOnly)
		add("unchecked", at, s.Unchecked)
	}
	return out[:min(len(out), few)]
}

// room is how many bytes of findings an outcome holds, as JSON: names may be very long.
const room = 192 << 10

// cut leaves of each sort of findings only the first few, and of all no more than there is
// room for.
func (o *Outcome) cut(few int) {
	left := room
	fits := func(texts ...string) bool {
		for _, t := range texts {
			as, _ := json.Marshal(t) // a text has a form
			left -= len(as) + 32
		}
		return left >= 0
	}
	for i, text := range o.Problems {
		if !fits(text) {
			o.Problems = o.Problems[:i]
			break
		}
	}
	shorten := func(f *proof.Findings) {
		n := 0
		for n < min(len(f.First), few) && fits(f.First[n].Key, f.First[n].Detail) {
			n++
		}
		f.First = f.First[:n:n]
	}
	if a := o.Audit; a != nil {
		n := 0
		for n < len(a.Rotten) && fits(a.Rotten[n].Key, a.Rotten[n].Detail, a.Rotten[n].Error) {
			n++
		}
		a.Rotten = a.Rotten[:n:n]
		shorten(&a.Apart)
		shorten(&a.Unchecked)
	}
	for i := range o.Sides {
		s := &o.Sides[i]
		for _, f := range []*proof.Findings{&s.Missing, &s.Extra, &s.Different, &s.Unreadable, &s.MetadataOnly, &s.Unchecked, &s.Low, &s.Kept, &s.Waiting} {
			shorten(f)
		}
	}
}

// Compared gives what an outcome was made of, as far as that is printed.
func (o Outcome) Compared() job.Compared {
	c := job.Compared{Comparison: job.Comparison{What: o.Do, Level: o.Asked}}
	for _, s := range o.Sides {
		c.Shown = append(c.Shown, s.verified())
	}
	if o.Audit == nil {
		return c
	}
	a := o.Audit
	c.Audited = &job.Audited{Contents: a.Contents, Checked: a.Checked, Unchecked: a.Unchecked, Apart: a.Apart}
	for _, v := range c.Shown {
		c.Audited.Sides[v.Side] = v
	}
	for _, r := range a.Rotten {
		rot := job.Rot{Key: r.Key, Detail: r.Detail, Repaired: r.Repaired, Lost: r.Lost}
		if r.Side == plan.Dest.String() {
			rot.Side = plan.Dest
		}
		if r.Error != "" {
			rot.Err = errors.New(r.Error)
		}
		c.Audited.Rotten = append(c.Audited.Rotten, rot)
	}
	return c
}

// verified gives what a side was made of.
func (s Side) verified() job.Verified {
	v := job.Verified{
		Place: s.Place, Unedited: s.Unedited, Entries: s.ManifestEntries, Filter: s.Filter, Disowning: s.Disowning,
		Result: verify.Result{
			Verdict: proof.Verdict{
				Level: s.Level, Asked: s.Asked, Checked: s.Checked, Unchecked: s.Unchecked, Low: s.Low, Missing: s.Missing, Extra: s.Extra,
				Different: s.Different, MetadataOnly: s.MetadataOnly, Owners: s.OwnersOnly, Kept: s.Kept, Waiting: s.Waiting, Claimed: s.Claimed,
			},
			Unreadable: s.Unreadable, Read: s.Read, Elsewhere: s.KeptElsewhere, Gone: s.WaitingElsewhere,
			LeftOut: verify.LeftOut{Entries: s.LeftOutEntries, Names: s.LeftOutNames},
		},
	}
	for name, n := range s.CheckedBy {
		var l proof.Level
		if l.UnmarshalText([]byte(name)) == nil {
			v.Verdict.At[l] = n
		}
	}
	if s.Side == plan.Dest.String() {
		v.Side = plan.Dest
	}
	for _, m := range []plan.Mode{plan.Copy, plan.Mirror, plan.TwoWay} {
		if m.String() == s.Mode {
			v.Mode = m
		}
	}
	return v
}
