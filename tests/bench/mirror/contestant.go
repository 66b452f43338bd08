package mirror

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The contestants' names, as -contestants takes them.
const (
	nameFiredrill = "firedrill"
	nameRclone    = "rclone"
	nameBest      = "rclone-best"
	nameMC        = "mc"
)

// prefix is where in its bucket each contestant works.
const prefix = "data"

// Runner knows how one contestant is called.
type Runner interface {
	// Name is what tables call it.
	Name() string
	// Program is the file name of its program.
	Program() string
	// Command gives the arguments and the environment, as NAME=value, for a task.
	Command(Task) (args, env []string)
}

// Task is one run's work.
type Task struct {
	Work Work
	Set  Set
	// Look is firedrill's --check.
	Look string
	// Tree is what is mirrored; Dest is where a download goes.
	Tree, Dest string
	// Endpoint is the server's URL; the bucket is there.
	Endpoint, Bucket string
	// AccessKey and SecretKey go into the environment only.
	AccessKey, SecretKey string
	// State is a directory that the contestant finds again when it works on the
	// same bucket.
	State string
}

// Contestants are all of them; firedrill first, since ratios are its.
func Contestants() []Runner {
	return []Runner{firedrill{}, rclone{}, rclone{best: true}, mc{}}
}

// present fails with all programs of the runners that dir does not have.
func present(dir string, runners []Runner) error {
	var missing []string
	for _, r := range runners {
		st, err := os.Stat(filepath.Join(dir, r.Program()))
		if (err != nil || st.Mode()&0o111 == 0) && !slices.Contains(missing, r.Program()) {
			missing = append(missing, r.Program())
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%s has no program %s: build it with `make bench-mirror`, or leave it out with -contestants", dir, strings.Join(missing, ", "))
}

type firedrill struct{}

func (firedrill) Name() string    { return nameFiredrill }
func (firedrill) Program() string { return "firedrill" }

func (firedrill) Command(t Task) (args, env []string) {
	env = []string{"AWS_ACCESS_KEY_ID=" + t.AccessKey, "AWS_SECRET_ACCESS_KEY=" + t.SecretKey}
	local, remote := "dir:"+t.Tree, "s3+"+t.Endpoint+"/"+t.Bucket+"/"+prefix
	switch t.Work {
	case CheckHash:
		return []string{"mirror", "verify", "--level", "L1", "--state-dir", t.State, local, remote}, env
	case CheckContent:
		return []string{"mirror", "verify", "--level", "L4", "--state-dir", t.State, local, remote}, env
	case Download:
		// What it knows of the way up would be of no use to somebody who restores.
		return []string{"mirror", "sync", "--mode", "copy", "--state-dir", t.State + "-down", remote, "dir:" + t.Dest}, env
	}
	args = []string{"mirror", "sync", "--mode", "copy", "--state-dir", t.State}
	if t.Look != "" {
		args = append(args, "--check", t.Look)
	}
	return append(args, local, remote), env
}

// rclone is called as it comes, or with the flags that are best for each case.
type rclone struct{ best bool }

func (r rclone) Name() string {
	if r.best {
		return nameBest
	}
	return nameRclone
}

func (rclone) Program() string { return "rclone" }

func (r rclone) Command(t Task) (args, env []string) {
	env = []string{
		"RCLONE_CONFIG=/dev/null",
		"RCLONE_CONFIG_BENCH_TYPE=s3", "RCLONE_CONFIG_BENCH_PROVIDER=Minio", "RCLONE_CONFIG_BENCH_REGION=us-east-1",
		"RCLONE_CONFIG_BENCH_ENDPOINT=" + t.Endpoint,
		"RCLONE_CONFIG_BENCH_ACCESS_KEY_ID=" + t.AccessKey, "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY=" + t.SecretKey,
	}
	remote := "bench:" + t.Bucket + "/" + prefix
	switch t.Work {
	case CheckHash:
		args = []string{"check", t.Tree, remote}
	case CheckContent:
		args = []string{"check", "--download", t.Tree, remote}
	case Download:
		args = []string{"copy", remote, t.Dest}
	default:
		args = []string{"copy", t.Tree, remote}
	}
	if r.best {
		args = append(args, bestFlags(t)...)
	}
	return args, env
}

// bestFlags are those of rclone's flags that were fastest in a case and keep what
// the case is about.
func bestFlags(t Task) []string {
	flags := []string{"--transfers", "32", "--checkers", "32", "--s3-no-head", "--s3-use-unsigned-payload=true"}
	if t.Set.Size >= 1<<20 {
		flags = append(flags, "--s3-chunk-size", "32M", "--s3-upload-concurrency", "4")
	}
	switch t.Work {
	case Unchanged, Changed:
		// Saves the HEAD for each object that asks for the time it was given. Without
		// --fast-list it lists many directories at once, and not all of it is held in
		// memory.
		return append(flags, "--update", "--use-server-modtime")
	case Download, CheckContent:
		flags = append(flags, "--s3-no-head-object")
	}
	return append(flags, "--fast-list")
}

type mc struct{}

func (mc) Name() string    { return nameMC }
func (mc) Program() string { return "mc" }

func (mc) Command(t Task) (args, env []string) {
	host := url.URL{User: url.UserPassword(t.AccessKey, t.SecretKey)}
	host.Scheme, host.Host, _ = strings.Cut(t.Endpoint, "://")
	env = []string{"MC_HOST_bench=" + host.String()}
	remote := "bench/" + t.Bucket + "/" + prefix + "/"
	args = []string{"--quiet", "mirror", "--overwrite"}
	if t.Work == Download {
		return append(args, remote, t.Dest+"/"), env
	}
	return append(args, t.Tree+"/", remote), env
}
