package drill_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// Each day has its time of day once, whatever clocks are put to.
func TestWhenSomethingIsDueNext(t *testing.T) {
	berlin := drill.Cadence{Daily: "02:30", Zone: "Europe/Berlin"}
	lordHowe := drill.Cadence{Daily: "02:15", Zone: "Australia/Lord_Howe"} // by half an hour
	for _, c := range []struct {
		when        drill.Cadence
		after, want string
	}{
		{drill.Cadence{}, "2026-01-01T10:00:00Z", "0001-01-01T00:00:00Z"},
		{drill.Cadence{Every: event.Duration(time.Hour)}, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"},
		{drill.Cadence{Daily: "02:30"}, "2026-01-01T02:29:59Z", "2026-01-01T02:30:00Z"},
		{drill.Cadence{Daily: "02:30"}, "2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z"},
		{drill.Cadence{Daily: "02:30"}, "2026-01-01T03:30:00+01:00", "2026-01-02T02:30:00Z"},
		{berlin, "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"},
		{berlin, "2026-07-01T01:00:00Z", "2026-07-02T00:30:00Z"},
		// Forward at 02:00 on 2026-03-29: the day has no 02:30, and an hour later is 03:30.
		{berlin, "2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z"},
		{berlin, "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"},
		// Back at 03:00 on 2026-10-25: the first of two.
		{berlin, "2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"},
		{berlin, "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{berlin, "2026-10-25T01:00:00Z", "2026-10-26T01:30:00Z"},
		{lordHowe, "2026-10-03T00:00:00Z", "2026-10-03T15:45:00Z"}, // as 02:45, where there is no 02:15
		{drill.Cadence{Daily: "23:59", Zone: "Pacific/Kiritimati"}, "2026-01-01T09:00:00Z", "2026-01-01T09:59:00Z"},
		{drill.Cadence{Daily: "00:00", Zone: "Pacific/Pago_Pago"}, "2026-01-01T11:00:00Z", "2026-01-02T11:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.when.Next(at).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%q after %s: %s, want %s", c.when, c.after, got, c.want)
		}
	}
}

func TestACadenceInWords(t *testing.T) {
	for want, c := range map[string]drill.Cadence{
		"": {}, "every 5m": {Every: event.Duration(5 * time.Minute)}, "daily at 02:30 UTC": {Daily: "02:30"},
		"daily at 02:30 Europe/Berlin": {Daily: "02:30", Zone: "Europe/Berlin"},
	} {
		if got := c.String(); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

// mirrorsOf is an inventory with mirrors a, b and c, each as given.
func mirrorsOf(a, b, c string) string {
	return "{apiVersion: firedrill/v1, kind: Inventory, spec: {mirrors: [" +
		"{name: a, from: dir:/a, to: dir:/b, " + a + "}, {name: b, from: dir:/a, to: dir:/c, " + b + "}, {name: c, from: dir:/a, to: dir:/d, " + c + "}]}}"
}

func TestZonesAndOrderAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		mirrorOf(`daily: "02:30", zone: Europe/Berln`):                                       `spec.mirrors[0].zone: "Europe/Berln": this is an IANA name such as Europe/Berlin`,
		mirrorOf(`daily: "02:30", zone: Local`):                                              `spec.mirrors[0].zone: "Local": this is an IANA name`,
		mirrorOf(`every: 1h, zone: Europe/Berlin`):                                           `spec.mirrors[0].zone: "Europe/Berlin": this is the zone of daily, and there is none`,
		mirrorOf(`verify: {daily: "02:30", zone: here}`):                                     `spec.mirrors[0].verify.zone: "here": this is an IANA name`,
		mirrorOf(`every: 1h, after: [n]`):                                                    `spec.mirrors[0].after[0]: "n": the inventory has no such mirror: `,
		mirrorOf(`every: 1h, after: [m]`):                                                    `spec.mirrors[0].after[0]: "m": a mirror cannot wait for itself`,
		mirrorOf(`every: 1h, after: m`):                                                      `spec.mirrors[0].after`,
		mirrorsOf(`every: 1h`, `after: [a]`, `every: 1h`):                                    `spec.mirrors[1].after: "a": this is for the runs that the mirror makes by itself, and it makes none: add every or daily`,
		mirrorsOf(`every: 1h`, `every: 1h, after: [a, c, a]`, `every: 1h`):                   `spec.mirrors[1].after[2]: "a": it is named twice`,
		mirrorsOf(`every: 1h, after: [b]`, `every: 1h, after: [a]`, `xattrs: no`):            `spec.mirrors[0].after[0]: "b": these would wait for each other for ever: a after b after a`,
		mirrorsOf(`every: 1h, after: [b]`, `every: 1h, after: [c]`, `every: 1h, after: [a]`): `spec.mirrors[2].after[0]: "a": these would wait for each other for ever: c after a after b after c`,
	} {
		_, err := drill.ParseInventory([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
	m := inventory(t, mirrorsOf(`every: 1h`, `daily: "02:30", zone: Europe/Berlin, after: [a, c]`, `every: 1h, after: [a]`)).Spec.Mirrors[1]
	if got := m.Cadence(drill.MirrorSync); got != (drill.Cadence{Daily: "02:30", Zone: "Europe/Berlin"}) || len(m.After) != 2 {
		t.Errorf("read as %+v, after %v", got, m.After)
	}
}
