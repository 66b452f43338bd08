package job

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// readSide verifies a side by reading it, and keeps what was read for the comparison
// with the other side.
func (j *Job) readSide(ctx context.Context, side plan.Side, o AuditOptions, into *state.Spill) (Verified, error) {
	var failed error
	v, err := j.Verify(ctx, side, VerifyOptions{Level: proof.L4, Pass: o.Pass, Bytes: o.Bytes, Seen: func(side plan.Side, e entry.Entry) {
		if o.Seen != nil {
			o.Seen(side, e)
		}
		e.Xattrs = nil // which may be large, and are no content
		if failed == nil {
			failed = into.Push(plan.Action{Op: plan.Equal, Key: e.Key(), Source: e})
		}
	}})
	if failed != nil {
		failed = fmt.Errorf("mirror %s: remember what was read: %w", j.spec.Name, failed)
	}
	return v, errors.Join(err, failed)
}

// compareSides compares what was read on both sides with each other.
func (j *Job) compareSides(ctx context.Context, a *Audited, read [2]*state.Spill, pass func(context.Context) error) (err error) {
	m, _, done, err := j.manifest()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var sides [2]*reading
	for s := range sides {
		sides[s] = newReading(read[s].All())
		defer sides[s].stop()
		sides[s].how = proof.Evidence{Level: proof.L4, Vouched: true, Metadata: j.places[s].Traits().Lists&plan.AttrMode != 0}
	}
	keep := j.filter()
	for want, err := range m.Entries() {
		if err == nil && (want.Lone != entry.NotLone || keep != nil && !keep(want.Path, want.Kind)) {
			continue // or it is on one side only
		}
		if err == nil && pass != nil {
			err = pass(ctx)
		}
		if err == nil {
			err = a.compare(want, sides)
		}
		if err != nil {
			return fmt.Errorf("mirror %s: compare both sides: %w", j.spec.Name, err)
		}
	}
	return nil
}

// reading moves through what was read on one side.
type reading struct {
	next func() (plan.Action, error, bool)
	stop func()
	how  proof.Evidence
	head plan.Action
	more bool
	err  error
}

func newReading(all iter.Seq2[plan.Action, error]) *reading {
	r := &reading{}
	r.next, r.stop = iter.Pull2(all)
	r.advance()
	return r
}

func (r *reading) advance() { r.head, r.err, r.more = r.next() }

// at gives what was read at a key, if anything was; it is asked for keys in their order.
func (r *reading) at(key string) (entry.Entry, bool, error) {
	for r.more && r.err == nil && r.head.Key < key {
		r.advance()
	}
	return r.head.Source, r.more && r.err == nil && r.head.Key == key, r.err
}

// compare compares what both sides hold at a key of the manifest. What one of them
// lacks, or holds another content of than the manifest says, their verdicts have told.
func (a *Audited) compare(want entry.Entry, sides [2]*reading) error {
	key := want.Key()
	if want.Kind == entry.File {
		a.Contents++
	}
	var got [2]entry.Entry
	told, least := false, proof.L4
	for s, r := range sides {
		e, there, err := r.at(key)
		if err != nil {
			return err
		}
		level, detail := proof.LevelNone, ""
		if there {
			level, detail = proof.Compare(want, e, r.how)
		}
		got[s], told, least = e, told || !there || detail != "", min(least, level)
	}
	switch {
	case told:
	case want.Kind != entry.File && least < proof.L4:
		a.Unchecked.Add(key, "the places do not tell what it is")
	case want.Kind != entry.File:
	case !got[plan.Source].Sum.Contains(entry.HasBLAKE3):
		a.Unchecked.Add(key, "the source's could not be read")
	case !got[plan.Dest].Sum.Contains(entry.HasBLAKE3):
		a.Unchecked.Add(key, "the destination's could not be read")
	case got[plan.Source].Sum.BLAKE3 != got[plan.Dest].Sum.BLAKE3:
		a.Apart.Add(key, "no run has read it on both sides, so that nothing tells which of them is right: compare them by hand; in a one-way mirror a run that audits copies the source's")
	default:
		a.Checked++
	}
	return nil
}
