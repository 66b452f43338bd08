package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// Comparison is what is asked for by whoever wants a mirror compared with what its last run
// left.
type Comparison struct {
	// What is drill.MirrorVerify, drill.MirrorDrift or drill.MirrorAudit.
	What string
	// Level is how thoroughly, and Sides which ones: L1 and both for drift, L4 and both for
	// an audit.
	Level proof.Level
	Sides []plan.Side
	// Period and Read are those of [VerifyOptions].
	Period time.Duration
	Read   verify.Amount
	// Repair and RepairSource are those of [AuditOptions].
	Repair, RepairSource bool
	// Pass, if not nil, is asked before more is looked at, and returns once that may be, or
	// with the error of ctx. It is called often and concurrently.
	Pass func(ctx context.Context) error
	// Seen and Bytes are those of [VerifyOptions].
	Seen  func(plan.Side, entry.Entry)
	Bytes func(int)
}

// Compared is what a comparison has shown.
type Compared struct {
	Comparison
	// Shown are the sides that could be compared.
	Shown []Verified
	// Audited is what an audit has shown; nil for the rest.
	Audited *Audited
}

// ErrSnapshots says that a mirror which brings over snapshots is not compared.
var ErrSnapshots = errors.New("it brings over snapshots, each of which was verified when it arrived: nothing of it is compared here; firedrill zfs check reads an archive")

// Use is what the comparison does at a mirror's places.
func (c Comparison) Use() Use {
	switch {
	case c.RepairSource:
		return Repairs
	case c.Repair:
		return Runs
	}
	return Looks
}

// OpenLast opens a mirror for what is done with what its last run left, and makes nothing
// where no run has left anything: the error is ErrNothingKnown then, ErrSnapshots, or as those
// of OpenRun. The caller closes the job.
func (e Env) OpenLast(ctx context.Context, m drill.Mirror, u Use) (*Job, error) {
	if m.Snapshots != nil {
		return nil, fmt.Errorf("mirror %s: %w", m.Name, ErrSnapshots)
	}
	if err := e.Known(m); err != nil {
		return nil, err
	}
	return e.openJob(ctx, m, u)
}

// OpenManifest is OpenLast for [Job.CheckManifest] alone: it opens neither place.
func (e Env) OpenManifest(m drill.Mirror) (*Job, error) {
	if err := e.Known(m); err != nil {
		return nil, err
	}
	s, err := parse(m)
	if err != nil {
		return nil, err
	}
	j := &Job{env: e, spec: s}
	return j, j.openState()
}

// CheckManifest reads all of the manifest of the last run, and gives its root: the error says
// that they do not fit, or that nobody who is trusted vouches for it. It is L0, which says
// nothing about what the places hold.
func (j *Job) CheckManifest(ctx context.Context) (root proof.Signed, err error) {
	if root, err = j.Root(); err != nil {
		return root, err
	}
	f, err := os.Open(j.store.Path(manifestName))
	if err != nil {
		return root, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := proof.NewReader(f)
	for _, err := range r.Entries() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return root, fmt.Errorf("mirror %s: manifest: %w", j.spec.Name, err)
		}
	}
	if now, _ := r.Root(); now != root.Root {
		return root, fmt.Errorf("mirror %s: manifest: %w: it is not the one that was signed", j.spec.Name, proof.ErrCorrupt)
	}
	return root, nil
}

// Size is how many entries a comparison looks at, and how many bytes it reads, as far as
// they are where they should be; 0 where that is not known.
func (j *Job) Size(c Comparison) (entries, bytes int64) {
	signed, err := j.Root()
	if err != nil {
		return 0, 0 // which the comparison itself will say
	}
	if c.Level == proof.L4 {
		bytes = signed.Root.Bytes
	}
	return signed.Root.Entries * int64(len(c.Sides)), bytes * int64(len(c.Sides))
}

// Compare makes a comparison. With an error, what was shown before it is in the result.
func (j *Job) Compare(ctx context.Context, c Comparison) (Compared, error) {
	out := Compared{Comparison: c}
	if c.Pass != nil {
		if err := c.Pass(ctx); err != nil {
			return out, err
		}
	}
	if c.What == drill.MirrorAudit {
		a, err := j.Audit(ctx, AuditOptions{Repair: c.Repair, RepairSource: c.RepairSource, Pass: c.Pass, Seen: c.Seen, Bytes: c.Bytes})
		for _, v := range a.Sides {
			if v.Place != "" { // else it was not come so far
				out.Shown = append(out.Shown, v)
			}
		}
		out.Audited = &a
		return out, err
	}
	var err error
	out.Shown, err = j.VerifySides(ctx, c.Sides, VerifyOptions{Level: c.Level, Period: c.Period, Read: c.Read, Pass: c.Pass, Seen: c.Seen, Bytes: c.Bytes})
	return out, err
}

// Good reports whether all is as it should be: to verify, that each side holds the contents
// of the manifest and nothing else; to look for drift, that neither are the attributes
// others, but for owners that this process may not set; to audit, see [Audited.Clean].
func (c Compared) Good() bool {
	switch c.What {
	case drill.MirrorAudit:
		return c.Audited.Clean()
	case drill.MirrorDrift:
		return c.verified() && !c.Differs()
	}
	return c.verified()
}

func (c Compared) verified() bool {
	return !slices.ContainsFunc(c.Shown, func(v Verified) bool { return !v.Verified() })
}

// Differs reports whether a side was seen not to be what the last run left there, or nothing
// of it was there to be looked at. What could only not be shown, as at L3 before everything
// was read once, does not differ.
func (c Compared) Differs() bool {
	if a := c.Audited; a != nil && len(a.Rotten) > 0 || a != nil && a.Apart.Count > 0 {
		return true
	}
	return slices.ContainsFunc(c.Shown, func(v Verified) bool { return v.astray() || v.Inconclusive() })
}

// Reached is the level of proof that was reached for every entry of every side; LevelNone
// where no side was looked at.
func (c Compared) Reached() proof.Level {
	if len(c.Shown) == 0 {
		return proof.LevelNone
	}
	least := proof.L4
	for _, v := range c.Shown {
		least = min(least, v.Verdict.Level)
	}
	return least
}
