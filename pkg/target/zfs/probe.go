package zfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// The probes.
const (
	ProbeWrite = "write"
	ProbeRead  = "read"
	ProbePool  = "pool"
)

// probeParams are the parameters of a probe.
type probeParams struct {
	// Of names, for read and pool, the write probe whose canaries are read.
	Of string `json:"of"`
	// Size is how large a canary is, in bytes; 0 means 1 KiB.
	Size int64 `json:"size"`
	// AtOnce caps the attempts of the lane that are under way; 0 means 40.
	AtOnce int `json:"atOnce"`
}

// maxSize is how large a canary may be.
const maxSize = 64 << 10

func probeInfos() []target.OperationInfo {
	infos := []target.OperationInfo{
		{Name: ProbeWrite, Writes: true, Doc: "Write a canary to a file of its own; ok when fsync says that it is on the disks. params: size (1024 bytes), atOnce (40)."},
		{Name: ProbeRead, Doc: "Read the latest canary of a write probe's pooled lane, and check its hash. params: of (the write probe), atOnce (40)."},
		{Name: ProbePool, Doc: "Ask whether the pool and all of its disks are online, without errors, and with nothing that a fault damaged left unrepaired; and read the latest canary as read does, in one attempt. params: of (the write probe), atOnce (40)."},
	}
	for i := range infos {
		infos[i].CheckParams = func(raw json.RawMessage) error {
			_, err := readProbeParams(infos[i].Name, raw)
			return err
		}
	}
	return infos
}

func readProbeParams(probe string, raw json.RawMessage) (probeParams, error) {
	var p probeParams
	if err := strict.Decode(raw, &p); err != nil {
		return p, err
	}
	var ps strict.Problems
	canary.WantOf(&ps, probe == ProbeWrite, p.Of)
	p.Size = canary.WantSize(&ps, p.Size, maxSize)
	p.AtOnce = canary.WantSlots(&ps, "atOnce", p.AtOnce)
	return p, errors.Join(ps...)
}

// OpenProbe prepares a lane. The dataset is the operator's to make and mount.
func (p *pool) OpenProbe(_ context.Context, spec target.ProbeSpec) (target.Probe, error) {
	l := &probe{pool: p, ledger: spec.Ledger(), fresh: spec.Lane == target.LaneFresh}
	switch spec.Probe {
	case ProbeWrite:
		l.attempt = l.write
	case ProbeRead:
		l.attempt = l.read
	case ProbePool:
		l.attempt = l.whole
	default:
		return nil, fmt.Errorf("probe %q: %w; use write, read or pool", spec.Probe, target.ErrUnsupported)
	}
	if err := canary.CheckLane(spec.Lane); err != nil {
		return nil, err
	}
	params, err := readProbeParams(spec.Probe, spec.Params)
	if err != nil {
		return nil, err
	}
	l.of, l.size = canary.ReadFrom(spec, params.Of), int(params.Size)
	if !canary.CleanName(l.ledger) || !canary.CleanName(l.of) {
		return nil, fmt.Errorf("probe %s: ledgers %q and %q cannot both be directories", spec.Name, l.ledger, l.of)
	}
	root, err := p.openDirectory()
	if err == nil {
		err = root.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open probe %s: %w", spec.Name, err)
	}
	l.Lane = p.probes.Open(canary.LaneOptions{Slots: params.AtOnce, Drop: l.drop,
		Full: fmt.Errorf("all %d attempts that the lane may have under way hang; raise params.atOnce", params.AtOnce)})
	return l, nil
}

// probe is one lane. A pooled one keeps the dataset's root open; the fresh one finds
// its way there for each attempt.
type probe struct {
	*canary.Lane
	pool *pool
	// ledger is what it writes, of what it reads.
	ledger, of string
	fresh      bool
	size       int
	attempt    func(context.Context, *os.Root, int64) target.Outcome

	mu   sync.Mutex
	kept *way
}

// Attempt makes one attempt; it is over when ctx ends, whatever the file system does.
func (l *probe) Attempt(ctx context.Context, seq int64) target.Outcome {
	var kept atomic.Bool // also of one that does not come back
	o := l.DoDetached(ctx, "the file system", func() target.Outcome {
		w, err := l.find(&kept)
		if err != nil {
			return target.Outcome{Result: target.Failed, Err: err}
		}
		defer l.leave(w)
		return l.attempt(ctx, w.root, seq)
	})
	o.Connected = !kept.Load()
	return o
}

// way is an open dataset's root. It is closed when it is dropped and nobody uses it.
type way struct {
	root    *os.Root
	users   int
	dropped bool
}

// find is the way to the dataset for one attempt, which leaves it in the end, and says
// whether it was kept from an earlier one.
func (l *probe) find(kept *atomic.Bool) (*way, error) {
	l.mu.Lock()
	w := l.kept
	if w != nil {
		w.users++
		kept.Store(true)
	}
	l.mu.Unlock()
	if w != nil {
		return w, nil
	}
	root, err := l.pool.openDirectory()
	if err != nil {
		return nil, err
	}
	w = &way{root: root, users: 1}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fresh || l.Closed() || l.kept != nil {
		w.dropped = true
	} else {
		l.kept = w
	}
	return w, nil
}

func (l *probe) leave(w *way) {
	l.mu.Lock()
	w.users--
	over := w.dropped && w.users == 0
	l.mu.Unlock()
	if over {
		l.shut(w)
	}
}

// shut closes a way that nobody has any more. Nothing can be lost by it.
func (l *probe) shut(w *way) {
	if err := w.root.Close(); err != nil {
		l.pool.log.Warn("the dataset's root did not close", "error", err)
	}
}

// drop lets go of the kept way to the dataset. Attempts under way keep theirs.
func (l *probe) drop() {
	l.mu.Lock()
	w := l.kept
	l.kept = nil
	over := w != nil && w.users == 0
	if w != nil {
		w.dropped = true
	}
	l.mu.Unlock()
	if over {
		l.shut(w)
	}
}

func (l *probe) name(ledger string, seq int64) string {
	return l.pool.tree().Name(ledger, seq)
}

// write is ok only when the canary is on the disks.
func (l *probe) write(_ context.Context, root *os.Root, seq int64) target.Outcome {
	named, err := writeFile(root, l.name(l.ledger, seq), canary.DenseBody(l.ledger, seq, l.size))
	switch {
	case err == nil:
		l.pool.latest.Raise(l.ledger, seq)
		return target.Outcome{Result: target.OK}
	case named:
		return target.Outcome{Result: target.Unknown, Err: fmt.Errorf("write canary %d: %w", seq, err)}
	}
	return target.Outcome{Result: target.Failed, Err: fmt.Errorf("write canary %d: %w", seq, err)}
}

// read reads the latest canary: the one that this process knows of, or if it knows
// none or that is missing, the latest that a listing tells of, so that a stale read
// shows as one.
func (l *probe) read(_ context.Context, root *os.Root, _ int64) target.Outcome {
	seq, known := l.pool.latest.Of(l.of)
	err := fs.ErrNotExist
	if known {
		err = l.readSeq(root, seq)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if seq, known, err = l.findLatest(root); err == nil && known {
			err = l.readSeq(root, seq)
		}
	}
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: err}
	}
	return target.Outcome{Result: target.OK, Observed: seq}
}

func (l *probe) readSeq(root *os.Root, seq int64) error {
	name := l.name(l.of, seq)
	body, err := readFile(root, name)
	if err == nil {
		_, err = l.pool.tree().Verify(name, body)
	}
	if err != nil {
		return fmt.Errorf("read canary %d: %w", seq, err)
	}
	return nil
}

// findLatest is the highest number in the ledger's directories; false if it is empty.
// Later canaries have names that sort before.
func (l *probe) findLatest(root *os.Root) (int64, bool, error) {
	at := l.pool.tree().Ledger(l.of)
	thousands, err := readDir(root, at)
	for _, dir := range thousands {
		names, derr := readDir(root, at+"/"+dir.Name())
		err = errors.Join(err, derr)
		for _, n := range names {
			if seq, ok := l.pool.tree().Seq(l.of, at+"/"+dir.Name()+"/"+n.Name()); ok && err == nil {
				return seq, true, nil
			}
		}
	}
	if err != nil {
		return 0, false, fmt.Errorf("find the latest canary: %w", err)
	}
	return 0, false, nil
}

// readDir lists a directory by name. One that is not there is empty.
func readDir(root *os.Root, at string) ([]fs.DirEntry, error) {
	names, err := fs.ReadDir(root.FS(), at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// whole is ok when the pool is as it should be. What is not a write is judged as a
// read of canaries, so it is one.
func (l *probe) whole(ctx context.Context, root *os.Root, seq int64) target.Outcome {
	s, err := l.pool.look(ctx)
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: err}
	}
	if p := s.problems(); len(p) > 0 {
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("pool %s: %s", l.pool.cfg.Pool, strings.Join(p, "; "))}
	}
	return l.read(ctx, root, seq)
}
