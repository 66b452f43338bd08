package drill

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// TestGuardParts: what is protected is never hit, and never more than the cap allows.
func TestGuardParts(t *testing.T) {
	a := event.Part{ID: "pg:a", Labels: map[string]string{"role": "primary", "zone": "one"}}
	b := event.Part{ID: "pg:b", Labels: map[string]string{"role": "standby", "zone": "two"}}
	for name, c := range map[string]struct {
		guards Guards
		parts  []event.Part
		want   []string // words of the refusal; none if it is allowed
	}{
		"one part without guards":     {Guards{}, []event.Part{a}, nil},
		"two parts without guards":    {Guards{}, []event.Part{a, b}, []string{"it would hit 2 parts", "guards.maxParts is 1", "raise the cap"}},
		"as many as the cap":          {Guards{MaxParts: 2}, []event.Part{a, b}, nil},
		"nothing to hit":              {Guards{Protect: []string{"*"}}, nil, nil},
		"an id that is protected":     {Guards{Protect: []string{"pg:b", "pg:a"}}, []event.Part{a}, []string{`would hit "pg:a"`, `guards.protect "pg:a"`}},
		"a pattern of ids":            {Guards{Protect: []string{"pg:*"}}, []event.Part{b}, []string{`would hit "pg:b"`, `"pg:*"`}},
		"another id":                  {Guards{Protect: []string{"pg:b"}}, []event.Part{a}, nil},
		"part of an id":               {Guards{Protect: []string{"pg"}}, []event.Part{a}, nil},
		"a label":                     {Guards{Protect: []string{"role=primary"}}, []event.Part{a}, []string{`would hit "pg:a"`, "role=primary"}},
		"a pattern of labels":         {Guards{Protect: []string{"zone=*"}}, []event.Part{a}, []string{`label zone=one`, `"zone=*"`}},
		"another label's value":       {Guards{Protect: []string{"role=standby"}}, []event.Part{a}, nil},
		"the second of two":           {Guards{MaxParts: 2, Protect: []string{"role=standby"}}, []event.Part{a, b}, []string{`would hit "pg:b"`}},
		"a pattern that is malformed": {Guards{Protect: []string{"pg:["}}, []event.Part{a}, []string{"pg:["}},
	} {
		err := GuardParts(c.guards, c.parts)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", name, err, w)
			}
		}
	}
}

// TestWhatIsTakenToProtectDoes: where a pattern passes for one that protects something,
// by what a survey knows of the parts, the fault that it is about is refused.
func TestWhatIsTakenToProtectDoes(t *testing.T) {
	disk := [2]event.Part{{ID: "disk:pg1:" + event.AnyEnd}, {ID: "disk:pg1:/srv/pg"}}
	vdev := [2]event.Part{{ID: "zfs:tank:/dev/sdb"}, {ID: "zfs:tank:/dev/sdb"}}
	relay := [2]event.Part{{ID: "relay:http://h:1/x"}, {ID: "relay:http://h:1/x"}}
	object := [2]event.Part{{ID: "minio:a", Labels: map[string]string{"key": event.AnyEnd}}, {ID: "minio:a", Labels: map[string]string{"key": "orders/7"}}}
	for _, c := range []struct {
		pattern  string
		part     [2]event.Part // as surveyed, as hit
		protects bool
	}{
		{"disk:*", disk, true},
		{"disk:pg1:*", disk, true},
		{"disk:pg1:/srv/pg", disk, true},
		{"disk:*/pg", disk, true},
		{"disk:pg1:?srv?pg", disk, true},
		{"disk:pg2:*", disk, false},
		{"disk", disk, false},
		{"zfs:tank:*", vdev, true},
		{"zfs:pool:*", vdev, false},
		{"relay:*", relay, true},
		{"key=*", object, true},
		{"key=orders/*", object, true},
		{"kez=*", object, false},
	} {
		problem := Unmatched([]string{c.pattern}, c.part[:1])
		err := GuardParts(Guards{Protect: []string{c.pattern}}, c.part[1:])
		if (problem == "") != c.protects || (err != nil) != c.protects {
			t.Errorf("%s: survey %q, guard %v", c.pattern, problem, err)
		}
	}
}
