package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Claim says which drill has a system, so that no two break it at once. It stays
// when the drill is over: whoever wants the system next asks whether that drill
// still has something to undo, and takes the claim over.
type Claim struct {
	// System is the target's identity.
	System string `json:"system"`
	// Drill is the last one that took it; empty when none ever did.
	Drill string `json:"drill"`
	// seq is where the claim is stored: TakeClaim compares with it.
	seq uint64
}

func claimSubject(system string) string {
	sum := sha256.Sum256([]byte(system))
	return "drill.claim." + hex.EncodeToString(sum[:16])
}

// ClaimOf returns the claim on a system. A claim that cannot be read is an error:
// what cannot be understood must not let a second drill in.
func (b *Bus) ClaimOf(ctx context.Context, system string) (Claim, error) {
	r, err := b.get(ctx, StreamControl, getRequest{LastFor: claimSubject(system)})
	if errors.Is(err, errNoRecord) {
		return Claim{System: system}, nil
	}
	if err != nil {
		return Claim{}, fmt.Errorf("read the claim on %s: %w", system, err)
	}
	c := Claim{seq: r.Seq}
	if err := json.Unmarshal(r.Data, &c); err != nil || c.Drill == "" || c.System != system {
		return Claim{}, fmt.Errorf("read the claim on %s: message %d of stream %s is not one", system, r.Seq, StreamControl)
	}
	return c, nil
}

// TakeClaim gives the system of c to a drill, if nobody took it since c was read;
// else the error is ErrConflict, and the caller reads it again.
func (b *Bus) TakeClaim(ctx context.Context, c Claim, drill string) error {
	data, err := json.Marshal(Claim{System: c.System, Drill: drill})
	if err != nil {
		return fmt.Errorf("claim %s: %w", c.System, err)
	}
	m := nats.NewMsg(claimSubject(c.System))
	m.Data = data
	m.Header.Set("Content-Type", "application/json")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(c.seq, 10))
	_, err = b.publish(ctx, m, "")
	if isCode(err, codeWrongLastSequence) {
		return fmt.Errorf("claim %s for drill %s: %w", c.System, drill, ErrConflict)
	}
	return err
}
