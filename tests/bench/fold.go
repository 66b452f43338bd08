package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// foldDrill is the drill whose history is folded: small events, so that what an
// event costs by itself shows, and not its size.
const foldDrill = "bench-1"

// foldGoal is what the rate of folding should be of that of raw consumption.
const foldGoal = 0.5

// boundBySignatures is said of each way that verifies (ADR 8).
const boundBySignatures = "; the goal is that of fold/unverified: with signatures it is out of reach wherever fold/signatures-alone misses it"

// foldRounds is how often each way is measured; the median is given.
const foldRounds = 5

// way is one way of folding the same history.
type way struct {
	name, means string
	run         func(context.Context) error
}

// Folding compares ways of folding a history with consuming the same messages
// raw, from the same server in the same run.
func Folding(ctx context.Context, events int) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "firedrill-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f, err := newFoldBench(ctx, dir, events)
	if err != nil {
		return nil, err
	}
	defer f.close()
	var out []Figure
	for _, w := range f.ways() {
		ratios := make([]float64, 0, foldRounds)
		for range foldRounds {
			raw, err := timed(ctx, f.consumeRaw)
			if err != nil {
				return nil, err
			}
			took, err := timed(ctx, w.run)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			ratios = append(ratios, raw.Seconds()/took.Seconds())
		}
		out = append(out, Figure{Name: "fold/" + w.name, Value: percentile(ratios, 50), Unit: "x raw", Goal: foldGoal, Better: "higher", N: foldRounds, Means: w.means})
	}
	return out, nil
}

func timed(ctx context.Context, run func(context.Context) error) (time.Duration, error) {
	began := time.Now()
	err := run(ctx)
	return time.Since(began), err
}

// foldBench is a stored history and what it is read with.
type foldBench struct {
	server *bus.Embedded
	bus    *bus.Bus
	ring   event.Keyring
	events int
	// raws is the history as stored; taken is the same, taken in by the reporter's
	// fold; at is its end.
	raws  [][]byte
	taken fold.Intake
	at    bus.Tail
}

func newFoldBench(ctx context.Context, dir string, events int) (*foldBench, error) {
	quiet := slog.New(slog.DiscardHandler)
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	signer, err := ring.Signer(event.Injector)
	if err != nil {
		return nil, err
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Log: quiet})
	if err != nil {
		return nil, err
	}
	b, err := bus.Connect(ctx, bus.Options{Embedded: server, Keyring: ring.Keyring, Log: quiet,
		Identity: bus.Identity{Service: event.Injector, Instance: "bench", Signer: signer, Clock: clock.System()}})
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	f := &foldBench{server: server, bus: b, ring: ring.Keyring, events: events + 1}
	if err := f.fill(ctx, events); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *foldBench) close() {
	f.bus.Close()
	f.server.Shutdown()
}

// fill writes the history and reads it back.
func (f *foldBench) fill(ctx context.Context, events int) error {
	if err := f.bus.Bootstrap(ctx, bus.BootstrapOptions{Replicas: 1}); err != nil {
		return err
	}
	opening := event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: json.RawMessage(`{}`)}}
	if _, err := f.bus.Append(ctx, foldDrill, opening); err != nil {
		return err
	}
	const batch = 100
	for left := events; left > 0; left -= batch {
		drafts := make([]event.Draft, min(batch, left))
		for i := range drafts {
			drafts[i] = event.Draft{Type: event.TypeLeaseRenewed, Data: event.LeaseRenewed{Holder: "bench", Epoch: 1}}
		}
		if _, err := f.bus.Append(ctx, foldDrill, drafts...); err != nil {
			return err
		}
	}
	history, err := f.bus.History(ctx, foldDrill)
	if err != nil {
		return err
	}
	for _, s := range history {
		f.raws, f.at = append(f.raws, s.Raw), s.Tail()
		f.taken.Add(event.Opened{Raw: s.Raw, Event: s.Event, Hash: s.Tail().Hash, Err: s.Trust}, s.Payload)
	}
	return nil
}

func (f *foldBench) ways() []way {
	cores := runtime.GOMAXPROCS(0)
	return []way{
		{"verified", "read from the stream, every signature verified in order on one core, and applied: what each service does once with each event" + boundBySignatures, f.follow},
		{"report", "read from the stream, every signature verified once, and folded into a report" + boundBySignatures, f.report},
		{"report-from-file", fmt.Sprintf("the exported events, every signature verified once on %d cores, and folded into a report", cores) + boundBySignatures, f.reportFromFile},
		{"signatures-alone", fmt.Sprintf("nothing but one Ed25519 verification an event, on %d cores: no fold that verifies each signature by itself can be faster", cores), f.signaturesAlone},
		{"unverified", "the stored bytes decoded and applied, without signatures", f.unverified},
		{"report-again", "the report of a live drill that was reported before, as a page that is loaded again: asks for new events and folds those in memory", f.reportAgain},
	}
}

// consumeRaw reads the messages and looks at none.
func (f *foldBench) consumeRaw(ctx context.Context) error {
	nc, err := nats.Connect(f.server.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		return err
	}
	sub, err := js.SubscribeSync("drill.evt."+foldDrill+".>", nats.OrderedConsumer())
	if err != nil {
		return err
	}
	for range f.events {
		if _, err := sub.NextMsgWithContext(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *foldBench) follow(ctx context.Context) error {
	var s drill.State
	return f.bus.Follow(ctx, foldDrill, func(ev bus.Stored) error {
		if ev.Trust != nil {
			return ev.Trust
		}
		s = drill.Apply(s, ev.Event)
		if int(s.Index) == f.events {
			return bus.Stop
		}
		return nil
	})
}

func (f *foldBench) report(ctx context.Context) error {
	history, err := f.bus.History(ctx, foldDrill)
	if err != nil {
		return err
	}
	var n fold.Intake
	for _, s := range history {
		if s.Trust != nil {
			return s.Trust
		}
		n.Add(event.Opened{Raw: s.Raw, Event: s.Event, Hash: s.Tail().Hash}, s.Payload)
	}
	return f.whole(n.Report())
}

func (f *foldBench) reportFromFile(context.Context) error { return f.whole(fold.Fold(f.raws, f.ring)) }

func (f *foldBench) reportAgain(ctx context.Context) error {
	more, err := f.bus.HistoryAfter(ctx, foldDrill, f.at)
	if err != nil || len(more) > 0 {
		return fmt.Errorf("%d events came after the end: %w", len(more), err)
	}
	return f.whole(f.taken.Report())
}

// whole checks that a way has folded what it says.
func (f *foldBench) whole(r fold.Report, err error) error {
	if err == nil && (!r.Verification.Whole || r.Verification.Trusted != f.events) {
		err = fmt.Errorf("%d of %d events folded, whole: %v", r.Verification.Trusted, f.events, r.Verification.Whole)
	}
	return err
}

// unverified decodes and applies the stored history.
func (f *foldBench) unverified(context.Context) error {
	var s drill.State
	for _, raw := range f.raws {
		var e event.Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		s = drill.Apply(s, e)
	}
	if int(s.Index) != f.events {
		return fmt.Errorf("folded %d of %d events", s.Index, f.events)
	}
	return nil
}

// signaturesAlone verifies with the standard library and does nothing else; the
// parts of each event are cut out while the clock runs, which costs next to
// nothing.
func (f *foldBench) signaturesAlone(context.Context) error {
	key, err := f.key()
	if err != nil {
		return err
	}
	cores := runtime.GOMAXPROCS(0)
	bad := make([]int, cores)
	var wg sync.WaitGroup
	for c := range cores {
		wg.Go(func() {
			for i := c; i < len(f.raws); i += cores {
				if !signed(f.raws[i], key) {
					bad[c]++
				}
			}
		})
	}
	wg.Wait()
	for _, n := range bad {
		if n > 0 {
			return fmt.Errorf("%d signatures do not fit", n)
		}
	}
	return nil
}

// key is the one key that signed the whole history: an nkey is base32 of a
// prefix byte, the key and a checksum.
func (f *foldBench) key() (ed25519.PublicKey, error) {
	if n := len(f.ring[event.Injector]); n != 1 {
		return nil, fmt.Errorf("the injector has %d keys, want 1", n)
	}
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(f.ring[event.Injector][0])
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(b[1 : 1+ed25519.PublicKeySize]), nil
}

// signed verifies an event as a program in another language would: the signature
// is over the bytes with the last field cut off.
func signed(raw []byte, key ed25519.PublicKey) bool {
	head := []byte(`,"signature":"`)
	at := bytes.LastIndex(raw, head)
	if at < 0 {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(string(raw[at+len(head) : len(raw)-2]))
	if err != nil {
		return false
	}
	body := append(append(make([]byte, 0, at+1), raw[:at]...), '}')
	return ed25519.Verify(key, body, sig)
}
