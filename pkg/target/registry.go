package target

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// openTime bounds opening and closing a target.
const openTime = 30 * time.Second

// Registry is the set of drivers a process knows: a value, so that tests and
// programs choose their own. It is immutable.
type Registry struct{ drivers map[string]Driver }

// NewRegistry returns a registry of the given drivers.
func NewRegistry(ds ...Driver) Registry {
	r := Registry{drivers: make(map[string]Driver, len(ds))}
	for _, d := range ds {
		r.drivers[d.Name()] = d
	}
	return r
}

// Driver finds a driver by name.
func (r Registry) Driver(name string) (Driver, bool) {
	d, ok := r.drivers[name]
	return d, ok
}

// Open opens a target with the named driver, which gets 30 s for it.
func (r Registry) Open(ctx context.Context, driver string, c Config) (*Target, error) {
	d, ok := r.drivers[driver]
	if !ok {
		return nil, fmt.Errorf("target %q: unknown driver %q: this build has %s", c.Name, driver, strings.Join(r.Names(), ", "))
	}
	return Call(ctx, openTime, fmt.Sprintf("opening target %q (%s)", c.Name, driver), func(ctx context.Context) (*Target, error) {
		t, err := d.Open(ctx, c)
		if err == nil {
			t.Driver = d
		}
		return t, err
	}, func(t *Target) { _ = t.Release(ctx) })
}

// Release closes a target that nobody uses any more. Unlike Close it may be
// called on a target without a Close, returns within 30 s and does not panic; it
// works after ctx has ended.
func (t *Target) Release(ctx context.Context) error {
	if t.Close == nil {
		return nil
	}
	_, err := Call(context.WithoutCancel(ctx), openTime, "closing the target", func(context.Context) (struct{}, error) {
		return struct{}{}, t.Close()
	}, nil)
	return err
}

// Names lists the drivers, sorted.
func (r Registry) Names() []string {
	out := make([]string, 0, len(r.drivers))
	for n := range r.drivers {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
