package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/pace"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/stores"
)

// Env is what mirrors run in. Its fields are not changed; it may be used
// concurrently.
type Env struct {
	// Stores are those of the inventory, which s3: locations name.
	Stores []drill.Store
	// OwnKeys lets locations such as s3+https://… be used with the keys in this
	// process's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: for a user's own
	// command line only.
	OwnKeys bool
	// StateDir holds a directory for each mirror.
	StateDir string
	// Signer gives who vouches for manifests, when there is one to be signed or to be
	// checked; nil leaves them without a signature.
	Signer func() (proof.Signer, error)
	// Now is the clock. Required.
	Now func() time.Time
	// Pass, if not nil, is asked before a run makes a destination that is not there, and
	// returns once that may be, or with the error of ctx. By then the run has all else that it
	// waits for.
	Pass func(ctx context.Context) error
	// Locks are by what the mirrors of this machine know of each other's places; "" leaves
	// them without turns.
	Locks machine.Locks
	// Pace, if not nil, holds all mirrors of this process back where they weigh on a
	// store or on this machine's disks.
	Pace *pace.Pace

	// zfs is where the ZFS of zfs: locations answers; the zero value is this machine.
	zfs control.Config
}

// NewPace is the pace of a process: with a healthy store and idle disks it bounds
// nothing.
func NewPace(now func() time.Time) *pace.Pace {
	return pace.New(engine.DefaultItems*engine.DefaultParallel, now, pace.Disks)
}

// Job is a mirror with its places and its state open. One of its methods is used at
// a time.
type Job struct {
	env     Env
	spec    spec
	places  [2]place.Place
	store   *state.Store
	cleanUp []func(context.Context) error
	// roots are the paths at which the places are directories here; "" for buckets.
	roots [2]string
	// dataset is the source, where that is one; else nil.
	dataset *dataset
	// made says that the destination's was not there, and was made or is stood in for.
	made bool
}

// OpenRun opens a mirror's places and its state for a run. A dry one, which writes nothing, is
// refused where the real one would be, as far as that can be known without writing. The caller
// closes the job. Errors are *SpecError, state's LockedError while the mirror is open
// elsewhere, or those of the places. It takes no turn: see [Env.InTurn].
func (e Env) OpenRun(ctx context.Context, m drill.Mirror, dry bool) (*Job, error) {
	if !dry {
		return e.openJob(ctx, m, Runs)
	}
	j, err := e.openJob(ctx, m, Looks)
	if err != nil {
		return nil, err
	}
	if err := j.mayWrite(Runs); err != nil {
		return nil, errors.Join(err, j.Close(ctx))
	}
	return j, nil
}

// mayWrite tells why places that are open for reading would not be opened for a use that
// writes.
func (j *Job) mayWrite(u Use) error {
	if err := j.settable(); err != nil {
		return err
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		path := j.roots[side]
		if path == "" || u.access(j.spec.Mirror, j.spec.at[plan.Source])[side] == reads {
			continue
		}
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil && st.Flags&unix.ST_RDONLY != 0 {
			err = unix.EROFS
		}
		if err != nil {
			return fmt.Errorf("mirror %s: open the %s: %w", j.spec.Name, side, &local.Error{Op: "open", Path: path, Err: err})
		}
	}
	return nil
}

func (e Env) openJob(ctx context.Context, m drill.Mirror, use Use) (_ *Job, err error) {
	s, err := parse(m)
	if err != nil {
		return nil, err
	}
	j := &Job{env: e, spec: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close(ctx))
		}
	}()
	if err := j.openState(); err != nil {
		return nil, err
	}
	if err := j.apart(); err != nil {
		return nil, err
	}
	access := use.access(m, s.at[plan.Source])
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		p, err := j.open(ctx, side, access[side])
		if err != nil {
			return nil, fmt.Errorf("mirror %s: open the %s: %w", s.Name, side, err)
		}
		j.places[side] = p
	}
	if err := j.twoPlaces(); err != nil {
		return nil, err
	}
	if use != Looks {
		if err := j.settable(); err != nil {
			return nil, err
		}
	}
	j.places[plan.Source] = j.ruledBy(plan.Dest, j.places[plan.Source], nil)
	return j, nil
}

// OpenWorker opens a mirror's places for carrying out items that another process
// planned. The caller calls done when it needs them no more.
func (e Env) OpenWorker(ctx context.Context, m drill.Mirror) (w *engine.Worker, done func(context.Context) error, err error) {
	s, err := parse(m)
	if err != nil {
		return nil, nil, err
	}
	j := &Job{env: e, spec: s}
	if !j.Shared() {
		return nil, nil, &SpecError{s.Name, "from", "a snapshot is read where it was taken", "let the process that planned the run carry it out"}
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		can := writes
		if side == plan.Source && s.mode != plan.TwoWay {
			can = reads // What the rules want there the planner sets, when all is done.
		}
		p, err := j.open(ctx, side, can)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("mirror %s: open the %s: %w", s.Name, side, err), j.Close(ctx))
		}
		j.places[side] = p
	}
	j.places[plan.Source] = j.ruledBy(plan.Dest, j.places[plan.Source], nil)
	return j.Worker(), j.Close, nil
}

// Known tells, before a mirror is opened to be compared with its manifest, whether there is
// one, or somebody may be about to make it. If not, the error is ErrNothingKnown. It makes
// nothing.
func (e Env) Known(m drill.Mirror) error {
	s, err := parse(m)
	if err != nil {
		return err
	}
	dir := e.dir(s.Name)
	var signed sealed
	if known, err := state.LoadFrom(dir, rootName, &signed); known || err != nil {
		return nil // openJob says what is wrong with it.
	}
	if busy, err := state.Holder(dir); busy != nil || err != nil {
		return nil
	}
	return fmt.Errorf("mirror %s: nothing is remembered in %s: %w", s.Name, dir, ErrNothingKnown)
}

// Shared reports whether other processes can carry out the mirror's work: the clone
// of a snapshot is mounted where it was made.
func (j *Job) Shared() bool { return j.spec.at[plan.Source].Scheme != location.ZFS }

func (j *Job) openState() (err error) {
	if j.store, err = state.Open(j.Dir()); err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	return nil
}

// dir is where a mirror's state lies.
func (e Env) dir(name string) string { return filepath.Join(e.StateDir, name) }

func (j *Job) open(ctx context.Context, side plan.Side, can access) (place.Place, error) {
	l, readOnly := j.spec.at[side], can != writes
	switch {
	case l.Scheme == location.ZFS:
		return j.openDataset(ctx, l)
	case l.IsBucket():
		c, err := stores.Config(l, j.env.Stores, j.env.OwnKeys)
		if err != nil {
			return nil, err
		}
		c.ReadOnly = readOnly
		o := store.Options{Name: l.String()}
		if j.env.Pace != nil {
			c.Pressure, o.Pace = j.env.Pace.Answered, j.env.Pace
		}
		p, err := store.Open(ctx, c, o)
		if err != nil {
			return nil, stores.Explain(l, c, err)
		}
		return p, nil
	}
	path := l.Path
	switch st, err := os.Stat(path); {
	case err == nil && !st.IsDir():
		return nil, noDirectory(path, side)
	case side == plan.Dest && errors.Is(err, unix.ENOTDIR):
		return nil, unmade(path, err)
	case !errors.Is(err, fs.ErrNotExist):
	case side != plan.Dest || j.store == nil || !j.store.Empty():
		// A worker's, or what was there once: nobody makes it, who knows what is not mounted?
		return nil, j.absent(path, err)
	case readOnly:
		// It will be made by the first run; a dry one before that finds it empty.
		if path, err = j.standIn(); err != nil {
			return nil, err
		}
		j.made = true
	default:
		if pass := j.env.Pass; pass != nil {
			if err := pass(ctx); err != nil {
				return nil, err
			}
		}
		if err := j.makeRoot(path); err != nil {
			return nil, unmade(path, err)
		}
		j.made = true
	}
	j.roots[side] = path
	return local.Open(ctx, path, local.Options{
		ReadOnly: readOnly, Rights: can == sets, Xattrs: j.spec.Xattrs, OneFileSystem: j.spec.OneFileSystem, Owner: j.owner(), Name: l.String(),
		// Whoever may write to a bucket writes the metadata, too.
		Unprivileged: j.spec.at[side.Other()].IsBucket() && !j.spec.Privileged,
	})
}

// owner stands for whoever has the mirror's state locked, which no two processes have at
// once; "" for a worker of another process's run, and where nothing tells this machine's
// boot from that of another one that sees the same directories.
func (j *Job) owner() string {
	boot := bootID()
	var st unix.Stat_t
	if j.store == nil || boot == "" || unix.Stat(j.Dir(), &st) != nil {
		return ""
	}
	// A copy of the state is another directory, so that it has another owner.
	return fmt.Sprintf("%s %x %x", boot, st.Dev, st.Ino)
}

// standIn makes an empty directory that is there until the job is closed.
func (j *Job) standIn() (string, error) {
	path, err := os.MkdirTemp("", "firedrill-mirror-")
	if err != nil {
		return "", fmt.Errorf("make an empty directory to compare with: %w", err)
	}
	j.cleanUp = append(j.cleanUp, func(context.Context) error { return os.Remove(path) })
	return path, nil
}

// Name is the mirror's.
func (j *Job) Name() string { return j.spec.Name }

// Dir is where its state and its manifest lie.
func (j *Job) Dir() string { return j.env.dir(j.spec.Name) }

// Close closes the places and the state, and removes what was made for reading,
// also when ctx has ended.
func (j *Job) Close(ctx context.Context) error {
	var errs []error
	for _, p := range j.places {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	for _, f := range slices.Backward(j.cleanUp) {
		errs = append(errs, f(ctx))
	}
	if j.store != nil {
		errs = append(errs, j.store.Close())
	}
	return errors.Join(errs...)
}
