package minio

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	neturl "net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/supervisor"
	"github.com/firedrill/firedrill/pkg/target"
)

const (
	testBucket = "canaries"
	testUser   = "probe-user"
	testSecret = "probe-user-secret-key"
)

// rig is a real MinIO on a small file system of its own, with what the tests ask of it.
type rig struct {
	*lab.MinIO
	dir    string
	config json.RawMessage
	// start asks for the server to be started.
	start []string
	// root is a store as the administrator sees it, past the driver's users.
	root *store
	// victims are objects that drills may break, with their content.
	victims map[string][]byte
}

// fileSystem is the size of the rig's file system.
const fileSystem = 256 << 20

func startRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(fileSystem)); err != nil {
		t.Fatalf("a file system of its own: %v: may this user mount? run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../out/bin"
	}
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: filepath.Join(bin, "minio"), Dir: filepath.Join(dir, "lab")})
	if err != nil {
		t.Fatalf("start the lab: %v", err)
	}
	r := &rig{MinIO: m, dir: dir, victims: map[string][]byte{
		"victims/small": []byte("a small object lies in its xl.meta"),
		"victims/large": bytes.Repeat([]byte("a large one in a part\n"), 20_000),
	}}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(m.LogFile)
			t.Logf("log of MinIO:\n%s", log[max(0, len(log)-4000):])
		}
	})
	t.Cleanup(m.Stop)
	for _, d := range []string{"scratch", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.supervise(t)
	r.configure(t)
	r.fill(t)
	return r
}

// supervise starts the server where a drill asks for it.
func (r *rig) supervise(t *testing.T) {
	t.Helper()
	s, err := supervisor.Begin(t.Context(), r.dir, r.Restart)
	if err != nil {
		t.Fatal(err)
	}
	r.start = s.Command()
	t.Cleanup(func() {
		if err := s.End(); err != nil {
			t.Errorf("the supervisor: %v", err)
		}
	})
}

func (r *rig) configure(t *testing.T) {
	t.Helper()
	u, err := neturl.Parse(r.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FIREDRILL_TEST_SECRET", testSecret)
	t.Setenv("FIREDRILL_TEST_ROOT", r.SecretKey)
	r.config = raw(t, map[string]any{
		"endpoint": r.Endpoint, "bucket": testBucket, "user": testUser, "secretKey": map[string]any{"env": "FIREDRILL_TEST_SECRET"},
		"admin":    map[string]any{"user": r.AccessKey, "secretKey": map[string]any{"env": "FIREDRILL_TEST_ROOT"}},
		"stateDir": filepath.Join(r.dir, "state"), "scratchDirs": []string{filepath.Join(r.dir, "scratch")},
		"breakablePrefixes": []string{"victims/"},
		"nodes": []any{map[string]any{
			"name": "a", "host": "127.0.0.1", "port": port, "drives": []string{r.drive()}, "logFile": r.LogFile,
			"start": r.start,
		}},
	})
	r.root = r.store(t, r.edit(t, func(c map[string]any) {
		c["user"], c["secretKey"] = r.AccessKey, map[string]any{"env": "FIREDRILL_TEST_ROOT"}
		c["admin"] = map[string]any{}
	}))
	r.root.admin = r.root.client
}

func (r *rig) drive() string { return filepath.Join(r.dir, "lab", "data") }

// fill makes the user, the bucket and the objects.
func (r *rig) fill(t *testing.T) {
	t.Helper()
	if err := r.root.awaitUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Users are added by a request that is encrypted in a way of MinIO's own; an
	// import is not.
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	w, err := z.Create("iam-assets/users.json")
	if err == nil {
		err = json.NewEncoder(w).Encode(map[string]any{testUser: map[string]string{"secretKey": testSecret, "status": "enabled"}})
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.root.ask(t.Context(), http.MethodPut, "import-iam", nil, archive.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := r.root.setPolicies(t.Context(), testUser, "readwrite,diagnostics"); err != nil {
		t.Fatal(err)
	}
	c := r.root.users.client()
	if err := c.MakeBucket(t.Context(), testBucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.EnableVersioning(t.Context(), testBucket); err != nil {
		t.Fatal(err)
	}
	for key, content := range r.victims {
		r.put(t, key, content)
	}
}

func (r *rig) put(t *testing.T, key string, content []byte) {
	t.Helper()
	if _, err := r.root.users.client().PutObject(t.Context(), testBucket, key, bytes.NewReader(content), int64(len(content)), "", "", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// edit changes the configuration.
func (r *rig) edit(t *testing.T, f func(c map[string]any)) json.RawMessage {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(r.config, &c); err != nil {
		t.Fatal(err)
	}
	f(c)
	return raw(t, c)
}

// nodeOf is a node in an edited configuration.
func nodeOf(c map[string]any) map[string]any { return c["nodes"].([]any)[0].(map[string]any) }

// elsewhere makes the node be reached through a command that, as ssh does, joins its
// arguments and lets a shell split them.
func elsewhere(c map[string]any) {
	nodeOf(c)["control"] = map[string]any{"kind": "exec", "argv": []string{"sh", "-c", `exec sh -c "$*"`, "--"}}
}

// renamed is the same store by another name and way.
func renamed(c map[string]any) {
	nodeOf(c)["name"], nodeOf(c)["host"] = "west", "localhost"
	c["endpoint"] = strings.Replace(c["endpoint"].(string), "127.0.0.1", "localhost", 1)
}

func (r *rig) store(t *testing.T, config json.RawMessage) *store {
	t.Helper()
	cfg, err := parseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStore(cfg, target.Config{Name: "store", Raw: config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (r *rig) open(t *testing.T) *store { return r.store(t, r.config) }

// healthy says what is missing for a store as it should be.
func (r *rig) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := r.root.health(ctx, r.root.nodes[0], healthCluster); err != nil {
		return err
	}
	if p, err := r.root.policiesOf(ctx, testUser); err != nil || p != "diagnostics,readwrite" && p != "readwrite,diagnostics" {
		return fmt.Errorf("the user's policies are %q, %w", p, errors.Join(err))
	}
	for key, want := range r.victims {
		if got, err := get(ctx, r.root.users.client(), testBucket, key); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s has %d bytes, %w", key, len(got), errors.Join(err))
		}
	}
	for _, pattern := range []string{"scratch/.*", "state/*.kept*"} {
		if left, err := filepath.Glob(filepath.Join(r.dir, pattern)); err != nil || len(left) > 0 {
			return fmt.Errorf("left behind: %v %w", left, errors.Join(err))
		}
	}
	return r.root.tryWrite(ctx, "healthy")
}

// snapshot is what a plan must leave as it is.
func (r *rig) snapshot(ctx context.Context) (string, error) {
	policies, err := r.root.policiesOf(ctx, testUser)
	if err != nil {
		return "", err
	}
	out := []string{policies, strconv.Itoa(r.PID())}
	for _, dir := range []string{filepath.Join(r.drive(), testBucket, "victims"), filepath.Join(r.dir, "state"), filepath.Join(r.dir, "scratch")} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			i, err := d.Info()
			if err == nil {
				out = append(out, fmt.Sprintf("%s %d %v", path, i.Size(), i.ModTime()))
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return strings.Join(out, "\n"), nil
}

func (r *rig) down(ctx context.Context) error {
	if err := r.root.health(ctx, r.root.nodes[0], healthLive); err == nil {
		return errors.New("it answers")
	}
	return nil
}

// unreadable returns nil when a client does not get the object as it was.
func (r *rig) unreadable(key string) func(context.Context) error {
	return func(ctx context.Context) error {
		if got, err := get(ctx, r.root.users.client(), testBucket, key); err == nil && bytes.Equal(got, r.victims[key]) {
			return errors.New("it is read as it was")
		}
		return nil
	}
}

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const testDrill = "test-0"

// do plans and does one operation; the returned record undoes it.
func do(t *testing.T, s *store, step, name string, params any) (target.Effect, target.Operation, json.RawMessage) {
	t.Helper()
	op := target.Operation{Drill: testDrill, Step: step, Name: name, Limit: time.Minute, Fence: 1}
	if params != nil {
		op.Params = raw(t, params)
	}
	p, err := s.Plan(t.Context(), op)
	if err != nil {
		t.Fatalf("plan %s: %v", name, err)
	}
	e, err := s.Do(t.Context(), op, p)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !e.Proof.Proven {
		t.Errorf("%s is not proven: %+v", name, e.Proof)
	}
	t.Logf("%s took %v: %v", name, time.Duration(e.Ended.Mono-e.Began.Mono), e.Proof.Observations)
	return e, op, p.Undo
}

func mend(t *testing.T, s *store, op target.Operation, record json.RawMessage) string {
	t.Helper()
	d, err := s.Undo(t.Context(), op, record)
	if err != nil {
		t.Fatalf("undo of %s: %v", op.Name, err)
	}
	t.Logf("undo of %s: %v", op.Name, d)
	return fmt.Sprint(d)
}
