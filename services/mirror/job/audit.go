package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// AuditOptions say what an audit does.
type AuditOptions struct {
	// Repair replaces what has rotted on one side with what the other side holds
	// undamaged. In a mirror that goes one way only the destination is written to.
	Repair bool
	// RepairSource has Repair replace what has rotted in the source of such a mirror,
	// too. Two-way mirrors need no leave for that.
	RepairSource bool
	// Seen is told of each entry that was read.
	Seen func(plan.Side, entry.Entry)
}

// Audited is what an audit has shown.
type Audited struct {
	// Sides are what reading each side has shown, by [plan.Side], before repairs.
	Sides [2]Verified
	// Contents counts the files that both sides should hold, Checked those of them
	// that were read on both, are equal, and are not known to be anything else.
	Contents, Checked int64
	// Unchecked are entries of which that cannot be said although nothing is known to
	// be wrong with them, and why.
	Unchecked proof.Findings
	// Apart are contents that are not the same on both sides, and of which nothing
	// tells which one is right: no run ever read them.
	Apart proof.Findings
	// Rotten are the contents that are not what was left there although nothing has
	// touched them since, or that cannot be read; of very many, not all.
	Rotten []Rot
}

// Rot is a content that was damaged behind everybody's back.
type Rot struct {
	Key  string
	Side plan.Side
	// Detail says how it was noticed.
	Detail string
	// Repaired says that it was replaced and read again; Err why it could not be.
	Repaired bool
	Err      error
}

// Clean reports whether both sides were shown to hold what the manifest says, and the
// same, now that repairs are made. What was not checked is not clean.
func (a Audited) Clean() bool {
	for _, s := range a.Sides {
		v := s.Verdict
		if v.Missing.Count+v.Extra.Count > 0 || v.Different.Count+s.Unreadable.Count > int64(a.repaired(s)) {
			return false
		}
	}
	return a.Unchecked.Count+a.Apart.Count == 0 && a.Checked == a.Contents
}

func (a Audited) repaired(s Verified) (n int) {
	for _, r := range a.Rotten {
		if r.Repaired && a.Sides[r.Side].Place == s.Place {
			n++
		}
	}
	return n
}

// Audit reads every content on both sides, and compares it with the manifest of the
// last run and with the other side's.
func (j *Job) Audit(ctx context.Context, o AuditOptions) (a Audited, err error) {
	bad := map[string]*[2]string{}
	var read [2]*state.Spill
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if read[side], err = j.store.Spill(); err != nil {
			return a, fmt.Errorf("mirror %s: remember what was read: %w", j.spec.Name, err)
		}
		defer func() { err = errors.Join(err, read[side].Close()) }()
		v, err := j.readSide(ctx, side, o, read[side])
		if err != nil {
			return a, err
		}
		a.Sides[side] = v
		for _, found := range [][]proof.Finding{v.Verdict.Different.First, v.Unreadable.First} {
			for _, f := range found {
				if bad[f.Key] == nil {
					bad[f.Key] = &[2]string{}
				}
				bad[f.Key][side] = f.Detail
			}
		}
	}
	if err := j.compareSides(&a, read); err != nil || len(bad) == 0 {
		return a, err
	}
	if a.Rotten, err = j.rotten(ctx, bad); err != nil || !o.Repair {
		return a, err
	}
	for _, v := range a.Sides {
		if cut(v.Verdict.Different) || cut(v.Unreadable) {
			return a, fmt.Errorf("mirror %s: %s: %w", j.spec.Name, v.Place, ErrTooMuch)
		}
	}
	err = j.repair(ctx, bad, a.Rotten, o.RepairSource || j.spec.mode == plan.TwoWay)
	a.afterRepairs()
	return a, err
}

// afterRepairs counts for checked what was replaced and read again.
func (a *Audited) afterRepairs() {
	for _, r := range a.Rotten {
		if !r.Repaired {
			continue
		}
		a.Checked++
		before := len(a.Unchecked.First)
		a.Unchecked.First = slices.DeleteFunc(a.Unchecked.First, func(f proof.Finding) bool { return f.Key == r.Key })
		a.Unchecked.Count -= int64(before - len(a.Unchecked.First))
	}
}

// ErrTooMuch says that nothing was repaired because too much is damaged for that.
var ErrTooMuch = errors.New("too much of it is damaged to repair single contents: see to the medium, and restore it by a new run or from a backup")

// cut reports whether there are more findings than are listed: then it is not known
// of every key whether it is damaged.
func cut(f proof.Findings) bool { return f.Count > int64(len(f.First)) }

// rotten picks out what nobody has touched. What was edited is no damage, and the
// next run carries it.
func (j *Job) rotten(ctx context.Context, bad map[string]*[2]string) ([]Rot, error) {
	var out []Rot
	for p, err := range j.store.Past() {
		if err != nil {
			return nil, fmt.Errorf("mirror %s: read the last run: %w", j.spec.Name, err)
		}
		why := bad[p.Key]
		if why == nil {
			continue
		}
		for _, side := range []plan.Side{plan.Source, plan.Dest} {
			if why[side] == "" {
				continue
			}
			if p.Dirty[side] {
				continue // It may have been edited without a trace in its times.
			}
			was := p.At(side)
			now, there, err := j.places[side].Look(ctx, was)
			// A store that cannot even say what it holds has lost it.
			if err != nil || there && stillAs(&now, &was) {
				out = append(out, Rot{Key: p.Key, Side: side, Detail: why[side]})
			}
		}
	}
	return out, nil
}

// stillAs reports whether what is there claims to be what was left there.
func stillAs(now, was *entry.Entry) bool {
	if now.Kind != was.Kind || now.Size != was.Size || now.MTime != was.MTime || now.Change != was.Change {
		return false
	}
	return !was.Sum.Contains(entry.HasETag) || !now.Sum.Contains(entry.HasETag) || now.Sum.ETag == was.Sum.ETag
}

// ErrSourceKept says that the source of a mirror that goes one way is not repaired
// from its copy unless that is asked for: who is right, the source's owner knows.
var ErrSourceKept = errors.New("a one-way mirror does not write into its source: restore it from a backup, or see that the destination's is the right one and audit again with leave to repair the source (--repair-source)")

// repair replaces what has rotted, where the other side holds it undamaged. intoSource
// says that the source may be written to.
func (j *Job) repair(ctx context.Context, bad map[string]*[2]string, rots []Rot, intoSource bool) error {
	byKey := map[string]*Rot{}
	for i := range rots {
		switch {
		case bad[rots[i].Key][rots[i].Side.Other()] != "":
			rots[i].Err = errors.New("the other side is damaged as well: take it from a backup")
			continue
		case rots[i].Side == plan.Source && !intoSource:
			rots[i].Err = ErrSourceKept
			continue
		}
		byKey[rots[i].Key] = &rots[i]
	}
	var fixed []plan.Past
	for p, err := range j.store.Past() {
		if err != nil {
			return fmt.Errorf("mirror %s: read the last run: %w", j.spec.Name, err)
		}
		if r := byKey[p.Key]; r != nil {
			if r.Err = j.replace(ctx, &p, r.Side); r.Err == nil {
				r.Repaired = true
				fixed = append(fixed, p)
			}
		}
	}
	if len(fixed) == 0 {
		return nil
	}
	return j.note(ctx, fixed)
}

// note remembers what was written beside a run.
func (j *Job) note(ctx context.Context, fixed []plan.Past) error {
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if err := j.places[side].Finish(ctx); err != nil {
			return fmt.Errorf("mirror %s: finish the %s: %w", j.spec.Name, side, err)
		}
	}
	facts, _, err := j.Facts()
	if err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	facts.Generation++
	if err := j.store.Save(engine.FactsName, facts); err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	for _, p := range fixed {
		if err := j.store.Note(p); err != nil {
			return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
		}
	}
	if err := j.store.Commit(); err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	_, err = j.seal()
	return err
}

// ErrFailing says that what was just written reads differently again.
var ErrFailing = errors.New("what was written reads differently again: the medium is failing")

// replace writes one content anew from the other side and reads it again. Its own
// attributes stay.
func (j *Job) replace(ctx context.Context, p *plan.Past, side plan.Side) error {
	w := j.Worker()
	w.Tries = 1 // What is not as it was left is for a run to carry.
	if r, ok := w.Places[side].(ruled); ok {
		w.Places[side] = r.Place // which tells what is really there
	}
	if err := intact(ctx, w, p, side.Other()); err != nil {
		return err
	}
	now, there, err := w.Places[side].Look(ctx, p.At(side))
	if err != nil || !there {
		// It cannot be said what is overwritten: what was left there is.
		now = p.At(side)
	}
	good := p.At(side.Other())
	want := good.Sum
	good.Mode, good.UID, good.GID, good.Xattrs = now.Mode, now.UID, now.GID, now.Xattrs
	a := plan.Action{Op: plan.Put, Key: p.Key, To: side, Source: now, Dest: good}
	if side == plan.Dest {
		a.Source, a.Dest = good, now
	}
	dones, err := w.Do(ctx, engine.Item{Seq: 1, Actions: []plan.Action{a}, Single: true})
	if err == nil {
		err = dones[0].Err
	}
	if err != nil {
		return err
	}
	written := dones[0].Action.At(side)
	got, err := engine.Hash(ctx, w.Places[side], written, want, w.Limit)
	if err != nil {
		return err
	}
	want = engine.MergeSums(want, written.Sum)
	if want.Contains(entry.HasBLAKE3) && got.BLAKE3 != want.BLAKE3 || want.Contains(entry.HasCRC32C) && got.CRC32C != want.CRC32C {
		return ErrFailing
	}
	if written, _ = apply(j.spec.rights, written); side == plan.Source {
		p.Source = written
	} else {
		p.Dest = written
	}
	return nil
}

// intact reads what a repair is to be made from: it must be what was left there,
// before anything is overwritten with it.
func intact(ctx context.Context, w *engine.Worker, p *plan.Past, side plan.Side) error {
	want := engine.SharedSums(p.At(side).Sum, p.At(side.Other()).Sum)
	if want.Has&(entry.HasBLAKE3|entry.HasCRC32C) == 0 {
		return errors.New("no hash is remembered that tells which side is right: compare them by hand")
	}
	got, err := engine.Hash(ctx, w.Places[side], p.At(side), want, w.Limit)
	if err != nil {
		return fmt.Errorf("the %s cannot be read: %w", side, err)
	}
	if want.Contains(entry.HasBLAKE3) && got.BLAKE3 != want.BLAKE3 || want.Contains(entry.HasCRC32C) && got.CRC32C != want.CRC32C {
		return fmt.Errorf("the %s does not hold it any more either", side)
	}
	return nil
}

// Status is what is known of a mirror without looking at its places.
type Status struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
	// Known says that a run has come to its end.
	Known bool          `json:"known"`
	Facts *engine.Facts `json:"facts,omitempty"`
	Root  *proof.Signed `json:"root,omitempty"`
}

// Status reads what a mirror remembers of itself. The error is state's LockedError
// while it runs.
func (e Env) Status(m drill.Mirror) (st Status, err error) {
	s, err := parse(m)
	if err != nil {
		return Status{}, err
	}
	st = Status{Name: s.Name, From: s.From, To: s.To}
	j := &Job{env: e, spec: s}
	known, err := e.exists(s.Name)
	if err != nil || !known {
		return st, err
	}
	if err := j.openState(); err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, j.store.Close()) }()
	f, known, err := j.Facts()
	if err != nil || !known {
		return st, err
	}
	st.Facts = &f
	root, err := j.Root()
	switch {
	case errors.Is(err, ErrNothingKnown):
		return st, nil
	case err != nil:
		return st, err
	}
	st.Known, st.Root = true, &root
	return st, nil
}
