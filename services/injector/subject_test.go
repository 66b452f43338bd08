package injector

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// TestBadSubjectsAreAnswered: a sender who leaves out a token listens on
// drill.res.<who>.> like any other, and learns there what was wrong.
func TestBadSubjectsAreAnswered(t *testing.T) {
	r := newRig(t)
	r.inject("i1", newFakeDriver(), time.Second)
	for subject, name := range map[string]string{"drill.req.me": "unnamed", "drill.req.me.d.again": "d"} {
		ack, err := r.bus.Publish(t.Context(), subject, []byte(fakeDrill), "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		var got Result
		err = r.bus.FollowResults(ctx, "me", name, func(data []byte) error {
			if err := json.Unmarshal(data, &got); err != nil {
				return err
			}
			return bus.Stop
		})
		if err != nil {
			t.Fatalf("no answer to a request on %s: %v", subject, err)
		}
		if got.State != "rejected" || got.Request.Sequence != ack.Seq || len(got.Problems) != 1 ||
			got.Problems[0].Field != "subject" || got.Problems[0].Value != subject || got.Problems[0].Fix != requestForm {
			t.Errorf("%s: %+v", subject, got)
		}
	}
	if dead, err := r.bus.DeadLetters(t.Context()); err != nil || len(dead) != 0 {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
}
