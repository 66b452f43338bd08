package zfs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/pkg/target"
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

const (
	defaultSize   = 1 << 10
	maxSize       = 64 << 10
	defaultAtOnce = 40
)

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
	switch {
	case probe != ProbeWrite && p.Of == "":
		ps.Add("of", "", "missing: name the write probe whose canaries are read")
	case probe == ProbeWrite && p.Of != "":
		ps.Add("of", p.Of, "only for probes that read; leave it out")
	}
	if p.Size < 0 || p.Size > maxSize {
		ps.Add("size", strconv.FormatInt(p.Size, 10), fmt.Sprintf("give 1 to %d bytes, or leave it out", maxSize))
	}
	if p.AtOnce < 0 || p.AtOnce > 1000 {
		ps.Add("atOnce", strconv.Itoa(p.AtOnce), "give 1 to 1000, or leave it out")
	}
	p.Size, p.AtOnce = cmp.Or(p.Size, defaultSize), cmp.Or(p.AtOnce, defaultAtOnce)
	return p, errors.Join(ps...)
}

// probeSet knows the open probes, so that closing the target closes them.
type probeSet struct {
	mu   sync.Mutex
	open map[*probe]struct{}
}

func (s *probeSet) add(p *probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*probe]struct{}{}
	}
	s.open[p] = struct{}{}
}

func (s *probeSet) drop(p *probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p)
}

func (s *probeSet) closeAll() {
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for p := range open {
		p.end()
	}
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
	if spec.Lane != target.LanePooled && spec.Lane != target.LaneFresh {
		return nil, fmt.Errorf("lane %q: %w; use pooled or fresh", spec.Lane, target.ErrUnsupported)
	}
	params, err := readProbeParams(spec.Probe, spec.Params)
	if err != nil {
		return nil, err
	}
	// Reads look at the pooled lane's canaries, which come most often.
	of := spec
	of.Name, of.Lane = cmp.Or(params.Of, spec.Name), target.LanePooled
	l.of = of.Ledger()
	if !cleanName(l.ledger) || !cleanName(l.of) {
		return nil, fmt.Errorf("probe %s: ledgers %q and %q cannot both be directories", spec.Name, l.ledger, l.of)
	}
	root, err := p.openDirectory()
	if err == nil {
		err = root.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open probe %s: %w", spec.Name, err)
	}
	l.size, l.slots = int(params.Size), make(chan struct{}, params.AtOnce)
	p.probes.add(l)
	return l, nil
}

// probe is one lane. A pooled one keeps the dataset's root open; the fresh one finds
// its way there for each attempt.
type probe struct {
	pool *pool
	// ledger is what it writes, of what it reads.
	ledger, of string
	fresh      bool
	size       int
	attempt    func(context.Context, *os.Root, int64) target.Outcome
	// slots caps the attempts under way: one that a file system does not answer stays
	// until it does, long after its deadline.
	slots chan struct{}

	mu     sync.Mutex
	closed bool
	kept   *way
	busy   sync.WaitGroup
}

var errClosed = errors.New("the probe is closed")

// Attempt makes one attempt; it is over when ctx ends, whatever the file system does.
func (l *probe) Attempt(ctx context.Context, seq int64) target.Outcome {
	if !l.enter() {
		return target.Outcome{Result: target.Failed, Err: errClosed}
	}
	defer l.busy.Done()
	if err := ctx.Err(); err != nil {
		return target.Outcome{Result: target.Failed, Err: err} // nothing was begun
	}
	select {
	case l.slots <- struct{}{}:
	default:
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("all %d attempts that the lane may have under way hang; raise params.atOnce", cap(l.slots))}
	}
	done := make(chan target.Outcome, 1)
	go func() {
		defer func() { <-l.slots }()
		done <- l.try(ctx, seq)
	}()
	select {
	case o := <-done:
		return o
	case <-ctx.Done():
		return target.Outcome{Result: target.Unknown, Err: fmt.Errorf("the file system did not answer: %w", context.Cause(ctx))}
	}
}

func (l *probe) try(ctx context.Context, seq int64) target.Outcome {
	w, err := l.find()
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: err}
	}
	defer l.leave(w)
	return l.attempt(ctx, w.root, seq)
}

// way is an open dataset's root. It is closed when it is dropped and nobody uses it.
type way struct {
	root    *os.Root
	users   int
	dropped bool
}

// find is the way to the dataset for one attempt, which leaves it in the end.
func (l *probe) find() (*way, error) {
	l.mu.Lock()
	w := l.kept
	if w != nil {
		w.users++
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
	if l.fresh || l.closed || l.kept != nil {
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

// enter counts an attempt in, unless the lane is closed.
func (l *probe) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.busy.Add(1)
	return true
}

// Reset drops the kept way to the dataset. Attempts under way keep theirs.
func (l *probe) Reset() {
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

// Close waits for attempts under way, which end by their deadlines.
func (l *probe) Close() error {
	l.pool.probes.drop(l)
	l.end()
	l.busy.Wait()
	return nil
}

func (l *probe) end() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Reset()
}

func (l *probe) name(ledger string, seq int64) string {
	return canaryName(l.pool.cfg.Prefix, ledger, seq)
}

// write is ok only when the canary is on the disks.
func (l *probe) write(_ context.Context, root *os.Root, seq int64) target.Outcome {
	named, err := writeFile(root, l.name(l.ledger, seq), canaryBody(l.ledger, seq, l.size))
	switch {
	case err == nil:
		l.pool.latest.raise(l.ledger, seq)
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
	seq, known := l.pool.latest.of(l.of)
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
	body, err := readFile(root, l.name(l.of, seq))
	var is int64
	if err == nil {
		is, err = readCanary(l.of, body)
	}
	if err == nil && is != seq {
		err = fmt.Errorf("it is canary %d: %w", is, errDamaged)
	}
	if err != nil {
		return fmt.Errorf("read canary %d: %w", seq, err)
	}
	return nil
}

// findLatest is the highest number in the ledger's directories; false if it is empty.
// Later canaries have names that sort before.
func (l *probe) findLatest(root *os.Root) (int64, bool, error) {
	at := l.pool.cfg.Prefix + "/" + l.of
	thousands, err := readDir(root, at)
	for _, dir := range thousands {
		names, derr := readDir(root, at+"/"+dir.Name())
		err = errors.Join(err, derr)
		for _, n := range names {
			if seq, ok := seqOf(l.pool.cfg.Prefix, l.of, at+"/"+dir.Name()+"/"+n.Name()); ok && err == nil {
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

// latest is the highest acknowledged canary of each ledger that this process has
// written.
type latest struct {
	mu  sync.Mutex
	seq map[string]int64
}

func (l *latest) raise(ledger string, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seq == nil {
		l.seq = map[string]int64{}
	}
	l.seq[ledger] = max(seq, l.seq[ledger])
}

func (l *latest) of(ledger string) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq, ok := l.seq[ledger]
	return seq, ok
}
