package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/pace"
	"github.com/firedrill/firedrill/services/mirror/place"
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
	// Pass is that of [VerifyOptions].
	Pass func(ctx context.Context) error
	// Seen is told of each entry that was read.
	Seen func(plan.Side, entry.Entry)
	// Bytes, if not nil, is told how many bytes were read, again and again and by several
	// goroutines at once.
	Bytes func(int)
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
	// touched them since, or that are lost; of very many, not all. What could not be
	// read for another reason is unchecked.
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
	// Lost says that it could not be read, so that it is not known to be different.
	Lost bool
}

// Clean reports whether each side was shown to hold what the manifest says, and both the
// same, now that repairs are made. What was not checked is not clean, nor is a side of which
// nothing was, nor is what is equal
// on both sides while the manifest has no hash of it: both may have rotted alike.
func (a Audited) Clean() bool {
	for _, s := range a.Sides {
		v := s.Verdict
		if s.Inconclusive() {
			return false
		}
		// What could not be read is unchecked in the verdict.
		if v.Missing.Count+v.Extra.Count+v.Low.Count > 0 || v.Different.Count+v.Unchecked.Count > int64(a.Repaired(s)) {
			return false
		}
	}
	return a.Unchecked.Count+a.Apart.Count == 0 && a.Checked == a.Contents
}

// Repaired counts the contents of a side that were replaced and read again.
func (a Audited) Repaired(s Verified) (n int) {
	for _, r := range a.Rotten {
		if r.Repaired && a.Sides[r.Side].Place == s.Place {
			n++
		}
	}
	return n
}

// Edited counts the contents that are not what the manifest says, and have not rotted.
func (a Audited) Edited() (n int64) {
	for _, s := range a.Sides {
		n += s.Verdict.Different.Count
	}
	for _, r := range a.Rotten {
		if !r.Lost {
			n--
		}
	}
	return max(n, 0)
}

// Audit reads every content on both sides, and compares it with the manifest of the
// last run and with the other side's.
func (j *Job) Audit(ctx context.Context, o AuditOptions) (a Audited, err error) {
	bad := map[string]*[2]flaw{}
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
		for i, found := range [][]proof.Finding{v.Verdict.Different.First, v.Unreadable.First} {
			for _, f := range found {
				if bad[f.Key] == nil {
					bad[f.Key] = &[2]flaw{}
				}
				bad[f.Key][side] = flaw{detail: f.Detail, unread: i > 0}
			}
		}
	}
	if err := j.compareSides(ctx, &a, read, o.Pass); err != nil || len(bad) == 0 {
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

// flaw is why a content of a side is not shown to be what was left there.
type flaw struct {
	// detail is "" where nothing is wrong.
	detail string
	// unread says that it could not be read, which alone proves nothing.
	unread bool
}

// rotten picks out what nobody has touched. What was edited is no damage, and the
// next run carries it.
func (j *Job) rotten(ctx context.Context, bad map[string]*[2]flaw) ([]Rot, error) {
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
			if why[side].detail == "" {
				continue
			}
			if p.Dirty[side] {
				continue // It may have been edited without a trace in its times.
			}
			if j.untouched(ctx, &p, side) && (!why[side].unread || j.lost(ctx, &p, side)) {
				out = append(out, Rot{Key: p.Key, Side: side, Detail: why[side].detail, Lost: why[side].unread})
			}
		}
	}
	return out, ctx.Err()
}

// untouched reports whether a side says that it holds what was left there, or that
// this is damaged. A look that fails for any other reason tells neither.
func (j *Job) untouched(ctx context.Context, p *plan.Past, side plan.Side) bool {
	was := p.At(side)
	now, there, err := j.places[side].Look(ctx, was)
	return damaged(err) || err == nil && there && stillAs(&now, &was)
}

// damaged reports whether an error proves that what is kept is damaged. That it
// cannot be had for the moment, or not by this process, does not.
func damaged(err error) bool { return errors.Is(err, place.ErrCorrupt) || errors.Is(err, unix.EIO) }

// lost reads again what could not be read, and reports whether it is damaged.
func (j *Job) lost(ctx context.Context, p *plan.Past, side plan.Side) bool {
	want := p.Source.Sum.Shared(p.Dest.Sum)
	got, err := engine.Hash(ctx, j.places[side], p.At(side), want, pace.NewLimit(j.spec.BytesPerSecond), nil)
	switch {
	case err == nil:
		return unlike(got, want)
	case damaged(err):
		return true
	}
	// Of an object whose checksums do not fit any more MinIO says that it is busy, or
	// it breaks off. If it is, it cannot tell either what the object is.
	refused, ok := errors.AsType[*bucket.RequestError](err)
	withheld := ok && refused.Code == "SlowDownRead" || errors.Is(err, io.ErrUnexpectedEOF)
	return withheld && j.untouched(ctx, p, side)
}

// unlike reports whether a content that was read is not the one that is remembered.
func unlike(got, want entry.Sum) bool {
	return want.Contains(entry.HasBLAKE3) && got.BLAKE3 != want.BLAKE3 || want.Contains(entry.HasCRC32C) && got.CRC32C != want.CRC32C
}

// stillAs reports whether what is there claims to be what was left there.
func stillAs(now, was *entry.Entry) bool {
	if now.Kind != was.Kind || now.Size != was.Size || now.MTime != was.MTime || now.Change.Shows(was.Change) {
		return false
	}
	return !was.Sum.Contains(entry.HasETag) || !now.Sum.Contains(entry.HasETag) || now.Sum.ETag == was.Sum.ETag
}

// ErrSourceKept says that the source of a mirror that goes one way is not repaired
// from its copy unless that is asked for: who is right, the source's owner knows.
var ErrSourceKept = errors.New("a one-way mirror does not write into its source: restore it from a backup, or see that the destination's is the right one and audit again with leave to repair the source (--repair-source)")

// repair replaces what has rotted, where the other side holds it undamaged. intoSource
// says that the source may be written to.
func (j *Job) repair(ctx context.Context, bad map[string]*[2]flaw, rots []Rot, intoSource bool) error {
	byKey := map[string]*Rot{}
	for i := range rots {
		switch {
		case bad[rots[i].Key][rots[i].Side.Other()].detail != "":
			rots[i].Err = errors.New("the other side is damaged as well, or cannot be read: take it from a backup")
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
		switch r := byKey[p.Key]; {
		case r == nil:
		case j.lone(&p) == entry.Kept:
			r.Err = errors.New("it was kept at the destination only, and the source has it no more: take it from a backup")
		case j.lone(&p) != entry.NotLone:
			r.Err = errors.New("the other side has it no more, and a run is to delete it here: take it from a backup if it is still wanted")
		default:
			if r.Err = j.replace(ctx, &p, r.Side); r.Err == nil {
				r.Repaired = true
				fixed = append(fixed, p)
			}
		}
	}
	if len(fixed) == 0 {
		return nil
	}
	return j.note(ctx, func(yield func(plan.Past, error) bool) {
		for _, p := range fixed {
			if !yield(p, nil) {
				return
			}
		}
	})
}

// note remembers what was written beside a run.
func (j *Job) note(ctx context.Context, fixed iter.Seq2[plan.Past, error]) error {
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
	for p, err := range fixed {
		if err == nil {
			err = j.store.Note(p)
		}
		if err != nil {
			return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
		}
	}
	past := j.sealing()
	if err := past.Commit(); err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	_, _, err = j.seal(past)
	return errors.Join(err, past.close())
}

// ErrFailing says that what was just written reads differently again.
var ErrFailing = errors.New("what was written reads differently again: the medium is failing")

// replace writes one content anew from the other side and reads it again. Its own
// attributes stay.
func (j *Job) replace(ctx context.Context, p *plan.Past, side plan.Side) error {
	w := j.Worker()
	w.Tries = 1                              // What is not as it was left is for a run to carry.
	w.Places[side] = plainly(w.Places[side]) // which tells what is really there
	if err := intact(ctx, w, p, side.Other()); err != nil {
		return err
	}
	was := p.At(side)
	now, there, err := w.Places[side].Look(ctx, was)
	switch {
	case damaged(err), err == nil && !there:
		now = was // It cannot be said what is overwritten: what was left there is.
	case err != nil:
		return fmt.Errorf("look at what would be replaced: %w", err)
	case !stillAs(&now, &was):
		return fmt.Errorf("what would be replaced was edited meanwhile: %w", place.ErrChanged)
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
	got, err := engine.Hash(ctx, w.Places[side], written, want, w.Limit, w.Read)
	if err != nil {
		return err
	}
	want = want.Merge(written.Sum)
	if unlike(got, want) {
		return ErrFailing
	}
	if written, err = j.remembered(ctx, side, written); err != nil {
		return err
	}
	if side == plan.Source {
		p.Source = written
	} else {
		p.Dest = written
	}
	return nil
}

// intact reads what a repair is to be made from: it must be what was left there,
// before anything is overwritten with it.
func intact(ctx context.Context, w *engine.Worker, p *plan.Past, side plan.Side) error {
	want := p.At(side).Sum.Shared(p.At(side.Other()).Sum)
	if want.Has&(entry.HasBLAKE3|entry.HasCRC32C) == 0 {
		return errors.New("no hash is remembered that tells which side is right: compare them by hand")
	}
	got, err := engine.Hash(ctx, w.Places[side], p.At(side), want, w.Limit, w.Read)
	if err != nil {
		return fmt.Errorf("the %s cannot be read: %w", side, err)
	}
	if unlike(got, want) {
		return fmt.Errorf("the %s does not hold it any more either", side)
	}
	return nil
}
