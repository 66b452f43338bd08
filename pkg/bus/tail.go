package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/pkg/event"
)

// maxTails bounds the cache: far more drills than run at once.
const maxTails = 256

// tailCache remembers where drills' histories end, as far as this process knows.
// A stale entry costs one conflict and nothing else.
type tailCache struct {
	mu sync.Mutex
	m  map[string]Tail
}

func (c *tailCache) get(drill string) (Tail, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.m[drill]
	return t, ok
}

// put keeps the place after s, unless a later one is known.
func (c *tailCache) put(drill string, s Stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Event.Type == event.TypeReportPublished {
		delete(c.m, drill)
		return
	}
	if c.m == nil {
		c.m = map[string]Tail{}
	}
	if c.m[drill].Seq >= s.tail.Seq {
		return
	}
	if len(c.m) >= maxTails {
		for other := range c.m {
			delete(c.m, other)
			break
		}
	}
	c.m[drill] = s.tail
}

// forget drops what is known of a drill.
func (c *tailCache) forget(drill string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, drill)
}

// tail reads where the drill's history ends. The last message alone would not
// do: it may be a copy of an earlier event, which verifies as well but stands
// where the chain has passed. Followers of a drill have its tail in the cache.
func (b *Bus) tail(ctx context.Context, drill string) (Tail, error) {
	if !event.IsDrillID(drill) {
		return Tail{}, fmt.Errorf("drill id %q: use 1 to 100 letters, digits, dashes or underscores", drill)
	}
	history, err := b.History(ctx, drill)
	if errors.Is(err, ErrNoDrill) {
		return Tail{}, nil
	}
	if err != nil {
		return Tail{}, err
	}
	return history[len(history)-1].tail, nil
}

// tailAfter is tail for who knows a place where the history ended earlier: only what
// follows is read. Where nothing does, although an append there conflicted, or not all
// of it continues that place, as after a restore of the server, all is read.
func (b *Bus) tailAfter(ctx context.Context, drill string, at Tail) (Tail, error) {
	more, err := b.HistoryAfter(ctx, drill, at)
	if err != nil {
		return Tail{}, err
	}
	foreign := func(s Stored) bool { return s.Trust != nil }
	if len(more) > 0 && !slices.ContainsFunc(more, foreign) {
		return more[len(more)-1].tail, nil
	}
	b.tails.forget(drill)
	return b.tail(ctx, drill)
}

// open turns a message of DRILLS into an event, without looking at its place in
// the chain.
func open(r record, k event.Keyring) Stored { return stored(r, event.OpenMessage(r.Data, k)) }

// stored is open for a message whose signature was verified already.
func stored(r record, o event.Opened) Stored {
	s := Stored{Seq: r.Seq, Raw: r.Data, Stored: r.Time, tail: Tail{Seq: r.Seq}}
	e, err := o.Event, o.Err
	s.Event = e
	if err == nil && r.Subject != EventSubject(e.Subject, e.Service(), e.Type) {
		err = fmt.Errorf("event %s lies on subject %s, which is not its own", e.ID, r.Subject)
	}
	if err == nil {
		s.Payload, err = event.Decode(e)
	}
	if err != nil {
		s.Payload = nil
		s.Trust = fmt.Errorf("message %d: %w: %w", r.Seq, ErrUntrusted, err)
		return s
	}
	s.tail = Tail{Seq: r.Seq, Index: e.ChainIndex, Hash: o.Hash}
	return s
}

// chain checks, from a drill's start on, that trusted events continue each
// other. What does not is set aside, as the writers of later events did.
type chain struct{ at Tail }

func (c *chain) link(s Stored) Stored {
	if s.Trust == nil {
		prev := c.at.Hash
		if c.at.Index == 0 {
			prev = event.NoHash
		}
		if s.Event.ChainIndex != c.at.Index+1 || s.Event.PrevHash != prev {
			s.Payload = nil
			s.Trust = fmt.Errorf("message %d: %w: event %s claims chain index %d, but it does not continue the chain, which is at %d", s.Seq, ErrUntrusted, s.Event.ID, s.Event.ChainIndex, c.at.Index)
		}
	}
	if s.Trust == nil {
		c.at = s.tail
	}
	c.at.Seq = s.Seq
	s.tail = c.at
	return s
}
