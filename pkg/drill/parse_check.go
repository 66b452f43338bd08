package drill

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Limits of values. Lists are bounded because a drill's steps are stored in
// events, of which a message holds only so many bytes.
const (
	maxItems    = 100
	maxText     = 8 << 10
	maxTitle    = 200
	maxDuration = 7 * 24 * time.Hour
	maxInterval = time.Minute
	minInterval = time.Millisecond
	maxParts    = 1000
)

// checker checks what a drill means, as far as it stands alone. Fields that are
// already known to be wrong are passed over.
type checker struct {
	*findings
	drill   *Drill
	targets []string
}

func (c *checker) check() {
	d := c.drill
	if d.APIVersion != APIVersion {
		c.add("apiVersion", d.APIVersion, "this build reads only "+APIVersion)
	}
	if d.Kind != Kind {
		c.add("kind", d.Kind, "this must be "+Kind)
	}
	c.name("metadata.name", d.Metadata.Name)
	c.line("metadata.title", d.Metadata.Title)
	for k, v := range d.Metadata.Labels {
		p := join("metadata.labels", k)
		if !operationPattern().MatchString(k) {
			c.add(p, k, "a label's name has up to 63 letters, digits, dots, dashes and underscores")
		}
		c.line(p, v)
	}
	s := d.Spec
	for i, who := range s.Participants {
		p := fmt.Sprintf("spec.participants[%d]", i)
		if strings.TrimSpace(who) == "" {
			c.add(p, "", "this name is empty: write it or remove the entry")
		}
		c.line(p, who)
	}
	c.checkTargetNames(s.Targets)
	c.checkGuards(s.Guards)
	if len(s.Phases) == 0 {
		c.add("spec.phases", "", "the list is empty: a drill has at least one phase")
	}
	c.unique("spec.phases", "phase", namesOf(s.Phases, func(p Phase) string { return p.Name }))
	for i, p := range s.Phases {
		c.checkPhase(fmt.Sprintf("spec.phases[%d]", i), p)
	}
	c.checkDeadline()
}

func (c *checker) checkTargetNames(ts []Target) {
	if len(ts) == 0 {
		c.add("spec.targets", "", "the list is empty: a drill has at least one target")
	}
	c.targets = namesOf(ts, func(t Target) string { return t.Name })
	c.unique("spec.targets", "target", c.targets)
	for i, t := range ts {
		c.checkTarget(fmt.Sprintf("spec.targets[%d]", i), t)
	}
}

// checkTarget checks that a target is an entry of the inventory or brings its own
// driver and configuration, and not both.
func (c *checker) checkTarget(at string, t Target) {
	switch {
	case t.Inventory != "" && (t.Driver != "" || t.Config != nil):
		c.add(at+".inventory", t.Inventory, "the inventory's entry has the driver and its config: leave those two out, or the inventory")
	case t.Inventory != "":
		c.name(at+".inventory", t.Inventory)
	case c.below(at + ".inventory"):
	case t.Driver == "" && !c.below(at+".driver"):
		c.add(at+".driver", "", "this field is missing: add driver: and its value, or inventory: and the name of an entry of the inventory")
	default:
		c.operation(at+".driver", "driver", t.Driver)
		if t.Config == nil {
			c.add(at+".config", "", "this field is missing: add config: with the driver's fields, or {} if it has none")
		}
	}
}

func (c *checker) checkGuards(g Guards) {
	for i, glob := range g.Protect {
		p := fmt.Sprintf("spec.guards.protect[%d]", i)
		if _, err := path.Match(glob, ""); err != nil {
			c.add(p, glob, "this pattern cannot be read: close each [ and put nothing after a last backslash")
		}
		if strings.TrimSpace(glob) == "" {
			c.add(p, "", "this pattern is empty and would protect nothing: write the part's id, with * where anything may stand")
		}
	}
	if zero := g.MaxParts == 0 && c.given("spec.guards.maxParts"); zero || g.MaxParts < 0 || g.MaxParts > maxParts {
		c.addf("spec.guards.maxParts", strconv.Itoa(g.MaxParts), "this must lie between 1 and %d", maxParts)
	}
	if g.Deadline != 0 && g.Deadline.D() < time.Second {
		c.add("spec.guards.deadline", g.Deadline.String(), "no drill ends so soon: allow at least 1s")
	}
	for i, w := range g.Windows {
		c.checkWindow(fmt.Sprintf("spec.guards.windows[%d]", i), w)
	}
}

func (c *checker) checkWindow(at string, w Window) {
	for i, day := range w.Days {
		p := fmt.Sprintf("%s.days[%d]", at, i)
		if !slices.Contains(weekdays(), day) {
			c.add(p, day, "this is no day of the week: "+suggest(day, weekdays()))
		}
		if slices.Index(w.Days, day) < i {
			c.add(p, day, "this day is named twice: remove one")
		}
	}
	for _, f := range []struct{ name, value string }{{"from", w.From}, {"to", w.To}} {
		if !clockPattern().MatchString(f.value) {
			c.add(at+"."+f.name, f.value, "this must be a time of day with two digits each, such as 09:30")
		}
	}
	if w.From == w.To && w.From != "00:00" {
		c.add(at+".to", w.To, "the window is empty: from and to are the same (00:00 to 00:00 is a whole day)")
	}
	if w.Zone == "" || c.below(at) {
		return
	}
	if _, _, _, err := w.Parse(); err != nil || w.Zone == "Local" {
		c.add(at+".zone", w.Zone, "there is no such time zone: use an IANA name such as Europe/Dublin")
	}
}

// name checks the name of a drill or one of its parts.
func (c *checker) name(at, name string) {
	switch {
	case namePattern().MatchString(name):
	case len(name) > 40:
		c.addf(at, name, "this name has %d characters; 40 are allowed: shorten it", len(name))
	case name == "":
		c.add(at, "", "this name is empty: use small letters, digits and dashes")
	default:
		c.add(at, name, "use small letters, digits and dashes, with a letter or digit at both ends"+exampleName(name))
	}
}

// exampleName shows a bad name mended, if that is possible.
func exampleName(name string) string {
	mended := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case strings.ContainsRune(" _./-", r):
			return '-'
		}
		return -1
	}, strings.ToLower(name))
	if mended = strings.Trim(mended, "-"); namePattern().MatchString(mended) {
		return ", such as " + mended
	}
	return ""
}

// operation checks the name of a driver, fault, action, probe or check.
func (c *checker) operation(at, what, name string) {
	if !operationPattern().MatchString(name) {
		c.addf(at, name, "this cannot be the name of a %s: names have up to 63 letters, digits, dots, dashes and underscores", what)
	}
}

// line checks a text that is shown on one line.
func (c *checker) line(at, s string) {
	if len(s) > maxTitle {
		c.addf(at, s, "this text has %d bytes; %d are allowed: shorten it", len(s), maxTitle)
	}
	if strings.ContainsRune(s, '\n') {
		c.add(at, "", "this text must be a single line")
	}
}

// unique checks the names of a list and that none comes twice.
func (c *checker) unique(list, what string, names []string) {
	for i, n := range names {
		at := fmt.Sprintf("%s[%d].name", list, i)
		c.name(at, n)
		if first := slices.Index(names, n); first < i {
			c.addf(at, n, "another %s has this name (%s[%d]): names are unique, give one of them another", what, list, first)
		}
	}
}

// target checks a reference to a target.
func (c *checker) target(at, name string) {
	if !slices.Contains(c.targets, name) && !c.unnamed("spec.targets") {
		c.add(at, name, "no target has this name: "+suggest(name, c.targets))
	}
}

// between checks a duration; 0 stands for the default and always passes.
func (c *checker) between(at string, d event.Duration, least, most time.Duration) {
	if d != 0 && (d.D() < least || d.D() > most) {
		c.addf(at, brief(d.D()), "this must lie between %s and %s", brief(least), brief(most))
	}
}

// given is a duration as a problem's value: nothing where the default stands.
func given(d event.Duration) string {
	if d == 0 {
		return ""
	}
	return brief(d.D())
}

// brief writes a duration without its zero parts: 1m, not 1m0s.
func brief(d time.Duration) string { return event.Duration(d).String() }

func namesOf[T any](list []T, name func(T) string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, name(v))
	}
	return out
}
