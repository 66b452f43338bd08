package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MirrorLease says which run has a mirror, so that no two are planned at once. Its
// holder stores it again and again; whoever has seen it unchanged for long enough
// takes it over. Work that does not belong to the run that has the mirror is not to
// be carried out: that is what fences a holder off that has lost it unnoticed.
type MirrorLease struct {
	// Mirror is the mirror's name.
	Mirror string `json:"mirror"`
	// Run has the mirror; "" if none has.
	Run string `json:"run,omitempty"`
	// Instance is the process that plans the run.
	Instance string `json:"instance,omitempty"`
	// Memory is what the mirror's last run left of itself. It stays when the mirror
	// is given back.
	Memory MirrorMemory `json:"memory,omitzero"`
	// Seq is where the lease is stored, 0 if it never was; it grows each time the
	// lease is stored.
	Seq uint64 `json:"-"`
}

// MirrorMemory tells what a planner remembers of a mirror from what others do: the
// mirror moves between machines, and what is remembered of it may not.
type MirrorMemory struct {
	// ID stands for one copy of what is remembered; "" if nothing is known.
	ID string `json:"id,omitempty"`
	// Generation grows with what is remembered.
	Generation int64 `json:"generation,omitempty"`
	// Instance is the process that used it last, for people.
	Instance string `json:"instance,omitempty"`
}

const mirrorLeases = "mirror.lease.*" // mirror

// MirrorLease reads who has a mirror. What cannot be read as a lease is an error: it
// must not let a second one in.
func (b *Bus) MirrorLease(ctx context.Context, mirror string) (MirrorLease, error) {
	r, err := b.get(ctx, StreamMirrorLease, getRequest{LastFor: "mirror.lease." + mirror})
	if errors.Is(err, errNoRecord) {
		return MirrorLease{Mirror: mirror}, nil
	}
	if err != nil {
		return MirrorLease{}, fmt.Errorf("read who has mirror %s: %w", mirror, err)
	}
	l := MirrorLease{Seq: r.Seq}
	if err := json.Unmarshal(r.Data, &l); err != nil || l.Mirror != mirror {
		return MirrorLease{}, fmt.Errorf("read who has mirror %s: message %d of stream %s is no lease of it", mirror, r.Seq, StreamMirrorLease)
	}
	return l, nil
}

// TakeMirrorLease gives the mirror of l to a run, if nothing was stored since l was
// read; else the error is ErrConflict, and the caller reads it again. With the run
// that has it already it is renewed, with "" given back; the memory of l is stored
// too. It returns what is stored.
func (b *Bus) TakeMirrorLease(ctx context.Context, l MirrorLease, run string) (MirrorLease, error) {
	next := MirrorLease{Mirror: l.Mirror, Run: run, Memory: l.Memory}
	if run != "" {
		next.Instance = b.id.Instance
	}
	if !token(l.Mirror) {
		return MirrorLease{}, fmt.Errorf("take mirror %q: the name must be a single subject token", l.Mirror)
	}
	data, err := json.Marshal(next)
	if err != nil {
		return MirrorLease{}, fmt.Errorf("take mirror %s for run %s: %w", l.Mirror, run, err)
	}
	m := nats.NewMsg("mirror.lease." + l.Mirror)
	m.Data = data
	m.Header.Set("Content-Type", "application/json")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(l.Seq, 10))
	ack, err := b.publish(ctx, m, "")
	if isCode(err, codeWrongLastSequence) {
		return MirrorLease{}, fmt.Errorf("take mirror %s for run %s: %w", l.Mirror, run, ErrConflict)
	}
	if err != nil {
		return MirrorLease{}, err
	}
	next.Seq = ack.Seq
	return next, nil
}
