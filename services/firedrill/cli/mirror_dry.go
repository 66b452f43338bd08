package cli

import (
	"cmp"
	"container/heap"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// dryLines are lines of a dry run that are not printed yet, as a heap by key: what is
// found comes nearly in order, so that few of them suffice to print it sorted. What is to
// be deleted comes last: only of a dry run with more lines than this it is at the end.
type dryLines []dryLine

// dryAtOnce is how many lines wait: a few MiB.
const dryAtOnce = 20_000

type dryLine struct {
	key, text string
	// nth keeps lines of one key as they came.
	nth int64
}

func (l dryLines) Len() int { return len(l) }

func (l dryLines) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(l[i].key, l[j].key), cmp.Compare(l[i].nth, l[j].nth)) < 0
}

func (l dryLines) Swap(i, j int) { l[i], l[j] = l[j], l[i] }

// Push implements heap.Interface.
func (l *dryLines) Push(x any) { *l = append(*l, x.(dryLine)) }

// Pop implements heap.Interface.
func (l *dryLines) Pop() any {
	last := len(*l) - 1
	x := (*l)[last]
	(*l)[last] = dryLine{}
	*l = (*l)[:last]
	return x
}

// each gives what is told of a dry run of the mirror: it prints its actions, by key, and
// counts them.
func (p *mirrorPrinter) each(m drill.Mirror) func(engine.Done) {
	nth := int64(0)
	return func(d engine.Done) {
		p.count(d)
		if p.json {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		nth++
		heap.Push(&p.dry, dryLine{d.Action.Key, dryText(m, d), nth})
		p.printDry(dryAtOnce)
	}
}

// flushDry prints the lines that wait.
func (p *mirrorPrinter) flushDry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printDry(0)
}

// printDry prints lines until no more than so many wait. mu is held.
func (p *mirrorPrinter) printDry(wait int) {
	for len(p.dry) > wait {
		p.clear()
		fmt.Fprintln(p.out, heap.Pop(&p.dry).(dryLine).text)
	}
}

func dryText(m drill.Mirror, d engine.Done) string {
	a, name := d.Action, entry.Quote(d.Action.Key)
	switch {
	case d.Err != nil:
		return fmt.Sprintf("%-10s %s %s: %v", "cannot", a.Op, name, d.Err)
	case a.Op == plan.Keep && a.Reason == plan.KeepMissing:
		return fmt.Sprintf("%-10s %s: %s", a.Op, name, missing(m))
	case a.Op == plan.Keep || a.Op == plan.Conflict:
		return fmt.Sprintf("%-10s %s: %s", a.Op, name, a.Reason)
	case a.Op == plan.Unholdable:
		return fmt.Sprintf("%-10s %s: %v", a.Op, name, a.Err)
	}
	if a.Op == plan.Meta && a.To == plan.Source && m.Mode != drill.MirrorTwoWay {
		return fmt.Sprintf("%-10s %s on the %s, by permissions: %s", a.Op, name, a.To, rightsText(a.Source, a.Dest))
	}
	over := ""
	if a.Op == plan.Put && a.Past.Key == "" && plan.Present(a.At(a.To)) {
		over = ", over what no run is known to have put there"
	}
	return fmt.Sprintf("%-10s %s on the %s%s", a.Op, name, a.To, over)
}

// rightsText says what a rule for permissions makes of an entry.
func rightsText(have, want entry.Entry) string {
	var parts []string
	if have.Mode != want.Mode {
		parts = append(parts, fmt.Sprintf("mode %04o to %04o", have.Mode, want.Mode))
	}
	if have.UID != want.UID {
		parts = append(parts, fmt.Sprintf("owner %d to %d", have.UID, want.UID))
	}
	if have.GID != want.GID {
		parts = append(parts, fmt.Sprintf("group %d to %d", have.GID, want.GID))
	}
	return strings.Join(parts, ", ")
}
