package mirror

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/sched"
)

// actFlag makes the test's own program a contestant, batchFlag one that becomes batch
// work, and ends with batchExit if the kernel has let it.
const (
	actFlag   = "-act"
	batchFlag = "-batch"
	batchExit = 7
)

// quickEnd is for programs with the race detector: they would sleep for a second before
// they end.
const quickEnd = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == measureFlag {
		os.Exit(Command(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == actFlag {
		if err := act(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == batchFlag {
		os.Exit(becomeBatch())
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// actor is a contestant that does its work, but for that which it says it does: it
// does what stands there instead.
type actor struct {
	name    string
	instead map[Work]Work
}

func (a actor) Name() string     { return a.name }
func (actor) Programs() []string { return []string{"actor"} }

func (a actor) Steps(t Task) []Step {
	work := t.Work
	if other, ok := a.instead[work]; ok {
		work = other
	}
	return []Step{{
		Program: "actor", Args: []string{actFlag, string(work), t.Endpoint, t.Bucket, t.Tree, t.Dest},
		Env: []string{"KEY=" + t.AccessKey, "SECRET=" + t.SecretKey, quickEnd},
	}}
}

func becomeBatch() int {
	runtime.LockOSThread()
	sched.Batch()
	attr, err := unix.SchedGetAttr(0, 0)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case attr.Policy == unix.SCHED_BATCH:
		return batchExit
	}
	return 0
}

// act is the actor's process.
func act(ctx context.Context, args []string) error {
	work, endpoint, bucket, tree, dest := Work(args[0]), args[1], args[2], args[3], args[4]
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	client, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(os.Getenv("KEY"), os.Getenv("SECRET"), ""), Transport: &http.Transport{}})
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(tree, "*", "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		name, err := filepath.Rel(tree, f)
		if err != nil {
			return err
		}
		key := prefix + "/" + filepath.ToSlash(name)
		switch work {
		case Upload, Changed:
			_, err = client.FPutObject(ctx, bucket, key, f, minio.PutObjectOptions{})
		case Download:
			err = client.FGetObject(ctx, bucket, key, filepath.Join(dest, name), minio.GetObjectOptions{})
		case CheckHash:
			err = sameContent(ctx, client, bucket, key, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sameContent(ctx context.Context, client *minio.Client, bucket, key, file string) error {
	o, err := client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	want, err := sumOfFile(file)
	if err != nil {
		return err
	}
	return want.compare(key, o)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// built is the folder of what make builds.
func built(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../out/bin"
	}
	bin, err := filepath.Abs(bin)
	must(t, err)
	return bin
}

// programs is a folder with the actor and what make builds, of which nothing is started
// but by its name.
func programs(t *testing.T) (dir, self string) {
	t.Helper()
	bin := built(t)
	self, err := os.Executable()
	must(t, err)
	dir = t.TempDir()
	for _, name := range []string{"minio", "firedrill", "mc", "rclone"} {
		must(t, os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)))
	}
	must(t, os.Symlink(self, filepath.Join(dir, "actor")))
	return dir, self
}
