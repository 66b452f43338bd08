package fleet_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// minioServer is the store of all tests that want one.
var minioServer enginetest.Server

// process is a mirror process that can be killed, as this test program's child is told
// what it is.
type process struct {
	URL, StateDir, Instance string
	Inventory               drill.Inventory
}

// processEnv holds a process in the environment of a child.
const processEnv = "FIREDRILL_TEST_FLEET_PROCESS"

// largeParts is how many parts the large file has, each of them an item.
const (
	largeParts = 12
	largeSize  = (largeParts-1)*engine.DefaultPartSize + 4321
	splitAbove = 70 << 20
)

// TestHelperProcess is not a test of its own: it is the process that others kill.
func TestHelperProcess(t *testing.T) {
	told := os.Getenv(processEnv)
	if told == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // whoever started it is no more
	}()
	var p process
	must(t, json.Unmarshal([]byte(told), &p))
	b, err := bus.Connect(t.Context(), bus.Options{
		URL: p.URL, Log: quiet(), Identity: bus.Identity{Service: event.Mirror, Instance: p.Instance, Clock: clock.System()},
	})
	must(t, err)
	defer b.Close()
	must(t, fleet.Run(t.Context(), fleet.Config{
		Bus: b, Log: quiet(), Inventory: p.Inventory, Items: 2, Lease: time.Second, SplitAbove: splitAbove,
		Env: job.Env{StateDir: p.StateDir, Now: later},
	}))
}

// later is a clock by which nothing that a test just wrote is young.
func later() time.Time { return time.Now().Add(time.Hour) }

// spread is an installation that mirrors one large file into a bucket.
type spread struct {
	*world
	bucket bucket.Config
}

func newSpread(t *testing.T, bytesPerSecond int64) *spread {
	t.Helper()
	m := minioServer.Start(t)
	s := &spread{bucket: minioServer.Bucket(t, false)}
	s.world = newWorld(t, drill.Mirror{Name: "big", From: "dir:DIR/src", To: "s3:lab/" + s.bucket.Bucket, BytesPerSecond: bytesPerSecond})
	secret := func(name, content string) *drill.SecretSource {
		path := filepath.Join(s.dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return &drill.SecretSource{File: path}
	}
	s.inv.Spec.Stores = []drill.Store{{Name: "lab", Endpoint: m.Endpoint, AccessKey: secret("id", m.AccessKey), SecretKey: secret("key", m.SecretKey)}}
	s.large(1)()
	return s
}

// large makes a content of its own for the large file; place puts it there at once.
func (s *spread) large(seed byte) (place func()) {
	s.t.Helper()
	content := make([]byte, largeSize)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	next, path := filepath.Join(s.dir, "next"), filepath.Join(s.dir, "src", "d", "large")
	must(s.t, errors.Join(os.WriteFile(next, content, 0o640), os.MkdirAll(filepath.Dir(path), 0o755)))
	return func() { must(s.t, os.Rename(next, path)) }
}

// process starts a process, which kill ends without a word.
func (w *world) process(instance string) (kill func()) {
	w.t.Helper()
	told, err := json.Marshal(process{URL: w.server.URL(), StateDir: filepath.Join(w.dir, "state"), Instance: instance, Inventory: w.inv})
	must(w.t, err)
	cmd := exec.CommandContext(context.WithoutCancel(w.t.Context()), os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), processEnv+"="+string(told))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	alive, err := cmd.StdinPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // It was killed; the error says only that.
		_ = alive.Close()
		if bytes.Contains(out.Bytes(), []byte("FAIL")) || bytes.Contains(out.Bytes(), []byte("DATA RACE")) {
			w.t.Errorf("process %s: %s", instance, out.String())
		}
	})
	w.t.Cleanup(kill)
	return kill
}

// handOutAgain shortens after what silence of its process a request is handed out again.
func (s *spread) handOutAgain(after time.Duration) {
	s.t.Helper()
	nc, err := nats.Connect(s.server.URL())
	must(s.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	must(s.t, err)
	requests, err := js.Consumer(s.t.Context(), bus.StreamMirror, bus.MirrorRequests)
	must(s.t, err)
	c := requests.CachedInfo().Config
	c.AckWait = after
	_, err = js.UpdateConsumer(s.t.Context(), bus.StreamMirror, c)
	must(s.t, err)
}

// carried follows who carries which parts of a run, until the run's results are dropped
// and stop is called.
func (s *spread) carried(run string) (parts <-chan bus.Record, stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	ch := make(chan bus.Record, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.me.FollowMirrorDone(ctx, "big", run, func(r bus.Record) error {
			if dones, err := fleet.DecodeDones(r.Data); err == nil && len(dones) == 1 && len(dones[0].Parts) == 1 {
				ch <- r
			}
			return nil
		})
		if ctx.Err() == nil {
			s.t.Errorf("follow run %s: %v", run, err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); close(ch) })
	s.t.Cleanup(stop)
	return ch, stop
}

// awaitPart waits until an instance, or with "" anyone, has carried a part.
func (s *spread) awaitPart(parts <-chan bus.Record, instance string) (seen []bus.Record) {
	s.t.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		select {
		case r := <-parts:
			seen = append(seen, r)
			if instance == "" || r.Instance == instance {
				return seen
			}
		case <-timeout:
			s.t.Fatalf("%s carried no part; others carried %d", instance, len(seen))
		}
	}
}

// arrived checks that the bucket has the file, byte by byte, with no upload left over,
// and that the levels of proof hold.
func (s *spread) arrived() {
	s.t.Helper()
	client := enginetest.Client(s.t, s.bucket)
	o, err := client.GetObject(s.t.Context(), s.bucket.Bucket, "d/large", minio.GetObjectOptions{})
	must(s.t, err)
	want, err := os.Open(filepath.Join(s.dir, "src", "d", "large"))
	must(s.t, err)
	got, expected := sha256.New(), sha256.New()
	_, err = io.Copy(got, o)
	_, werr := io.Copy(expected, want)
	must(s.t, errors.Join(err, werr, o.Close(), want.Close()))
	if !bytes.Equal(got.Sum(nil), expected.Sum(nil)) {
		s.t.Error("the object has another content than the file")
	}
	for u := range client.ListIncompleteUploads(s.t.Context(), s.bucket.Bucket, "d/large", true) {
		s.t.Errorf("an upload is left over: %+v", u)
	}
}

func (s *spread) verified() {
	s.t.Helper()
	env := job.Env{StateDir: filepath.Join(s.dir, "state"), Now: later, Stores: s.inv.Spec.Stores}
	m := s.inv.Spec.Mirrors[0]
	m.BytesPerSecond = 0 // only the runs are to last
	j, err := env.OpenRun(s.t.Context(), m, true)
	must(s.t, err)
	defer func() { must(s.t, j.Close(s.t.Context())) }()
	for _, level := range []proof.Level{proof.L1, proof.L2, proof.L4} {
		v, err := j.Verify(s.t.Context(), plan.Dest, job.VerifyOptions{Level: level})
		must(s.t, err)
		if !v.Verified() {
			s.t.Errorf("%v: %v", level, v.Result)
		}
	}
	if v, err := j.Verify(s.t.Context(), plan.Source, job.VerifyOptions{Level: proof.L4}); err != nil || !v.Verified() {
		s.t.Errorf("the source: %v, %v", v.Result, err)
	}
	if a, err := j.Audit(s.t.Context(), job.AuditOptions{}); err != nil || !a.Clean() || a.Checked != 1 {
		s.t.Errorf("the audit: %+v, %v", a, err)
	}
}

func TestOneFileIsCarriedBySeveralProcessesThoughOneIsKilled(t *testing.T) {
	t.Parallel() // they wait for most of their time
	s := newSpread(t, 24<<20)
	s.process("a")
	s.ask("big", "")
	begun, seq := s.await("big", 0, fleet.KindStarted)
	parts, stop := s.carried(begun.Run)
	kill := s.process("b")
	s.process("c")
	seen := s.awaitPart(parts, "b")
	kill() // with other parts in its hands
	if len(seen) > largeParts-2 {
		t.Fatalf("%d parts were there when it was killed: that is not in the middle", len(seen))
	}
	e, _ := s.await("big", seq, fleet.KindFinished)
	if !e.Result.Whole || e.Result.Done["put"] != 1 || e.Run != begun.Run {
		t.Fatalf("finished with %+v", e.Result)
	}
	stop()
	for r := range parts {
		seen = append(seen, r)
	}
	by := map[string]int{}
	for _, r := range seen {
		by[r.Instance]++
	}
	if len(by) < 2 || by["b"] == 0 {
		t.Errorf("carried by %v", by)
	}
	t.Logf("carried by %v", by)
	s.arrived()
	s.verified()
}

func TestAKilledPlannersUploadGoesOn(t *testing.T) {
	t.Parallel()
	s := newSpread(t, 24<<20)
	s.handOutAgain(5 * time.Second)
	kill := s.process("a")
	s.ask("big", "")
	begun, seq := s.await("big", 0, fleet.KindStarted)
	parts, _ := s.carried(begun.Run)
	s.awaitPart(parts, "a")
	s.awaitPart(parts, "a")
	kill()
	s.process("b")
	second, seq := s.await("big", seq, fleet.KindStarted)
	parts, stop := s.carried(second.Run)
	e, _ := s.await("big", seq, fleet.KindFinished)
	if !e.Result.Whole || e.Run == begun.Run {
		t.Fatalf("run %s finished with %+v", e.Run, e.Result)
	}
	stop()
	n := 0
	for range parts {
		n++
	}
	if n == 0 || n > largeParts-1 {
		t.Errorf("%d of %d parts were uploaded after the planner was killed", n, largeParts)
	}
	s.arrived()
	s.verified()
}

func TestALargeFileThatChangesMeanwhileArrivesAsItIsThen(t *testing.T) {
	t.Parallel()
	s := newSpread(t, 32<<20)
	change := s.large(2)
	for _, name := range []string{"a", "b"} {
		s.process(name)
	}
	s.ask("big", "")
	begun, seq := s.await("big", 0, fleet.KindStarted)
	parts, stop := s.carried(begun.Run)
	s.awaitPart(parts, "")
	change()
	if e, _ := s.await("big", seq, fleet.KindFinished); !e.Result.Whole {
		t.Fatalf("finished with %+v", e.Result)
	}
	stop()
	again := 0
	for range parts {
		again++
	}
	if again < largeParts {
		t.Errorf("%d of %d parts were uploaded after the change", again, largeParts)
	}
	s.arrived()
	s.verified()
}

// What an object's metadata says of its content is not taken for it.
func TestAnObjectsMetadataIsNoProofThatAnItemWasDone(t *testing.T) {
	s := newSpread(t, 0)
	s.start()
	s.file("f", "content")
	s.ask("big", "")
	_, _ = s.await("big", 0, fleet.KindFinished)
	client := enginetest.Client(t, s.bucket)
	o, err := client.StatObject(t.Context(), s.bucket.Bucket, "f", minio.StatObjectOptions{})
	must(t, err)
	it, _ := s.item("f")
	identity := s.identities()
	s.lease("big", "run")
	do := func(number int64) engine.Done {
		t.Helper()
		must(t, s.me.PublishMirrorWork(t.Context(), "big", "run", number, fleet.EncodeItem(it, identity)))
		return s.answer("big", "run", fmt.Sprint(number))[0]
	}
	if d := do(1); d.Err != nil || d.Action.Op != plan.Equal || !d.Action.Dest.Sum.Contains(entry.HasBLAKE3) {
		t.Errorf("what is there is not taken for what was to be done: %+v", d)
	}
	_, err = client.PutObject(t.Context(), s.bucket.Bucket, "f", bytes.NewReader([]byte("CONTENT")), 7, minio.PutObjectOptions{UserMetadata: o.UserMetadata})
	must(t, err)
	if d := do(2); d.Err == nil {
		t.Errorf("another content with the same metadata is taken for it: %+v", d)
	}
}

// identities are what tells the mirror's places from others.
func (s *spread) identities() (ids [2]string) {
	s.t.Helper()
	env := job.Env{StateDir: s.t.TempDir(), Now: later, Stores: s.inv.Spec.Stores}
	w, done, err := env.OpenWorker(s.t.Context(), s.inv.Spec.Mirrors[0])
	must(s.t, err)
	for side, p := range w.Places {
		ids[side] = p.Traits().Identity
	}
	must(s.t, done(s.t.Context()))
	return ids
}
