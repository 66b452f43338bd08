package minio

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// The probes.
const (
	ProbeWrite = "write"
	ProbeRead  = "read"
	ProbeCycle = "cycle"
)

// probeParams are the parameters of a probe.
type probeParams struct {
	// Of names, for read and cycle, the write probe whose canaries are read.
	Of string `json:"of"`
	// Size is how large a canary is, in bytes; 0 means 1 KiB.
	Size int64 `json:"size"`
	// MaxConnections caps the connections of the lane; 0 means 40.
	MaxConnections int `json:"maxConnections"`
}

const (
	defaultSize = 1 << 10
	maxSize     = 1 << 20
	// defaultMaxConnections lets attempts that hang until their deadline, 250 ms at
	// 10 ms each, never wait for one another.
	defaultMaxConnections = 40
)

func probeInfos() []target.OperationInfo {
	infos := []target.OperationInfo{
		{Name: ProbeWrite, Writes: true, Doc: "PUT a canary under a new key; ok when the server acknowledges it. params: size (1024 bytes), maxConnections (40)."},
		{Name: ProbeRead, Doc: "Find and GET the latest canary of a write probe's pooled lane, and check its hash. params: of (the write probe), maxConnections (40)."},
		{Name: ProbeCycle, Doc: "PUT an object, GET it back, compare and DELETE it, and read the latest canary as read does, in one attempt. params: of (the write probe), size (1024 bytes), maxConnections (40)."},
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
		ps.Add("size", strconv.FormatInt(p.Size, 10), "give 1 to 1048576 bytes, or leave it out")
	}
	if p.MaxConnections < 0 || p.MaxConnections > 1000 {
		ps.Add("maxConnections", strconv.Itoa(p.MaxConnections), "give 1 to 1000, or leave it out")
	}
	if p.Size == 0 {
		p.Size = defaultSize
	}
	if p.MaxConnections == 0 {
		p.MaxConnections = defaultMaxConnections
	}
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

// OpenProbe prepares a lane. The bucket is the operator's to make.
func (s *store) OpenProbe(ctx context.Context, spec target.ProbeSpec) (target.Probe, error) {
	p := &probe{store: s, ledger: spec.Ledger()}
	switch spec.Probe {
	case ProbeWrite:
		p.attempt = p.write
	case ProbeRead:
		p.attempt = p.read
	case ProbeCycle:
		p.attempt = p.cycle
	default:
		return nil, fmt.Errorf("probe %q: %w; use write, read or cycle", spec.Probe, target.ErrUnsupported)
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
	p.of = of.Ledger()
	if !cleanKey(p.ledger) || !cleanKey(p.of) {
		return nil, fmt.Errorf("probe %s: ledgers %q and %q cannot both be prefixes of keys", spec.Name, p.ledger, p.of)
	}
	if err := s.needBucket(ctx); err != nil {
		return nil, s.scrub(fmt.Errorf("open probe %s: %w", spec.Name, err))
	}
	p.size, p.slots = int(params.Size), make(chan struct{}, params.MaxConnections)
	if p.lane, err = newLane(s.service, s.client, spec.Lane == target.LaneFresh); err != nil {
		return nil, s.scrub(fmt.Errorf("open probe %s: %w", spec.Name, err))
	}
	s.probes.add(p)
	return p, nil
}

func (s *store) needBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	there, err := s.users.client().BucketExists(ctx, s.cfg.Bucket)
	if err != nil {
		return fmt.Errorf("bucket %s at %s as %s: %w", s.cfg.Bucket, s.service, s.client.user, err)
	}
	if !there {
		return fmt.Errorf("there is no bucket %s at %s; make one for the canaries and let %s read and write it", s.cfg.Bucket, s.service, s.client.user)
	}
	return nil
}

// probe is one lane. A pooled one keeps connections that have answered; the fresh
// one makes one for each request.
type probe struct {
	store *store
	lane  *lane
	// ledger is what it writes, of what it reads.
	ledger, of string
	size       int
	attempt    func(context.Context, *minio.Core, int64) target.Outcome
	// slots caps the connections.
	slots chan struct{}

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup
}

var errClosed = errors.New("the probe is closed")

// Attempt makes one attempt; it is over when ctx ends, whatever the server does.
func (p *probe) Attempt(ctx context.Context, seq int64) target.Outcome {
	if !p.enter() {
		return target.Outcome{Result: target.Failed, Err: errClosed}
	}
	defer p.busy.Done()
	if err := ctx.Err(); err != nil {
		return target.Outcome{Result: target.Failed, Err: err} // nothing was sent
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("all %d connections of the lane are in use; raise params.maxConnections", cap(p.slots))}
	}
	o := p.attempt(ctx, p.lane.client(), seq)
	if status, _ := refused(o.Err); o.Err != nil && status == 0 && !errors.Is(o.Err, errDamaged) {
		// Without an answer the kept connections lead to the same server, which is
		// gone or hangs.
		p.lane.reset()
	}
	o.Err = p.store.scrub(o.Err)
	return o
}

// enter counts an attempt in, unless the lane is closed.
func (p *probe) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.busy.Add(1)
	return true
}

// Reset drops the kept connections, and those in use when they come back.
func (p *probe) Reset() { p.lane.reset() }

// Close waits for attempts under way, which end by their deadlines.
func (p *probe) Close() error {
	p.store.probes.drop(p)
	p.end()
	p.busy.Wait()
	return nil
}

func (p *probe) end() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.lane.reset()
}

func (p *probe) key(ledger string, seq int64) string {
	return canaryKey(p.store.cfg.Prefix, ledger, seq)
}

func (p *probe) put(ctx context.Context, c *minio.Core, key string, body []byte) (minio.UploadInfo, error) {
	return c.PutObject(ctx, p.store.cfg.Bucket, key, bytes.NewReader(body), int64(len(body)), "", "", minio.PutObjectOptions{})
}

// write is ok only when the server has acknowledged the object.
func (p *probe) write(ctx context.Context, c *minio.Core, seq int64) target.Outcome {
	if _, err := p.put(ctx, c, p.key(p.ledger, seq), canaryBody(p.ledger, seq, p.size)); err != nil {
		return target.Outcome{Result: fateOf(err), Err: fmt.Errorf("write canary %d: %w", seq, err)}
	}
	p.store.latest.raise(p.ledger, seq)
	return target.Outcome{Result: target.OK}
}

// fateOf tells a write that certainly failed from one that nobody knows about.
func fateOf(err error) byte {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return target.Failed // nothing was sent
	}
	switch status, _ := refused(err); {
	case status >= 400 && status < 500, status == http.StatusInsufficientStorage:
		return target.Failed
	}
	// A server that lacks a quorum, or fails on the way, may have stored it in part,
	// and healing may complete it.
	return target.Unknown
}

// read reads the latest canary in full: the one that this process knows of, since a
// listing costs MinIO far more than a read. Without one, or if it is not there, the
// latest is what a listing says, so that a stale read shows as one.
func (p *probe) read(ctx context.Context, c *minio.Core, _ int64) target.Outcome {
	key := ""
	if seq, ok := p.store.latest.of(p.of); ok {
		key = p.key(p.of, seq)
	}
	o := target.Outcome{Result: target.OK}
	var err error
	if key != "" {
		o.Observed, err = p.readKey(ctx, c, key)
	}
	if key == "" || isMissing(err) {
		if key, err = p.findLatest(ctx, c); err == nil && key != "" {
			o.Observed, err = p.readKey(ctx, c, key)
		}
	}
	if err != nil {
		return target.Outcome{Result: target.Failed, Err: err}
	}
	return o
}

func (p *probe) readKey(ctx context.Context, c *minio.Core, key string) (int64, error) {
	body, err := get(ctx, c, p.store.cfg.Bucket, key)
	var seq int64
	if err == nil {
		seq, err = readCanary(p.of, body)
	}
	if err == nil && p.key(p.of, seq) != key {
		err = fmt.Errorf("it is canary %d: %w", seq, errDamaged)
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return seq, nil
}

// findLatest is the key that a listing of the ledger begins with; "" if it is empty.
func (p *probe) findLatest(ctx context.Context, c *minio.Core) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range c.ListObjectsIter(ctx, p.store.cfg.Bucket, minio.ListObjectsOptions{Prefix: p.store.cfg.Prefix + "/" + p.of + "/", Recursive: true, MaxKeys: 1}) {
		if i.Err != nil {
			return "", fmt.Errorf("find the latest canary: %w", i.Err)
		}
		return i.Key, nil
	}
	return "", nil
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

// cycle writes an object, reads it back and deletes it, and reads the latest
// canary. Its own keys are in no ledger that is compared, but go with the drill's.
func (p *probe) cycle(ctx context.Context, c *minio.Core, seq int64) target.Outcome {
	key, body := p.key(p.ledger, seq), canaryBody(p.ledger, seq, p.size)
	fail := func(what string, err error) target.Outcome {
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("%s %s: %w", what, key, err)}
	}
	u, err := p.put(ctx, c, key, body)
	if err != nil {
		return fail("write", err)
	}
	got, err := get(ctx, c, p.store.cfg.Bucket, key)
	if err == nil && !bytes.Equal(got, body) {
		err = errDamaged
	}
	if err != nil {
		return fail("read", err)
	}
	if err := c.RemoveObject(ctx, p.store.cfg.Bucket, key, minio.RemoveObjectOptions{VersionID: u.VersionID}); err != nil {
		return fail("delete", err)
	}
	// What is not a write is judged as a read of canaries, so it is one.
	return p.read(ctx, c, seq)
}
