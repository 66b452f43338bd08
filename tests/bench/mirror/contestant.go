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
	nameMCHash    = "mc-hash"
	nameNormal    = "firedrill-normal"
)

// prefix is where in its bucket each contestant works.
const prefix = "data"

// Runner knows how one contestant is called.
type Runner interface {
	// Name is what tables call it.
	Name() string
	// Programs are the file names of its programs.
	Programs() []string
	// Steps are the calls that do a task, one after the other.
	Steps(Task) []Step
}

// prover is a runner with results that the race does not look at by itself.
type prover interface {
	// Prove fails with an [ErrWrong] if they are not what the tree's are.
	Prove(Task, *Tree) error
}

// Step is one call of a program.
type Step struct {
	Program string
	// Args are its arguments, Env what it has in its environment, as NAME=value.
	Args, Env []string
	// Normal says that it must not become batch work, whatever it asks the kernel for.
	Normal bool
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
	// State is where the contestant may leave a directory or a file, which it finds
	// again when it works on the same bucket.
	State string
}

// Contestants are all of them; firedrill first, since ratios are its.
func Contestants() []Runner {
	return []Runner{firedrill{}, rclone{}, rclone{best: true}, mc{}, mcHash{}, firedrill{normal: true}}
}

// everywhere reports whether a contestant is one of those that take part in all races,
// unless a case says why not.
func everywhere(name string) bool { return name != nameMCHash && name != nameNormal }

// programsOf are the programs of all runners, each once.
func programsOf(runners []Runner) []string {
	var all []string
	for _, r := range runners {
		for _, p := range r.Programs() {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// present fails with all programs of the runners that dir does not have.
func present(dir string, runners []Runner) error {
	var missing []string
	for _, p := range programsOf(runners) {
		if st, err := os.Stat(filepath.Join(dir, p)); err != nil || st.Mode()&0o111 == 0 {
			missing = append(missing, p)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%s has no program %s: build it with `make bench-mirror`, or leave it out with -contestants", dir, strings.Join(missing, ", "))
}

// firedrill is called as it comes, or kept from being batch work: what that is worth
// is the difference (ADR 20).
type firedrill struct{ normal bool }

func (f firedrill) Name() string {
	if f.normal {
		return nameNormal
	}
	return nameFiredrill
}

func (firedrill) Programs() []string { return []string{"firedrill"} }

func (f firedrill) Steps(t Task) []Step {
	args, env := f.command(t)
	return []Step{{Program: "firedrill", Args: args, Env: env, Normal: f.normal}}
}

func (firedrill) command(t Task) (args, env []string) {
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

func (rclone) Programs() []string { return []string{"rclone"} }

func (r rclone) Steps(t Task) []Step {
	args, env := r.command(t)
	return []Step{{Program: "rclone", Args: args, Env: env}}
}

func (r rclone) command(t Task) (args, env []string) {
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

func (mc) Name() string       { return nameMC }
func (mc) Programs() []string { return []string{"mc"} }

func (mc) Steps(t Task) []Step {
	host := url.URL{User: url.UserPassword(t.AccessKey, t.SecretKey)}
	host.Scheme, host.Host, _ = strings.Cut(t.Endpoint, "://")
	from, to := t.Tree+"/", "bench/"+t.Bucket+"/"+prefix+"/"
	if t.Work == Download {
		from, to = to, t.Dest+"/"
	}
	return []Step{{
		Program: "mc", Args: []string{"--quiet", "mirror", "--overwrite", from, to},
		Env: []string{"MC_HOST_bench=" + host.String()},
	}}
}
