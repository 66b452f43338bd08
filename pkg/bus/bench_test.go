package bus_test

import (
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

// benchBus is a bus to an embedded server that synchronises every write.
func benchBus(b *testing.B) *bus.Bus {
	b.Helper()
	e, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: b.TempDir(), Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Shutdown)
	k, err := keys.New()
	if err != nil {
		b.Fatal(err)
	}
	out, err := bus.Connect(b.Context(), bus.Options{
		Embedded: e, Log: quiet(), Keyring: event.Keyring{event.Injector: {k.Public()}},
		Identity: bus.Identity{Service: event.Injector, Instance: "bench", Signer: k, Clock: clock.System()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(out.Close)
	if err := out.Bootstrap(b.Context(), bus.BootstrapOptions{}); err != nil {
		b.Fatal(err)
	}
	return out
}

func BenchmarkAppend(b *testing.B) {
	w := benchBus(b)
	for i := 0; b.Loop(); i++ {
		if _, err := w.Append(b.Context(), "d", phase(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHistoryOf1000(b *testing.B) {
	w := benchBus(b)
	drafts := make([]event.Draft, 500)
	for i := range drafts {
		drafts[i] = phase(i)
	}
	for range 2 {
		if _, err := w.Append(b.Context(), "d", drafts...); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		h, err := w.History(b.Context(), "d")
		if err != nil || len(h) != 1000 {
			b.Fatalf("%d events, %v", len(h), err)
		}
	}
}
