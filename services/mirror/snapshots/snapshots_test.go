package snapshots_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

func TestJobsAreLegibleAndApart(t *testing.T) {
	long := "vault/" + strings.Repeat("a/", 100)
	seen := map[string]bool{}
	for _, c := range [][2]string{{"vault/a", ""}, {"vault/a", "ssh b"}, {"vault_a", ""}, {long + "b", ""}, {long + "c", ""}} {
		name := snapshots.Job(c[0], c[1])
		if seen[name] || len(name) > 64 || name[:6] != "vault-" {
			t.Errorf("%v: job %q", c, name)
		}
		seen[name] = true
	}
}

func TestEachDatasetHasAnArchiveOfItsOwn(t *testing.T) {
	where, err := location.Parse("s3:lab/bucket/zfs")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, dataset := range []string{"tank", "tank/a", "tank/a/b", "tank/a.b", "points/a", "tank/points"} {
		own, err := snapshots.ArchiveOf(dataset, where)
		if err != nil || seen[own.Prefix] || strings.Count(own.Prefix, "/") != 2 || !strings.HasPrefix(own.Prefix, where.Prefix) {
			t.Errorf("%s: %q, %v", dataset, own.Prefix, err)
		}
		seen[own.Prefix] = true
		for _, taken := range []string{"points/", "parts/"} {
			if strings.HasPrefix(own.Prefix, where.Prefix+taken) {
				t.Errorf("%s: %q is within an archive", dataset, own.Prefix)
			}
		}
	}
	for _, pool := range []string{"points", "parts"} {
		if _, err := snapshots.ArchiveOf(pool, where); !errors.Is(err, snapshots.ErrPlace) {
			t.Errorf("%s: %v", pool, err)
		}
	}
}

func TestOneRunToAPlaceAtATime(t *testing.T) {
	dir := t.TempDir()
	release, err := snapshots.Lock(dir, "vault-a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshots.Lock(dir, "vault-a"); !errors.Is(err, snapshots.ErrUnderWay) {
		t.Errorf("a second one: %v", err)
	}
	other, err := snapshots.Lock(dir, "vault-b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	release()
	again, err := snapshots.Lock(dir, "vault-a")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestATargetLiesApart(t *testing.T) {
	for to, apart := range map[string]bool{"tank/a": false, "tank/a/b": false, "tank/ab": true, "tank": true, "vault/a": true} {
		if err := snapshots.Apart("tank/a", to); (err == nil) != apart || err != nil && !errors.Is(err, snapshots.ErrNested) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestWhatCannotBeBroughtOverIsNamed(t *testing.T) {
	good := func() drill.Mirror {
		return drill.Mirror{Name: "m", From: "zfs:tank/a", To: "s3:lab/bucket", Snapshots: &drill.MirrorSnapshots{
			Recursive: true, Keep: "daily=1", KeepPoints: "daily=7", WholeEvery: event.Duration(24 * time.Hour),
		}}
	}
	replicated := func(m *drill.Mirror) { m.To, m.Snapshots = "zfs:vault/a", &drill.MirrorSnapshots{ToVia: "ssh b --"} }
	for _, spoil := range []func(*drill.Mirror){func(*drill.Mirror) {}, replicated} {
		m := good()
		spoil(&m)
		if got := snapshots.Check(m); len(got) > 0 {
			t.Errorf("%+v: %v", m, got)
		}
	}
	for _, c := range []struct {
		field, fix string
		spoil      func(*drill.Mirror)
	}{
		{"from", "a dataset's", func(m *drill.Mirror) { m.From = "dir:/a" }},
		{"from", "write zfs:", func(m *drill.Mirror) { m.From = "zfs:/" }},
		{"to", "to a dataset or into a bucket", func(m *drill.Mirror) { m.To = "dir:/a" }},
		{"to", "toVia", func(m *drill.Mirror) { replicated(m); m.To, m.Snapshots.ToVia = "zfs:tank/a", "" }},
		{"to", "elsewhere", func(m *drill.Mirror) {
			replicated(m)
			m.To, m.Snapshots = "zfs:tank/a/b", &drill.MirrorSnapshots{Recursive: true}
		}},
		{"snapshots.keep", "hourly, daily", func(m *drill.Mirror) { m.Snapshots.Keep = "yearly=1" }},
		{"snapshots.keepPoints", "keeps nothing", func(m *drill.Mirror) { m.Snapshots.KeepPoints = "daily=0" }},
		{"snapshots.keepPoints", "wholeEvery", func(m *drill.Mirror) { m.Snapshots.WholeEvery = 0 }},
		{"snapshots.wholeEvery", "168h", func(m *drill.Mirror) { m.Snapshots.WholeEvery = -1 }},
		{"snapshots.toVia", "leave this out", func(m *drill.Mirror) { m.Snapshots.ToVia = "ssh b --" }},
		{"snapshots", "for archives", func(m *drill.Mirror) { replicated(m); m.Snapshots.WholeEvery = 1 }},
		{"mode", "as they are", func(m *drill.Mirror) { m.Mode = drill.MirrorMirror }},
		{"filter", "as they are", func(m *drill.Mirror) { m.Filter = []string{"- x"} }},
		{"keepDeleted", "as they are", func(m *drill.Mirror) { m.KeepDeleted = 1 }},
		{"deletes", "as they are", func(m *drill.Mirror) { m.Deletes.Most = 1 }},
	} {
		m := good()
		c.spoil(&m)
		got := snapshots.Check(m)
		if len(got) != 1 || got[0].Field != c.field || !strings.Contains(got[0].Fix, c.fix) {
			t.Errorf("%s: %v", c.field, got)
		}
		dir := t.TempDir()
		_, err := snapshots.Run(t.Context(), job.Env{StateDir: dir, Now: time.Now}, m, snapshots.Options{})
		if !errors.Is(err, job.ErrSpec) {
			t.Errorf("%s: it runs: %v", c.field, err)
		}
	}
}

// A run is noted from its begin to its end, however it ends, and not at all where somebody
// else's is under way.
func TestEachRunIsNoted(t *testing.T) {
	env := job.Env{StateDir: t.TempDir(), Now: time.Now}
	good := drill.Mirror{Name: "m", From: "zfs:tank/a", To: "zfs:vault/a", Snapshots: &drill.MirrorSnapshots{FromVia: "false"}}
	bad := good
	bad.To = "dir:/srv"
	for _, c := range []struct {
		mirror drill.Mirror
		want   error
	}{{good, zfs.ErrNoZFS}, {bad, job.ErrSpec}} {
		var noted []string
		_, err := snapshots.Run(t.Context(), env, c.mirror, snapshots.Options{
			Begun: func(at time.Time) { noted = append(noted, "begun") },
			Ended: func(_ job.Result, err error) {
				if noted = append(noted, "ended"); !errors.Is(err, c.want) {
					t.Errorf("it is noted that it ended with %v", err)
				}
			},
		})
		if !errors.Is(err, c.want) || strings.Join(noted, " ") != "begun ended" {
			t.Errorf("noted %q, and ended with %v", noted, err)
		}
	}
	held, err := state.Open(filepath.Join(env.StateDir, good.Name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = snapshots.Run(t.Context(), env, good, snapshots.Options{
		Begun: func(time.Time) { t.Error("another's run is noted as begun") },
		Ended: func(job.Result, error) { t.Error("another's run is noted as ended") },
	})
	if !errors.Is(err, state.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheTopOfSeveralDatasets(t *testing.T) {
	for want, all := range map[string][]string{
		"tank":      {"tank/b/c", "tank", "tank/b"},
		"tank/a":    {"tank/a/x", "tank/a"},
		"tank/only": {"tank/only"},
	} {
		if top, err := snapshots.Top(all); err != nil || top != want {
			t.Errorf("%v: %q, %v", all, top, err)
		}
	}
	for _, all := range [][]string{{"tank/a", "tank/a-b"}, {"tank/a", "vault/a"}, {"tank/a/x", "tank/a/y"}} {
		if top, err := snapshots.Top(all); !errors.Is(err, snapshots.ErrPlace) {
			t.Errorf("%v: %q, %v", all, top, err)
		}
	}
	where, err := location.Parse("s3:lab/bucket/zfs")
	if err != nil {
		t.Fatal(err)
	}
	for _, dataset := range []string{"tank", "tank/a/b.c:d_e-f"} {
		own, err := snapshots.ArchiveOf(dataset, where)
		if got := snapshots.DatasetOf(own); err != nil || got != dataset {
			t.Errorf("%s: %q, %v", dataset, got, err)
		}
	}
}
