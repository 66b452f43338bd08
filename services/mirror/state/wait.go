package state

import (
	"context"
	"errors"
	"time"
)

// waitEvery is how often a state is tried that another process has open.
const waitEvery = time.Second

// Wait calls open, and again each second for as long as its error is a
// [*LockedError], and returns what it returned last. busy is told once, before the
// first wait, who has the state; its error ends the wait, and so does the end of ctx
// with that context's error.
func Wait(ctx context.Context, open func() error, busy func(*LockedError) error) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for told := false; ; {
		err := open()
		locked, ok := errors.AsType[*LockedError](err)
		if !ok {
			return err
		}
		if !told {
			told = true
			if err := busy(locked); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
