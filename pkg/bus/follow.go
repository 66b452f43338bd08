package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
)

// Follow calls fn for the drill's whole history and then for each new message,
// in order and each once, until ctx ends (whose error it returns) or fn returns
// an error (which it returns; Stop ends without one). It goes on by itself after
// a lost connection or a restart of the server. Each message is verified: fn
// must look at Trust, and fold only trusted ones.
func (b *Bus) Follow(ctx context.Context, drill string, fn func(Stored) error) error {
	if !event.IsDrillID(drill) {
		return fmt.Errorf("follow drill %q: that is no drill id", drill)
	}
	var c chain
	return b.read(ctx, feed{stream: StreamDrills, filter: drillFilter(drill)}, func(r record) error {
		s := c.link(open(r, b.keyring))
		b.tails.put(drill, s)
		return fn(s)
	})
}

// History returns everything stored on the drill's subjects so far, verified as
// by Follow, trusted or not. It includes every append that was acknowledged
// before the call. ErrNoDrill says that there is nothing.
func (b *Bus) History(ctx context.Context, drill string) ([]Stored, error) {
	out, err := b.HistoryAfter(ctx, drill, Tail{})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("history of drill %s: %w", drill, ErrNoDrill)
	}
	return out, nil
}

// HistoryAfter is History without the messages up to a place that the caller
// has read: the Tail of the last one it got from History, Follow or HistoryAfter.
// The messages are verified as by History, those before are not read again. It
// gives none, without an error, when the place is the drill's end. What was read
// before an error comes along with it.
func (b *Bus) HistoryAfter(ctx context.Context, drill string, at Tail) ([]Stored, error) {
	if !event.IsDrillID(drill) {
		return nil, fmt.Errorf("history of drill %q: that is no drill id: %w", drill, ErrNoDrill)
	}
	records, err := b.recordsAfter(ctx, drill, at.Seq)
	if err != nil {
		err = fmt.Errorf("history of drill %s after sequence %d: %w", drill, at.Seq, err)
	}
	raws := make([][]byte, len(records))
	for i, r := range records {
		raws[i] = r.Data
	}
	// Verifying costs more than reading, and goes over all cores.
	out := make([]Stored, len(records))
	c := chain{at: at}
	for i, o := range event.OpenAll(raws, b.keyring) {
		out[i] = c.link(stored(records[i], o))
	}
	if len(out) > 0 {
		b.tails.put(drill, out[len(out)-1])
	}
	return out, err
}

// few is how many messages are fetched one by one before a consumer is made for
// the rest: the server keeps each consumer for a while after its reader is gone,
// and whoever watches a live drill asks often for little.
const few = 3

// recordsAfter reads the drill's messages after a sequence of the stream.
func (b *Bus) recordsAfter(ctx context.Context, drill string, seq uint64) (out []record, err error) {
	last, err := b.get(ctx, StreamDrills, getRequest{LastFor: drillFilter(drill)})
	switch {
	case errors.Is(err, errNoRecord), err == nil && last.Seq <= seq:
		return nil, nil
	case err != nil:
		return nil, err
	}
	for seq > 0 && len(out) < few {
		r, err := b.get(ctx, StreamDrills, getRequest{Seq: seq + 1, NextFor: drillFilter(drill)})
		if err != nil {
			return out, err
		}
		if out, seq = append(out, r), r.Seq; seq >= last.Seq {
			return out, nil
		}
	}
	err = b.read(ctx, feed{stream: StreamDrills, filter: drillFilter(drill), after: seq}, func(r record) error {
		out = append(out, r)
		if r.Seq >= last.Seq {
			return Stop
		}
		return nil
	})
	return out, err
}

// First returns a drill's first message, as History does, without reading the
// others. ErrNoDrill says that there is none.
func (b *Bus) First(ctx context.Context, drill string) (Stored, error) {
	if !event.IsDrillID(drill) {
		return Stored{}, fmt.Errorf("first event of drill %q: that is no drill id: %w", drill, ErrNoDrill)
	}
	r, err := b.get(ctx, StreamDrills, getRequest{Seq: 1, NextFor: drillFilter(drill)})
	if errors.Is(err, errNoRecord) {
		err = ErrNoDrill
	}
	if err != nil {
		return Stored{}, fmt.Errorf("first event of drill %s: %w", drill, err)
	}
	var c chain
	return c.link(open(r, b.keyring)), nil
}

const acceptedFilter = "drill.evt.*.injector.drill-accepted"

// WatchDrills calls fn once, with its first event, for every drill that is accepted
// and not finished, oldest first, and then for each new one, until ctx ends. Only drills that a
// trusted event opened count, and only trusted events finish one. fn must not
// block for long.
func (b *Bus) WatchDrills(ctx context.Context, fn func(accepted Stored)) error {
	seen := map[string]bool{}
	return b.read(ctx, feed{stream: StreamDrills, filter: acceptedFilter}, func(r record) error {
		s := open(r, b.keyring)
		id := s.Event.Subject
		if s.Trust != nil || seen[id] {
			return nil
		}
		finished, err := b.lastOfPatiently(ctx, id, event.TypeDrillFinished)
		if err != nil {
			return err
		}
		seen[id] = true
		if finished == nil {
			fn(s)
		}
		return nil
	})
}

// lastOf returns the drill's last trusted event of a type, or nil.
func (b *Bus) lastOf(ctx context.Context, drill string, t event.Type) (*Stored, error) {
	info, ok := event.Lookup(t)
	if !ok {
		return nil, fmt.Errorf("type %q is not in the table of types", t)
	}
	rec, err := b.get(ctx, StreamDrills, getRequest{LastFor: EventSubject(drill, info.Service, t)})
	if errors.Is(err, errNoRecord) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := open(rec, b.keyring)
	if s.Trust != nil {
		return nil, nil
	}
	return &s, nil
}

// lastOfPatiently is lastOf for watchers, which outlast any outage of the server.
func (b *Bus) lastOfPatiently(ctx context.Context, drill string, t event.Type) (*Stored, error) {
	for try := 0; ; try++ {
		s, err := b.lastOf(ctx, drill, t)
		if err == nil || !isTransient(err) {
			return s, err
		}
		if err := pause(ctx, backoff(try)); err != nil {
			return nil, err
		}
	}
}

// Summary is one drill of a list. Finished and Published are nil as long as the
// drill has not come so far.
type Summary struct {
	Drill     string
	Accepted  *Stored
	Finished  *Stored
	Published *Stored
}

// List returns every drill with a trusted opening event, oldest first. However many
// there are, it makes a few requests. What was acknowledged before the call is in it.
func (b *Bus) List(ctx context.Context) ([]Summary, error) {
	// The ends are read first: a drill whose report is seen is then seen to be
	// finished, and no end is looked for of a drill that was not there yet.
	published, err := b.lastOfAll(ctx, event.TypeReportPublished)
	if err != nil {
		return nil, fmt.Errorf("list drills: %w", err)
	}
	finished, err := b.lastOfAll(ctx, event.TypeDrillFinished)
	if err != nil {
		return nil, fmt.Errorf("list drills: %w", err)
	}
	var out []Summary
	seen := map[string]bool{}
	err = b.readStored(ctx, acceptedFilter, func(r record) {
		if s := open(r, b.keyring); s.Trust == nil && !seen[s.Event.Subject] {
			id := s.Event.Subject
			seen[id] = true
			out = append(out, Summary{Drill: id, Accepted: &s, Finished: finished[id], Published: published[id]})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list drills: %w", err)
	}
	return out, nil
}

// LastPublished returns the last n drills with a trusted opening event that fits and
// with a report, newest first. However many drills there are, it verifies no event of
// those before them.
func (b *Bus) LastPublished(ctx context.Context, n int, fits func(accepted Stored) bool) ([]string, error) {
	var all []record
	err := b.readStored(ctx, acceptedFilter, func(r record) { all = append(all, r) })
	if err != nil {
		return nil, fmt.Errorf("last drills: %w", err)
	}
	var out []string
	for _, r := range slices.Backward(all) {
		if len(out) == n {
			break
		}
		s := open(r, b.keyring)
		id := s.Event.Subject
		if s.Trust != nil || slices.Contains(out, id) || !fits(s) {
			continue
		}
		published, err := b.lastOf(ctx, id, event.TypeReportPublished)
		if err != nil {
			return nil, fmt.Errorf("last drills: %w", err)
		}
		if published != nil {
			out = append(out, id)
		}
	}
	return out, nil
}

// lastOfAll returns the last event of a type of each drill that has a trusted one.
func (b *Bus) lastOfAll(ctx context.Context, t event.Type) (map[string]*Stored, error) {
	info, ok := event.Lookup(t)
	if !ok {
		return nil, fmt.Errorf("type %q is not in the table of types", t)
	}
	out := map[string]*Stored{}
	err := b.readStored(ctx, EventSubject("*", info.Service, t), func(r record) {
		if s := open(r, b.keyring); s.Trust == nil {
			out[s.Event.Subject] = &s
		}
	})
	return out, err
}

// readStored calls fn for each message of DRILLS on the subjects of a filter that was
// acknowledged before the call, and maybe later ones, in order.
func (b *Bus) readStored(ctx context.Context, filter string, fn func(record)) error {
	// A consumer may be on a server that lags; the leader says how far to read.
	last, err := b.get(ctx, StreamDrills, getRequest{LastFor: filter})
	if errors.Is(err, errNoRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.read(ctx, feed{stream: StreamDrills, filter: filter}, func(r record) error {
		fn(r)
		if r.Seq >= last.Seq {
			return Stop
		}
		return nil
	})
}

// token reports whether s can stand as one token of a subject.
func token(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsAny(s, ".*> \t\r\n") && s[0] != '$'
}
