package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// ErrDifferent says that the two sides of a mirror are not the same.
var ErrDifferent = errors.New("the copy is not the same")

// compareBucket has rclone fetch and compare every object with the tree.
func (in *Installation) compareBucket(ctx context.Context, dir, bucket string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(in.Bin, "rclone"), "check", "--download", "--checkers", "8", dir, "there:"+bucket)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + in.Dir, "RCLONE_CONFIG=/dev/null",
		"RCLONE_CONFIG_THERE_TYPE=s3", "RCLONE_CONFIG_THERE_PROVIDER=Minio", "RCLONE_CONFIG_THERE_REGION=us-east-1",
		"RCLONE_CONFIG_THERE_ENDPOINT=" + in.MinIO.Endpoint,
		"RCLONE_CONFIG_THERE_ACCESS_KEY_ID=" + in.MinIO.AccessKey, "RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY=" + in.MinIO.SecretKey,
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: rclone check: %w:\n%.2000s", ErrDifferent, err, strings.ReplaceAll(string(said), in.MinIO.SecretKey, "***"))
	}
	return nil
}

// tempName is how a directory's unfinished files begin, which the next run removes
// once they are old.
const tempName = ".firedrill-mirror."

// compareDir has diff compare the contents, and then looks at modes and times.
func compareDir(ctx context.Context, dir, copied string) error {
	said, err := exec.CommandContext(ctx, "diff", "-r", "--no-dereference", "--exclude="+tempName+"*", dir, copied).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: diff: %w:\n%.2000s", ErrDifferent, err, said)
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		want, err := os.Lstat(path)
		if err != nil {
			return err
		}
		got, err := os.Lstat(filepath.Join(copied, name))
		if err != nil {
			return err
		}
		// A directory's time is that of the last change in it, on either side.
		if got.Mode() != want.Mode() || !d.IsDir() && !got.ModTime().Equal(want.ModTime()) {
			return fmt.Errorf("%w: %s is %s of %s and not %s of %s", ErrDifferent, name, got.Mode(), got.ModTime(), want.Mode(), want.ModTime())
		}
		return nil
	})
}

// versions counts what was ever written to, or removed from, each key of a bucket
// that keeps versions.
func (in *Installation) versions(ctx context.Context, bucket string) (map[string]int, error) {
	out := map[string]int{}
	for o := range in.S3.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("list the versions in bucket %s: %w", bucket, o.Err)
		}
		out[o.Key]++
	}
	return out, ctx.Err()
}

// verify has the mirror itself read the destination and compare it with the signed
// manifest. proven is false where the manifest lacks hashes: of what a planner had
// copied that was killed before it heard so, no more is known than size and time.
func (in *Installation) verify(ctx context.Context, mirror string) (proven bool, err error) {
	inv := in.inventory()
	m, ok := inv.FindMirror(mirror)
	if !ok {
		return false, fmt.Errorf("no mirror %s", mirror)
	}
	env := job.Env{Stores: inv.Spec.Stores, StateDir: in.stateDir(), Now: time.Now}
	j, err := env.OpenLast(ctx, m, job.Looks)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, j.Close(ctx)) }()
	got, err := j.Verify(ctx, plan.Dest, job.VerifyOptions{Level: proof.L4})
	if err != nil {
		return false, err
	}
	v := got.Verdict
	if v.Missing.Count+v.Extra.Count+v.Different.Count+v.Low.Count+got.Unreadable.Count > 0 {
		return false, fmt.Errorf("%w: the mirror's own verification: %v", ErrDifferent, v)
	}
	return v.Unchecked.Count == 0, nil
}

// surplus is what was written more often than it changed, by key.
func surplus(written, expected map[string]int) map[string]int {
	out := map[string]int{}
	for key, n := range written {
		if strings.HasSuffix(key, "/") {
			continue // a directory: it has no content, and is made as often as it is met
		}
		if more := n - expected[key]; more > 0 {
			out[key] = more
		}
	}
	return out
}

// missing is a key that was written less often than it changed, if there is one: a
// version of it was never there, or lost.
func missing(written, expected map[string]int) (string, bool) {
	for _, key := range slices.Sorted(maps.Keys(expected)) {
		if written[key] < expected[key] {
			return key, true
		}
	}
	return "", false
}
