package target

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Poll calls f, with a pause of every in between, until it says true, fails for good,
// or ctx or the limit ends, whose context f gets; the last reason that f gave is then in
// the error, also where f fails because its context has ended.
func Poll(ctx context.Context, limit, every time.Duration, what string, f func(context.Context) (done bool, why string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began, last := time.Now(), ""
	over := func(err error) error {
		return fmt.Errorf("waited %v for %s: %s: %w", time.Since(began).Round(time.Millisecond), what, last, err)
	}
	for {
		done, why, err := f(ctx)
		last = cmp.Or(why, last)
		switch {
		case err != nil && ctx.Err() != nil && last != "":
			return over(err)
		case err != nil || done:
			return err
		}
		select {
		case <-ctx.Done():
			return over(context.Cause(ctx))
		case <-time.After(every):
		}
	}
}

// Judge is a property that passes or fails.
func Judge(name string, ok bool, found, wanted string) event.Property {
	p := event.Property{Name: name, Result: event.ResultFail, Found: found, Wanted: wanted}
	if ok {
		p.Result = event.ResultPass
	}
	return p
}

// Named finds an operation in a driver's table. Its error is an ErrUnsupported.
func Named[K any](table []K, name string, nameOf func(K) string) (K, error) {
	for _, k := range table {
		if nameOf(k) == name {
			return k, nil
		}
	}
	var none K
	return none, fmt.Errorf("operation %q: %w; see the driver's README", name, ErrUnsupported)
}
