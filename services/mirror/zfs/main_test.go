package zfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// servers are started by the first test that wants them, and stopped after the last.
// Half of a test is waiting, so tests run at the same time, each in a world that
// nobody else uses meanwhile: one zfs-fuse that several tests mount file systems of
// and read in at once hangs for good.
type servers struct {
	mu     sync.Mutex
	dir    string
	worlds []*world
	// idle are the worlds that no test has, and leased those that one has, by its name.
	idle   chan *world
	leased map[string]*world
	minio  *lab.MinIO
}

// world is what one test at a time has to itself: machines, by their names.
type world struct {
	number   int
	machines map[string]*lab.ZFS
}

// worlds is how many tests use ZFS at once.
const worlds = 2

var shared = newServers()

func newServers() *servers {
	s := &servers{idle: make(chan *world, worlds), leased: map[string]*world{}}
	for i := range worlds {
		w := &world{i, map[string]*lab.ZFS{}}
		s.worlds = append(s.worlds, w)
		s.idle <- w
	}
	return s
}

// lease gives a test and its subtests a world until its end.
func (s *servers) lease(t testing.TB) *world {
	t.Helper()
	test, _, sub := strings.Cut(t.Name(), "/")
	s.mu.Lock()
	w := s.leased[test]
	s.mu.Unlock()
	if w != nil {
		return w
	}
	if sub {
		t.Fatal("the test has to ask for its machines before its subtests do")
	}
	w = <-s.idle
	s.mu.Lock()
	s.leased[test] = w
	s.mu.Unlock()
	t.Cleanup(func() {
		s.mu.Lock()
		delete(s.leased, test)
		s.mu.Unlock()
		s.idle <- w
	})
	return w
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := errors.Join(shared.stop(), goleak.Find()); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (s *servers) stop() error {
	var errs []error
	for _, w := range s.worlds {
		for _, z := range w.machines {
			errs = append(errs, z.Stop())
		}
	}
	if s.minio != nil {
		s.minio.Stop()
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func (s *servers) path(t testing.TB, name string) string {
	t.Helper()
	if s.dir == "" {
		// In memory where that is possible: the disk is not what is tested.
		dir, err := os.MkdirTemp("/dev/shm", "firedrill-zfs-")
		if err != nil {
			dir, err = os.MkdirTemp("", "firedrill-zfs-")
		}
		must(t, err)
		s.dir = dir
	}
	return filepath.Join(s.dir, name)
}

// machine is a ZFS as if on a machine of its own, with a pool "tank".
type machine struct {
	*Host
	lab *lab.ZFS
}

// on starts the machine of the name in the test's world, or gives the one that runs.
func on(t testing.TB, name string) machine {
	t.Helper()
	w := shared.lease(t)
	z := w.machines[name]
	if z == nil {
		shared.mu.Lock()
		dir := shared.path(t, fmt.Sprintf("%s-%d", name, w.number))
		shared.mu.Unlock()
		var err error
		z, err = lab.StartZFS(t.Context(), lab.ZFSOptions{Dir: dir, Pools: []lab.ZFSPool{{Name: "tank", Size: 1 << 30}}})
		must(t, err)
		w.machines[name] = z
	}
	return machine{reach(t, z.Argv()), z}
}

func reach(t testing.TB, argv []string) *Host {
	t.Helper()
	r, err := NewMachine(control.Config{Kind: control.KindExec, Argv: argv})
	must(t, err)
	h, err := Open(t.Context(), r)
	must(t, err)
	return h
}

// do runs zfs as an administrator would, past what is tested.
func (m machine) do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := m.try(t, args...)
	if err != nil {
		t.Fatalf("zfs %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (m machine) try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	argv := append(m.lab.Argv(), "zfs")
	argv = append(argv, args...)
	// Also at the end of a test, when its context is over.
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

var datasetNumber atomic.Int64

// freshName is that of a dataset that does not exist, and goes with the test.
func (m machine) freshName(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("tank/d%d", datasetNumber.Add(1))
	t.Cleanup(func() {
		for line := range strings.Lines(m.tryOutput(t, "get", "-H", "-r", "-o", "name,value", "userrefs", name)) {
			s, holds, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if holds == "0" || holds == "-" {
				continue
			}
			for _, job := range []string{"job", "other"} {
				_, _ = m.try(t, "release", holdTag(job), s)
			}
		}
		err := m.retry(context.WithoutCancel(t.Context()), func() error {
			if out, err := m.try(t, "destroy", "-R", name); err != nil && !strings.Contains(out, "does not exist") {
				return fmt.Errorf("%w: %s", ErrBusy, out)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	return name
}

func (m machine) tryOutput(t testing.TB, args ...string) string {
	out, err := m.try(t, args...)
	if err != nil {
		return ""
	}
	return out
}

// fresh makes a dataset.
func (m machine) fresh(t testing.TB) string {
	t.Helper()
	name := m.freshName(t)
	m.do(t, "create", name)
	return name
}

// path is where a dataset is mounted.
func (m machine) path(dataset string) string {
	return filepath.Join(m.lab.Dir, "mnt", dataset)
}

// readings is where readings are mounted.
func (m machine) readings() string { return filepath.Join(m.lab.Dir, "readings") }

// history is a dataset with snapshots, and copies of what each holds.
type history struct {
	machine
	dataset string
	// bulk is how many bytes each step writes besides, for streams that do not fit into
	// the pipes between two commands.
	bulk      int
	snapshots []Snapshot
	copies    []string
}

// grow makes a dataset and n snapshots, each after some changes.
func grow(t testing.TB, m machine, n int) *history {
	t.Helper()
	h := &history{machine: m, dataset: m.fresh(t)}
	for range n {
		h.step(t)
	}
	return h
}

// step changes the dataset and takes a snapshot.
func (h *history) step(t testing.TB) Snapshot {
	t.Helper()
	n := len(h.snapshots)
	evolve(t, h.path(h.dataset), n)
	if h.bulk > 0 {
		must(t, writeNoise(h.path(h.dataset)+"/bulk", h.bulk, uint64(n)))
	}
	s, err := h.Snapshot(t.Context(), h.dataset, fmt.Sprintf("s%d", n), "job")
	must(t, err)
	kept := filepath.Join(t.TempDir(), s.Name)
	sh(t, "cp", "-a", h.path(h.dataset), kept)
	h.snapshots, h.copies = append(h.snapshots, s), append(h.copies, kept)
	return s
}

// midway is how many bytes of a stream are past when something happens in its middle.
const midway = 256 << 10

// evolve makes the nth changes to a tree.
func evolve(t testing.TB, dir string, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(n), 1))
	at := func(i int) string { return filepath.Join(dir, fmt.Sprintf("dir%d", i%4), fmt.Sprintf("file%d", i)) }
	for range 12 {
		i := random.IntN(40)
		must(t, os.MkdirAll(filepath.Dir(at(i)), 0o755))
		must(t, os.WriteFile(at(i), noise(random, random.IntN(50_000)), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "large"), noise(random, 3*midway), 0o600))
	must(t, os.Symlink("large", filepath.Join(dir, fmt.Sprintf("link%d", n))))
	if n > 0 {
		must(t, os.Remove(filepath.Join(dir, fmt.Sprintf("link%d", n-1))))
		must(t, os.Rename(filepath.Join(dir, "large"), filepath.Join(dir, "was-large")))
	}
}

// noise is n bytes of which about half compress.
func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], random.Uint64())
	_, _ = rand.NewChaCha8(seed).Read(b[:n/2])
	return b
}

// same compares a snapshot, wherever it was received, with a tree.
func same(t testing.TB, m machine, dataset, snapshot, want string) {
	t.Helper()
	clone := dataset + "/compare-" + snapshot
	path := filepath.Join(m.lab.Dir, "compare", clone)
	m.do(t, "clone", "-o", "readonly=on", "-o", "mountpoint="+path, dataset+"@"+snapshot, clone)
	sh(t, "diff", "-r", "--no-dereference", want, path)
	must(t, m.destroy(t.Context(), clone))
}

func sh(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %.2000s", strings.Join(argv, " "), err, out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Fatalf("got %v, want %v", err, w)
		}
	}
}

func namesOf(snapshots []Snapshot) string {
	var names []string
	for _, s := range snapshots {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// heldBy lists the names of the snapshots that are held.
func heldBy(t testing.TB, m machine, dataset string) string {
	t.Helper()
	all, err := m.Snapshots(t.Context(), dataset)
	must(t, err)
	return namesOf(held(all))
}

var bucketNumber atomic.Int64

// store opens a new bucket of the shared MinIO.
func store(t testing.TB) *bucket.Bucket {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.minio == nil {
		bin := os.Getenv("FIREDRILL_BIN")
		if bin == "" {
			bin = "../../../out/bin"
		}
		m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: filepath.Join(bin, "minio"), Dir: shared.path(t, "minio")})
		must(t, err)
		shared.minio = m
	}
	m := shared.minio
	c := bucket.Config{
		Endpoint: m.Endpoint, Bucket: fmt.Sprintf("zfs-%d", bucketNumber.Add(1)), Prefix: "archive/",
		Credentials: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""),
	}
	admin, err := minio.New(strings.TrimPrefix(m.Endpoint, "http://"), &minio.Options{Creds: c.Credentials})
	must(t, err)
	must(t, admin.MakeBucket(t.Context(), c.Bucket, minio.MakeBucketOptions{}))
	b, err := bucket.Open(t.Context(), c)
	must(t, err)
	t.Cleanup(b.Close)
	return b
}

// keys lists what a store holds.
func keys(t testing.TB, s Store) []string {
	t.Helper()
	var out []string
	for o, err := range s.List(t.Context(), bucket.ListOptions{}) {
		must(t, err)
		out = append(out, o.Key)
	}
	return out
}

// rewrite changes an object.
func rewrite(t testing.TB, s Store, key string, change func([]byte) []byte) {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0, -1)
	must(t, err)
	raw, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	raw = change(slices.Clone(raw))
	_, err = s.Put(t.Context(), key, bytes.NewReader(raw), int64(len(raw)), bucket.PutOptions{})
	must(t, err)
}
