package e2e

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	miniogo "github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/supervisor"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// storeDrill is a drill on a store, which is watched by writes and by one more probe. They
// are made seldom, on the machine of everything else: how finely it is measured is not what
// is tested.
func storeDrill(t *testing.T, name string, looks, phase map[string]any) []byte {
	t.Helper()
	writes := map[string]any{"name": "writes", "probe": "write", "burst": "50ms"}
	looks["name"], looks["params"] = "looks", map[string]any{"of": "writes"}
	for _, probe := range []map[string]any{writes, looks} {
		probe["target"], probe["deadline"] = "store", "1s"
	}
	phase["name"], phase["probes"] = "one", []any{writes, looks}
	return drillOf(t, name, "store", 2, phase) // the node, and its file system
}

// onStore is a step of a drill on the store, of the kind "fault", "action" or "check".
func onStore(kind, name string, params ...any) map[string]any {
	step := map[string]any{"name": name, "target": "store", kind: name}
	if len(params) > 0 {
		step["params"] = params[0]
	}
	return step
}

// judgedAgain is how many drills of a target are asked for again, at most, for a measurement
// that is valid: a machine that was too busy for these is too busy for the rest.
const judgedAgain = 2

// judged runs a drill of a store and wants its recovery measured, so many acknowledged writes
// lost, its checks judged by that, and all put back. Beside a store, and other tests, the
// observer may not keep its schedule: the measurement is then rightly INVALID, for that reason
// alone, and the drill is asked for again, which again counts. After the last time that is
// taken, since it says all the same what it saw. each, unless nil, is called with each event.
func judged(t *testing.T, stack *allinone.Stack, rec allinone.Record, again *int, name string, raw []byte, lost int64, each func(bus.Stored)) fold.Phase {
	t.Helper()
	for try := 1; ; try++ {
		request := fmt.Sprint(name, "-", try)
		publish(t, rec.NATSURL, request, raw)
		history := await(t.Context(), t, stack.Bus, accepted(t, stack.Bus, request), each)
		wholeHistory(t, history, stack.Keyring)
		phase := foldReport(t, history, stack.Keyring).Phases[0]
		late := lateOf(t, request, phase)
		if late && *again < judgedAgain {
			*again++
			continue
		}
		if judge(t, request, phase, lost, late); t.Failed() {
			t.Log(outline(history))
		}
		return phase
	}
}

// lateOf reports whether a measurement is INVALID as the observer did not keep its schedule.
func lateOf(t *testing.T, request string, phase fold.Phase) bool {
	t.Helper()
	i := slices.IndexFunc(phase.Results, func(one fold.Result) bool { return one.Of == verdict.OfValidity && one.Verdict == verdict.Invalid })
	if i < 0 {
		return false
	}
	t.Logf("%s is INVALID: %s", request, phase.Results[i].Why)
	for why := range strings.SplitSeq(phase.Results[i].Why, "; ") {
		if !strings.Contains(why, "schedul") {
			t.Errorf("%s is INVALID for more than the observer's schedule: %s", request, why)
		}
	}
	return true
}

// judge compares what a drill came to with what it is to.
func judge(t *testing.T, name string, phase fold.Phase, lost int64, late bool) {
	t.Helper()
	whole := verdict.Pass
	if lost > 0 {
		whole = verdict.Fail
	}
	want := map[string]verdict.Verdict{verdict.OfRTO: verdict.Pass, verdict.OfRPORecords: whole, "checks": whole, "restore": verdict.Pass}
	if late {
		want[verdict.OfRTO] = verdict.Invalid
	}
	if late && lost == 0 {
		want[verdict.OfRPORecords] = verdict.Invalid
	}
	for of, want := range want {
		if i := slices.IndexFunc(phase.Results, func(one fold.Result) bool { return one.Of == of }); i < 0 || phase.Results[i].Verdict != want {
			t.Errorf("%s: of %s, want %s: %+v", name, of, want, phase.Results)
		}
	}
	if len(phase.Recovery) != 1 || phase.Recovery[0].Achieved.Open || time.Duration(phase.Recovery[0].Achieved.Hi) > time.Minute {
		t.Errorf("%s recovered in %+v", name, phase.Recovery)
	}
	if phase.Back != "checked" {
		t.Errorf("%s is put back: %q", name, phase.Back)
	}
	var acked, missing int64
	for _, l := range phase.Ledgers {
		acked, missing = acked+l.Acked, missing+l.LostCount
	}
	if acked == 0 || missing != lost {
		t.Errorf("%s: of %d acknowledged writes %d are lost, want %d", name, acked, missing, lost)
	}
}

// TestStoreDrills drills a real MinIO: one that is killed, or frozen, full or read-only for a
// while, comes back with every object that it acknowledged, and one that lost an object, or has
// a damaged one, of which it has no other copy, fails its check; each time all is put back.
func TestStoreDrills(t *testing.T) {
	m := startStore(t)
	stack, rec, _ := startWith(t, m.inventory(t))
	reads, again := map[string]any{"probe": "read", "burst": "50ms"}, 0
	killed := judged(t, stack, rec, &again, "killed", storeDrill(t, "killed", reads, map[string]any{
		"faults":   []any{onStore("fault", "kill")},
		"recovery": []any{onStore("action", "start")},
		"checks":   []any{onStore("check", "ledger"), onStore("check", "canaries")},
		"restore":  map[string]any{"checks": []any{onStore("check", "health")}},
	}), 0, nil)
	if len(killed.Outages) == 0 {
		t.Errorf("a killed store was always there: %+v", killed)
	}
	for _, fault := range []string{"delete-object", "corrupt-object"} {
		judged(t, stack, rec, &again, fault, storeDrill(t, fault, reads, map[string]any{
			"faults":  []any{onStore("fault", fault)},
			"checks":  []any{onStore("check", "ledger"), onStore("check", "canaries")},
			"restore": map[string]any{"checks": []any{onStore("check", "canaries"), onStore("check", "health")}},
		}), 1, nil)
	}
	for _, fault := range []map[string]any{
		onStore("fault", "freeze"),
		onStore("fault", "read-only"),
		// MinIO wants a hundredth of the file system free.
		onStore("fault", "fill-disk", map[string]any{"path": filepath.Join(m.dir, "scratch"), "leave": storeSize / 200}),
	} {
		fault["hold"] = "3s"
		name := fault["name"].(string)
		held := judged(t, stack, rec, &again, name, storeDrill(t, name, reads, map[string]any{
			"faults":  []any{fault},
			"checks":  []any{onStore("check", "ledger"), onStore("check", "canaries")},
			"restore": map[string]any{"checks": []any{onStore("check", "writable"), onStore("check", "settings")}},
		}), 0, nil)
		if len(held.Outages) == 0 {
			t.Errorf("%s: it was always there: %+v", name, held)
		}
	}
}

// TestScrubDrill damages blocks of one side of a real mirror of ZFS behind its back: a scrub
// finds and repairs all of them.
func TestScrubDrill(t *testing.T) {
	z, err := lab.StartZFS(t.Context(), lab.ZFSOptions{Dir: filepath.Join(roomy(t), "zfs"), Pools: []lab.ZFSPool{{Name: "tank", Mirror: true, Size: 128 << 20}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
	})
	zfs := func(args ...string) {
		t.Helper()
		argv := append(append(z.Argv(), "zfs"), args...)
		if text, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", argv, err, text)
		}
	}
	zfs("create", "-o", "primarycache=metadata", "tank/firedrill")
	zfs("create", "tank/beside")
	stack, rec, _ := startWith(t, inventoryOf(t, "zfs", map[string]any{
		"pool": "tank", "dataset": "tank/firedrill", "directory": filepath.Join(z.Mountpoint("tank"), "firedrill"), "stateDir": t.TempDir(),
		"breakableVdevs": z.Vdevs("tank"), "control": map[string]any{"kind": "exec", "argv": z.Argv()},
	}))
	// Each look at the pool starts programs on its machine, and several more for each block
	// that was damaged, until that is undone: as many as there are writes would leave no time
	// for these to be punctual. The damage lasts for long enough to be met by such looks.
	looks := map[string]any{"probe": "pool", "interval": "500ms", "burst": "250ms", "fresh": "1s"}
	scrub := onStore("action", "scrub")
	scrub["after"] = "1s"
	scrubbed := judged(t, stack, rec, new(int), "scrub", storeDrill(t, "scrub", looks, map[string]any{
		"faults":   []any{onStore("fault", "corrupt-vdev", map[string]any{"canaries": 5})},
		"recovery": []any{scrub},
		"checks":   []any{onStore("check", "ledger"), onStore("check", "scrub"), onStore("check", "canaries")},
		"restore":  map[string]any{"checks": []any{onStore("check", "health"), onStore("check", "settings")}},
	}), 0, func(s bus.Stored) {
		if s.Event.Type == event.TypeSteadyEstablished {
			// The fault waits until canaries lie where they stay. An idle ZFS brings them
			// there every 30 s, and whenever something of the pool is set.
			zfs("set", "firedrill:test="+s.Event.ID, "tank/beside")
		}
	})
	if len(scrubbed.Outages) == 0 {
		t.Errorf("a damaged pool was always well: %+v", scrubbed)
	}
}

// roomy is a directory in memory, or on the disk where there is little.
func roomy(t *testing.T) string {
	t.Helper()
	if dir := inMemory(t); dir != "" {
		return dir
	}
	return t.TempDir()
}

// store is a real MinIO with what drills need of its machine.
type store struct {
	*lab.MinIO
	dir   string
	start []string
}

// storeUser is the probes', whom something can be denied, and storeSize the size of the file
// system that a store has for itself, so that it can be filled.
const (
	storeUser = "probes"
	storeSize = 256 << 20
)

func startStore(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(storeSize)); err != nil {
		t.Fatalf("a file system of its own: %v: may this user mount? run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(dir, "scratch"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: filepath.Join(os.Getenv("FIREDRILL_BIN"), "minio"), Dir: filepath.Join(dir, "minio")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	sv, err := supervisor.Begin(t.Context(), dir, m.Restart)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sv.End(); err != nil {
			t.Error(err)
		}
	})
	s := &store{m, dir, sv.Command()}
	u, err := url.Parse(m.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c, err := miniogo.New(u.Host, &miniogo.Options{Creds: credentials.NewStaticV4(m.AccessKey, m.SecretKey, "")})
	if err == nil {
		err = c.MakeBucket(t.Context(), "canaries", miniogo.MakeBucketOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.admin(t, u, "user", "add", "lab", storeUser, m.SecretKey)
	s.admin(t, u, "policy", "attach", "lab", "readwrite", "--user", storeUser)
	return s
}

// admin has mc change the store.
func (s *store) admin(t *testing.T, at *url.URL, args ...string) {
	t.Helper()
	host := *at
	host.User = url.UserPassword(s.AccessKey, s.SecretKey)
	c := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("FIREDRILL_BIN"), "mc"), append([]string{"--config-dir", t.TempDir(), "admin"}, args...)...)
	c.Env = append(os.Environ(), "MC_HOST_lab="+host.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("mc admin %q: %v: %s", args[:2], err, out)
	}
}

func (s *store) inventory(t *testing.T) drill.Inventory {
	t.Helper()
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FIREDRILL_TEST_SECRET", s.SecretKey)
	return inventoryOf(t, "minio", map[string]any{
		"endpoint": s.Endpoint, "bucket": "canaries", "user": storeUser, "secretKey": map[string]any{"env": "FIREDRILL_TEST_SECRET"},
		"admin":    map[string]any{"user": s.AccessKey, "secretKey": map[string]any{"env": "FIREDRILL_TEST_SECRET"}},
		"stateDir": filepath.Join(s.dir, "state"), "scratchDirs": []string{filepath.Join(s.dir, "scratch")},
		"nodes": []any{map[string]any{
			"name": "a", "host": "127.0.0.1", "port": port, "drives": []string{filepath.Join(s.dir, "minio", "data")}, "logFile": s.LogFile,
			"start": s.start,
		}},
	})
}
