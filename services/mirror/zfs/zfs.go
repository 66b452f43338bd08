// Package zfs is everything that the mirror does with ZFS: reading a dataset as it
// was at one moment, replicating its snapshots to another machine or into a
// bucket, restoring them, finding what changed between two, and letting old ones
// go. It runs the zfs command, here or on another machine, with nothing but what
// zfs-fuse 0.7 and OpenZFS both understand, so that it needs not know which it is.
//
// A snapshot is known by its guid, which is the same wherever it is received, and
// never by its name alone: a name can be taken again.
package zfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
)

var (
	// ErrNotExist says that there is no such dataset or snapshot.
	ErrNotExist = errors.New("no such dataset or snapshot")
	// ErrBusy says that a dataset is in use, or a snapshot held, and stayed so.
	ErrBusy = errors.New("the dataset is in use")
	// ErrCloned says that a snapshot cannot go because a clone is made of it.
	ErrCloned = errors.New("the snapshot has clones")
	// ErrTouched says that a target was written to since its newest snapshot, or,
	// with atime=on, just read.
	ErrTouched = errors.New("the target was changed since its newest snapshot")
	// ErrDiverged says that a target has snapshots that its source does not have,
	// newer than all that both have.
	ErrDiverged = errors.New("the target's newest snapshot is not one of the source's")
	// ErrNoCommon says that a target exists and has no snapshot of the source.
	ErrNoCommon = errors.New("the target has no snapshot in common with the source")
	// ErrNoSnapshots says that a source has no snapshot that could be sent.
	ErrNoSnapshots = errors.New("the source has no snapshots")
	// ErrOther says that an archive holds another dataset's points.
	ErrOther = errors.New("the archive is another dataset's")
	// ErrCorrupt says that something is not what its hash, its size or its guid says.
	ErrCorrupt = errors.New("the content is damaged")
	// ErrUnsupported says that something was written in a form that is not known.
	ErrUnsupported = errors.New("of a kind that is not known")
	// ErrDenied says that ZFS does not let this user do it.
	ErrDenied = errors.New("ZFS does not permit it to this user")
	// ErrNoZFS says that no ZFS answers where one was looked for.
	ErrNoZFS = errors.New("no ZFS answers")
	// ErrTooMuch says that more would have to be read than was allowed.
	ErrTooMuch = errors.New("more was written than may be read for that")
	// ErrName says that a name cannot be that of a dataset, a snapshot or a job.
	ErrName = errors.New("unusable name")
)

// Runner runs programs on the machine whose ZFS is used. It may be used
// concurrently.
type Runner interface {
	// Run runs argv, with the input stdin, or none if it is nil, and writes what it
	// puts out to stdout, unless that is nil. A program that could not be run, or
	// failed, is a *control.CommandError. When ctx ends the program is killed. A
	// program that ends before its input does may leave one Read of stdin under
	// way: whoever gave it has to end that.
	Run(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error
}

// Host is the ZFS of one machine. Its methods may be used concurrently. It holds
// nothing open.
type Host struct {
	runner Runner
	// patience, if not 0, is for patience.
	patience time.Duration
}

// Open asks whether there is a ZFS that answers where r leads. Unless ctx has ended
// the error wraps ErrNoZFS or ErrDenied.
func Open(ctx context.Context, r Runner) (*Host, error) {
	h := &Host{runner: r}
	_, err := h.output(ctx, "zpool", "list", "-H", "-o", "name")
	if err == nil {
		return h, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask for ZFS: %w", err)
	}
	return nil, fmt.Errorf("ask for ZFS: %w", unanswered(err))
}

// The exit codes of env for a program that is not there, and of ssh for a machine
// that cannot be reached.
const (
	codeNoProgram = 127
	codeNoMachine = 255
)

// unanswered says why a ZFS did not answer, and what to do.
func unanswered(err error) error {
	failed, ok := errors.AsType[*control.CommandError](err)
	switch {
	case ok && failed.Where != "" && (failed.Code == codeNoMachine || failed.Code < 0):
		return fmt.Errorf("%w: %w; see that `%s true` works", ErrNoZFS, err, failed.Where)
	case errors.Is(err, ErrDenied):
		return fmt.Errorf("%w; run it as root", err)
	case ok && failed.Code == codeNoProgram:
		return fmt.Errorf("%w: %w; install zfsutils-linux, or zfs-fuse", ErrNoZFS, err)
	}
	return fmt.Errorf("%w: %w; load the kernel's module with `modprobe zfs`, or start zfs-fuse", ErrNoZFS, err)
}

// zfs runs a zfs command and returns its output.
func (h *Host) zfs(ctx context.Context, args ...string) ([]byte, error) {
	return h.output(ctx, append([]string{"zfs"}, args...)...)
}

func (h *Host) output(ctx context.Context, argv ...string) ([]byte, error) {
	var out bytes.Buffer
	err := h.run(ctx, nil, &out, argv...)
	return out.Bytes(), err
}

// run adds to a failed command's error what it means.
func (h *Host) run(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
	err := h.runner.Run(ctx, stdin, stdout, argv...)
	if failed, ok := errors.AsType[*control.CommandError](err); ok && ctx.Err() == nil {
		if reason := reasonOf(failed.Stderr); reason != nil {
			return fmt.Errorf("%w: %w", reason, err)
		}
	}
	return err
}

// reasonOf reads what zfs says in English, broken into lines where it likes. It has
// no other way to tell.
func reasonOf(stderr string) error {
	text := strings.Join(strings.Fields(stderr), " ")
	for _, known := range []struct {
		says   string
		reason error
	}{
		{"has been modified since most recent snapshot", ErrTouched},
		{"does not match incremental source", ErrDiverged},
		{"destination has snapshots", ErrNoCommon},
		{"must specify -F to overwrite it", ErrNoCommon},
		{"has dependent clones", ErrCloned},
		{"snapshot has dependent clone", ErrCloned},
		{"is busy", ErrBusy},
		{"ermission denied", ErrDenied},
		{"must be run as root", ErrDenied},
		{"does not exist", ErrNotExist},
		{"no such pool", ErrNotExist},
	} {
		if strings.Contains(text, known.says) {
			return known.reason
		}
	}
	return nil
}

// patience is how long is waited for what is busy for no reason that lasts: ZFS
// says so for a moment after each use.
const patience = 10 * time.Second

// retry does something again while it is ErrBusy, for as long as patience.
func (h *Host) retry(ctx context.Context, do func() error) error {
	limit := time.NewTimer(cmp.Or(h.patience, patience))
	defer limit.Stop()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := do()
		if !errors.Is(err, ErrBusy) {
			return err
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-limit.C:
			again.Stop()
			return err
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		}
	}
}

// What names may be. A name is an argument of a command: it must not look like an
// option, nor hold what separates a dataset from a snapshot.
var (
	datasetName  = lazy.Regexp(`^[A-Za-z][-A-Za-z0-9_.: ]*(/[-A-Za-z0-9_.: ]+)*$`)
	snapshotName = lazy.Regexp(`^[-A-Za-z0-9_.: ]+$`)
	jobName      = lazy.Regexp(`^[A-Za-z0-9][-A-Za-z0-9_.:]*$`)
)

// maxName is how long a whole name may be, and what is left of it for a job.
const (
	maxName = 255
	maxJob  = 64
)

func checkDataset(name string) error {
	if len(name) > maxName || !datasetName().MatchString(name) {
		return fmt.Errorf("dataset %q: %w: write it like pool/name, with letters, digits and -_.: in it", name, ErrName)
	}
	return nil
}

func checkJob(job string) error {
	if len(job) > maxJob || !jobName().MatchString(job) {
		return fmt.Errorf("job %q: %w: use up to %d letters, digits and -_.: and begin with a letter or digit", job, ErrName, maxJob)
	}
	return nil
}
