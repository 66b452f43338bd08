package target

import (
	"context"
	"fmt"
	"time"
)

// Call calls a driver so that neither its panic nor its hanging reaches the
// service: both become errors. A result that comes too late is handed to late,
// which may be nil. what begins the error: what was tried, and on what.
func Call[T any](ctx context.Context, limit time.Duration, what string, call func(context.Context) (T, error), late func(T)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("the driver panicked: %v", p)
			}
			done <- r
		}()
		r.v, r.err = call(ctx)
	}()
	var none T
	select {
	case r := <-done:
		cancel()
		if r.err != nil {
			return none, fmt.Errorf("%s: %w", what, r.err)
		}
		return r.v, nil
	case <-ctx.Done():
	}
	// A driver that keeps to its context gets a moment to say why it failed.
	defer cancel()
	grace := time.NewTimer(time.Second)
	defer grace.Stop()
	select {
	case r := <-done:
		if r.err == nil {
			return r.v, nil
		}
		return none, fmt.Errorf("%s: %w", what, r.err)
	case <-grace.C:
		go func() {
			if r := <-done; r.err == nil && late != nil {
				late(r.v)
			}
		}()
		return none, fmt.Errorf("%s: the driver did not return within %v: %w", what, limit, ctx.Err())
	}
}
