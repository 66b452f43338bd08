package mirror

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"
)

// actFlag makes the test's own program a contestant.
const actFlag = "-act"

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

func (a actor) Name() string  { return a.name }
func (actor) Program() string { return "actor" }

func (a actor) Command(t Task) (args, env []string) {
	work := t.Work
	if other, ok := a.instead[work]; ok {
		work = other
	}
	return []string{actFlag, string(work), t.Endpoint, t.Bucket, t.Tree, t.Dest}, []string{
		"KEY=" + t.AccessKey, "SECRET=" + t.SecretKey,
		// A program with the race detector would sleep for a second before it ends.
		"GORACE=atexit_sleep_ms=0",
	}
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

// programs is a folder with the actor, firedrill, and the MinIO that `make minio` builds.
func programs(t *testing.T) (dir, self string) {
	t.Helper()
	bin := built(t)
	self, err := os.Executable()
	must(t, err)
	dir = t.TempDir()
	for _, name := range []string{"minio", "firedrill"} {
		must(t, os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)))
	}
	must(t, os.Symlink(self, filepath.Join(dir, "actor")))
	return dir, self
}
