package event

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kinds of findings.
const (
	// FindingAltered is an event whose bytes are not what its service signed, or
	// that the next event's prevhash does not lead back to.
	FindingAltered = "altered"
	// FindingMissing is a place of the chain without an event.
	FindingMissing = "missing"
	// FindingReordered is an event that stands later than its place.
	FindingReordered = "reordered"
	// FindingForeign is something that is no event of this drill: unsigned,
	// signed by a key that may not, or another drill's.
	FindingForeign = "foreign"
	// FindingDuplicate is an event that stands in the history twice.
	FindingDuplicate = "duplicate"
	// FindingForked is a second, different, validly signed event at one place.
	FindingForked = "forked"
)

// Finding is one thing wrong with a history.
type Finding struct {
	// Kind is one of the Finding constants.
	Kind string `json:"kind"`
	// Position counts the stored messages from 1; 0 where there is no message.
	Position int `json:"position,omitempty"`
	// Index is the chain index concerned; 0 when it belongs to none.
	Index  int32  `json:"index,omitempty"`
	Detail string `json:"detail"`
}

// String is one line for people.
func (f Finding) String() string {
	var where []string
	if f.Index > 0 {
		where = append(where, fmt.Sprintf("chain index %d", f.Index))
	}
	if f.Position > 0 {
		where = append(where, fmt.Sprintf("message %d", f.Position))
	}
	return fmt.Sprintf("%s: %s: %s", f.Kind, strings.Join(where, ", "), f.Detail)
}

// Verification is what VerifyHistory found.
type Verification struct {
	// Drill is the id that the history's first good event names.
	Drill string `json:"drill"`
	// Messages counts all stored messages, Events the verified ones in place.
	Messages int `json:"messages"`
	Events   int `json:"events"`
	// Unknown counts verified events of types that this build does not know.
	Unknown int `json:"unknown,omitempty"`
	// Head is the hash of the last verified event in place.
	Head     string    `json:"head"`
	Findings []Finding `json:"findings,omitempty"`
	// Complete is true when the last message is the drill's report.published.
	// Otherwise Why says what is missing: a chain cannot show by itself that its
	// end was cut off.
	Complete bool   `json:"complete"`
	Why      string `json:"why,omitempty"`
}

// Whole reports whether the stored messages are exactly what the services
// wrote, without gap, change or addition, up to the last one. Together with
// Complete, nothing was cut off at the end either.
func (v Verification) Whole() bool { return v.Events > 0 && len(v.Findings) == 0 }

// Opened is one stored message and what Open made of it, so that whoever needs
// both the event and the proof pays for the signature once. Only OpenMessage and
// OpenAll, or a reader that has itself called Open, may fill one in: an Err of
// nil claims that the signature was verified.
type Opened struct {
	// Raw is the message as stored. It must not be changed.
	Raw []byte
	// Event is what Open returned; to be trusted only if Err is nil.
	Event Event
	// Hash is Hash(Raw).
	Hash string
	// Err is Open's error.
	Err error
}

// OpenMessage opens one stored message.
func OpenMessage(raw []byte, k Keyring) Opened {
	e, err := Open(raw, k)
	return Opened{Raw: raw, Event: e, Hash: Hash(raw), Err: err}
}

// OpenAll opens each message, in their order. Signatures do not depend on each
// other, so they are verified on all cores; it returns when all are.
func OpenAll(raws [][]byte, k Keyring) []Opened {
	out := make([]Opened, len(raws))
	// A worker takes a run at a time: the counter is shared, the messages are not.
	const chunk = 16
	workers := min(runtime.GOMAXPROCS(0), (len(raws)+chunk-1)/chunk)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				to := int(taken.Add(chunk))
				if to-chunk >= len(raws) {
					return
				}
				for i := to - chunk; i < min(to, len(raws)); i++ {
					out[i] = OpenMessage(raws[i], k)
				}
			}
		})
	}
	wg.Wait()
	return out
}

// VerifyHistory proves that the raw messages, in the order of the stream, are
// one drill's whole and unaltered history, or says what is wrong and where. It
// never panics, whatever raws hold.
func VerifyHistory(raws [][]byte, k Keyring) Verification { return VerifyOpened(OpenAll(raws, k)) }

// VerifyOpened is VerifyHistory for messages that are opened already: it looks
// at the chain only, and verifies no signature again.
func VerifyOpened(history []Opened) Verification {
	w := &walk{next: 1, prev: NoHash, seen: make(map[int32]string, len(history)), missing: map[int32]bool{}}
	w.v.Messages = len(history)
	opened := make([]message, len(history))
	for i := range history {
		opened[i] = message{position: i + 1, Opened: &history[i]}
	}
	w.v.Drill = drillOf(opened)
	for _, m := range opened {
		w.step(m)
	}
	w.flushEnd()
	w.reportMissing()
	w.judgeEnd(opened)
	slices.SortStableFunc(w.v.Findings, func(a, b Finding) int { return int(a.Index) - int(b.Index) })
	w.v.Head = w.head
	return w.v
}

// message is an opened message at its position, counted from 1.
type message struct {
	position int
	*Opened
}

// walk follows the chain. next and prev are what the next event must carry;
// prev is "" after an altered event, whose true hash nobody knows.
type walk struct {
	v       Verification
	next    int32
	prev    string
	head    string
	lastAt  int
	seen    map[int32]string
	missing map[int32]bool
	bad     []message
}

// drillOf takes the id from the first event of the chain, or failing that from
// the first verified one.
func drillOf(ms []message) string {
	first := ""
	for _, m := range ms {
		if m.Err != nil {
			continue
		}
		if m.Event.ChainIndex == 1 {
			return m.Event.Subject
		}
		if first == "" {
			first = m.Event.Subject
		}
	}
	return first
}

func (w *walk) step(m message) {
	if m.Err != nil {
		w.bad = append(w.bad, m)
		return
	}
	e := m.Event
	if e.Subject != w.v.Drill {
		w.add(FindingForeign, m, 0, fmt.Sprintf("event %s belongs to drill %s", e.ID, e.Subject))
		return
	}
	if e.ChainIndex < w.next {
		w.earlier(m)
		return
	}
	w.flushBad(e.ChainIndex)
	if e.ChainIndex > w.next {
		for i := w.next; i < e.ChainIndex && int(i-w.next) < maxMissing; i++ {
			w.missing[i] = true
		}
		w.prev = ""
	}
	if w.prev != "" && e.PrevHash != w.prev {
		w.add(FindingAltered, message{position: w.lastAt}, e.ChainIndex-1, fmt.Sprintf("event %s (chain index %d) was written after another event than the one stored", e.ID, e.ChainIndex))
	}
	w.accept(m)
}

// maxMissing bounds the work and the findings for a gap that a validly signed
// event with a huge index claims.
const maxMissing = 10000

func (w *walk) accept(m message) {
	w.v.Events++
	if _, ok := Lookup(m.Event.Type); !ok {
		w.v.Unknown++
	}
	w.seen[m.Event.ChainIndex] = m.Hash
	w.next, w.prev, w.head, w.lastAt = m.Event.ChainIndex+1, m.Hash, m.Hash, m.position
}

// earlier classifies a verified event whose place was passed already.
func (w *walk) earlier(m message) {
	e := m.Event
	hash, ok := w.seen[e.ChainIndex]
	switch {
	case ok && hash == m.Hash:
		w.add(FindingDuplicate, m, e.ChainIndex, fmt.Sprintf("event %s is stored a second time", e.ID))
	case ok:
		w.add(FindingForked, m, e.ChainIndex, fmt.Sprintf("event %s claims a place that another event holds", e.ID))
	case w.missing[e.ChainIndex]:
		delete(w.missing, e.ChainIndex)
		w.seen[e.ChainIndex] = m.Hash
		w.add(FindingReordered, m, e.ChainIndex, fmt.Sprintf("event %s stands after later ones", e.ID))
	default:
		w.add(FindingForeign, m, e.ChainIndex, fmt.Sprintf("event %s claims a place that was altered or is out of range", e.ID))
	}
}

// flushBad attributes the unverifiable messages since the last good event, now
// that the next good event has chain index upTo: as many as places are free are
// altered events, the rest were put in.
func (w *walk) flushBad(upTo int32) {
	for _, m := range w.bad {
		w.attribute(m, w.next < upTo)
	}
	w.bad = nil
}

// flushEnd attributes the unverifiable messages after the last good event: what
// claims to be the next one is that one, altered.
func (w *walk) flushEnd() {
	for _, m := range w.bad {
		w.attribute(m, m.Event.Subject == w.v.Drill && m.Event.ChainIndex == w.next)
	}
	w.bad = nil
}

func (w *walk) attribute(m message, altered bool) {
	detail := m.Err.Error()
	var refused *OpenError
	if errors.As(m.Err, &refused) {
		detail = fmt.Sprintf("%v: %s", refused.Kind, refused.Detail)
	}
	if !altered {
		w.add(FindingForeign, m, 0, detail)
		return
	}
	w.add(FindingAltered, m, w.next, detail)
	w.next++
	w.prev = ""
	w.lastAt = m.position
}

func (w *walk) reportMissing() {
	places := make([]int32, 0, len(w.missing))
	for i := range w.missing {
		places = append(places, i)
	}
	slices.Sort(places)
	for _, i := range places {
		w.v.Findings = append(w.v.Findings, Finding{Kind: FindingMissing, Index: i, Detail: "no event is stored for this place of the chain"})
	}
}

func (w *walk) judgeEnd(ms []message) {
	if len(ms) == 0 {
		w.v.Why = "there is no event"
		return
	}
	last := ms[len(ms)-1]
	switch {
	case last.Err != nil:
		w.v.Why = "the last message is not a verified event"
	case last.Event.Type == TypeReportPublished && last.Event.Subject == w.v.Drill && last.position == w.lastAt:
		w.v.Complete = true
	case last.Event.Type == TypeDrillFinished:
		w.v.Why = "the drill finished but its report is missing: not written yet, or cut off"
	default:
		w.v.Why = fmt.Sprintf("the history ends with %s and not with %s: the drill is unfinished, or its end was cut off", last.Event.Type, TypeReportPublished)
	}
}

func (w *walk) add(kind string, m message, index int32, detail string) {
	w.v.Findings = append(w.v.Findings, Finding{Kind: kind, Position: m.position, Index: index, Detail: detail})
}
