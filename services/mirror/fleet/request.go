package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// Request is the body of mirror.req.<who>.<mirror>; an empty message is the zero
// value.
type Request struct {
	// Do is sync, verify (compare both sides with what the last run left, to a level), drift
	// (list what differs from that) or audit (read everything on both sides); sync if left
	// out.
	Do string `json:"do,omitempty" jsonschema:"enum=sync,enum=verify,enum=drift,enum=audit"`
	// Check is what a sync goes by for the destination: auto, state, listing or audit; auto
	// if left out.
	Check string `json:"check,omitempty" jsonschema:"enum=auto,enum=state,enum=listing,enum=audit"`
	// DryRun has a sync do nothing but say what would be done.
	DryRun bool `json:"dryRun,omitempty"`
	// Level is how thoroughly to verify: L1, L2, L3 or L4; L1 if left out.
	Level string `json:"level,omitempty" jsonschema:"enum=L1,enum=L2,enum=L3,enum=L4"`
	// Side is what to verify: source, destination or both; both if left out.
	Side string `json:"side,omitempty" jsonschema:"enum=source,enum=destination,enum=both"`
	// Period is, for L3, within how long everything is to be read once; 720h if left out.
	Period event.Duration `json:"period,omitempty"`
	// Read is, for L3, how much is read now, such as 5% or 10Gi; what is due if left out.
	Read string `json:"read,omitempty"`
	// Repair has an audit replace what has rotted in the destination with what the source
	// holds undamaged, in a two-way mirror the reverse as well; RepairSource has it write
	// into the source of a one-way mirror, too.
	Repair       bool `json:"repair,omitempty"`
	RepairSource bool `json:"repairSource,omitempty"`
}

// RequestError names what about a request is wrong.
type RequestError struct {
	// Field is that of the JSON, Problem what is wrong with it and what to write.
	Field, Problem string
}

// Error names the field, and what to write.
func (e *RequestError) Error() string { return e.Field + ": " + e.Problem }

// Comparison gives what a request asks for that is no sync. The error is a *RequestError.
func (r Request) Comparison() (job.Comparison, error) {
	c := job.Comparison{
		What: r.Do, Level: proof.L1, Sides: []plan.Side{plan.Source, plan.Dest}, Period: r.Period.D(),
		Repair: r.Repair, RepairSource: r.RepairSource,
	}
	if err := r.fits(); err != nil {
		return c, err
	}
	if r.Do == drill.MirrorAudit {
		c.Level = proof.L4
	}
	if r.Level != "" {
		if !slices.Contains(drill.MirrorLevels, r.Level) {
			only := ""
			if r.Level == proof.L0.String() {
				only = "; L0 looks at neither side, and is for firedrill mirror verify where the mirror ran"
			}
			return c, &RequestError{"level", fmt.Sprintf("%q is no level: use L1, L2, L3 or L4%s", r.Level, only)}
		}
		if err := c.Level.UnmarshalText([]byte(r.Level)); err != nil {
			return c, &RequestError{"level", err.Error()}
		}
	}
	switch r.Side {
	case "", "both":
	case plan.Source.String():
		c.Sides = c.Sides[:1]
	case plan.Dest.String():
		c.Sides = c.Sides[1:]
	default:
		return c, &RequestError{"side", fmt.Sprintf("%q is no side: use source, destination or both", r.Side)}
	}
	if r.Period < 0 {
		return c, &RequestError{"period", fmt.Sprintf("%v is no time in which everything could be read: use hours, such as 720h", r.Period)}
	}
	if r.Read != "" {
		var err error
		if c.Read, err = verify.ParseAmount(r.Read); err != nil {
			return c, &RequestError{"read", fmt.Sprintf("%q: %v", r.Read, err)}
		}
	}
	return c, nil
}

// fits refuses what is for something else than what the request asks for.
func (r Request) fits() error {
	for _, f := range []struct {
		field, value string
		given        bool
		do           string
	}{
		{"check", fmt.Sprintf("%q", r.Check), r.Check != "", drill.MirrorSync},
		{"dryRun", "true", r.DryRun, drill.MirrorSync},
		{"level", fmt.Sprintf("%q", r.Level), r.Level != "", drill.MirrorVerify},
		{"side", fmt.Sprintf("%q", r.Side), r.Side != "", drill.MirrorVerify},
		{"period", r.Period.String(), r.Period != 0, drill.MirrorVerify},
		{"read", fmt.Sprintf("%q", r.Read), r.Read != "", drill.MirrorVerify},
		{"repair", "true", r.Repair, drill.MirrorAudit},
		{"repairSource", "true", r.RepairSource, drill.MirrorAudit},
	} {
		if f.given && r.Do != f.do {
			return &RequestError{f.field, fmt.Sprintf(`%s is for "do": %q, and this asks for %q: leave it out, or ask for that`, f.value, f.do, r.Do)}
		}
	}
	switch {
	case r.Level != proof.L3.String() && r.Period != 0:
		return &RequestError{"period", "it is for level L3 only"}
	case r.Level != proof.L3.String() && r.Read != "":
		return &RequestError{"read", "it is for level L3 only"}
	case r.RepairSource && !r.Repair:
		return &RequestError{"repairSource", "it says how far repair may go: give that, too"}
	}
	return nil
}

// task is what a request asks for, understood: a sync or a comparison.
type task struct {
	// do is drill.MirrorSync or what the comparison is.
	do      string
	sync    job.SyncOptions
	compare job.Comparison
}

// compares reports whether the task is a comparison.
func (t task) compares() bool { return t.do != drill.MirrorSync }

// use is what the task does at the mirror's places.
func (t task) use() job.Use {
	switch {
	case t.compares():
		return t.compare.Use()
	case t.sync.DryRun:
		return job.Looks
	}
	return job.Runs
}

// task understands a request.
func (r Request) task() (task, error) {
	if r.Do == "" {
		r.Do = drill.MirrorSync
	}
	t := task{do: r.Do}
	var err error
	switch r.Do {
	case drill.MirrorSync:
		t.sync.DryRun = r.DryRun
		if err = r.fits(); err != nil {
			return t, err
		}
		if t.sync.Check, err = engine.ParseCheck(r.Check); err != nil {
			err = &RequestError{"check", err.Error()}
		}
	case drill.MirrorVerify, drill.MirrorDrift, drill.MirrorAudit:
		t.compare, err = r.Comparison()
	default:
		err = &RequestError{"do", fmt.Sprintf("%q is unknown: use sync, verify, drift or audit", r.Do)}
	}
	return t, err
}

// on refuses what cannot be done with a mirror.
func (t task) on(m drill.Mirror) error {
	if t.compares() && m.Snapshots != nil {
		return &RequestError{"do", fmt.Sprintf("%q: %v", t.do, job.ErrSnapshots)}
	}
	return nil
}

// maxRequest is how long a request may be, in bytes.
const maxRequest = 64 << 10

func parseRequest(data []byte) (task, error) {
	var r Request
	if len(data) > maxRequest {
		return task{}, fmt.Errorf("the request has %d bytes: at most %d are read", len(data), maxRequest)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return r.task()
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return task{}, fmt.Errorf(`the request is not as it should be: %w; write {}, {"check": "listing", "dryRun": true} or {"do": "verify", "level": "L2"}`, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return task{}, errors.New("the request goes on behind its end: send one JSON object")
	}
	return r.task()
}
