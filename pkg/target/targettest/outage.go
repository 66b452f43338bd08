package targettest

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
)

// Outage is a driver whose service is down.
type Outage struct {
	Driver target.Driver
	// Config makes a configuration whose service is at an address, host:port.
	Config func(address string) json.RawMessage
	// Params are the parameters of each of the driver's probes, by its name. The first
	// claim of Write has to look at the service before it opens.
	Params map[string]json.RawMessage
	Write  string
}

// OpensInAnOutage checks that an observer which takes over while the service refuses or
// hangs has lanes all the same, and that their attempts say that it is down.
func OpensInAnOutage(t *testing.T, o Outage) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	t.Run("hangs", func(t *testing.T) { o.opens(t, address, false) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Run("refuses", func(t *testing.T) { o.opens(t, address, true) })
}

// opens opens every lane of a service that is down, as a later claim and as the first.
func (o Outage) opens(t *testing.T, address string, refuses bool) {
	tg, err := o.Driver.Open(t.Context(), target.Config{Name: "down", Raw: o.Config(address), Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	for _, lane := range []string{target.LanePooled, target.LaneFresh} {
		for name, params := range o.Params {
			p, err := tg.Observer.OpenProbe(t.Context(), target.ProbeSpec{
				Drill: drill, Probe: name, Name: name, Lane: lane, Params: params, Epoch: 2, Deadline: deadline,
			})
			if err != nil {
				t.Errorf("open %s/%s: %v", name, lane, err)
				continue
			}
			// Who was not answered cannot always say that nothing was done.
			if got, _ := attempt(t.Context(), p, 1); got.Result == target.OK || got.Err == nil || refuses && got.Result != target.Failed {
				t.Errorf("an attempt at %s/%s: %c %v", name, lane, got.Result, got.Err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	first, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := tg.Observer.OpenProbe(first, target.ProbeSpec{
		Drill: drill, Probe: o.Write, Name: "w", Lane: target.LanePooled, Epoch: 1, Deadline: deadline,
	}); err == nil {
		t.Error("the first claim's lane opens, and nobody has looked at the service")
	}
	if err := tg.Close(); err != nil {
		t.Error(err)
	}
}
