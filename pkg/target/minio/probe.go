package minio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
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

// maxSize is how large a canary may be.
const maxSize = 1 << 20

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
	canary.WantOf(&ps, probe == ProbeWrite, p.Of)
	p.Size = canary.WantSize(&ps, p.Size, maxSize)
	p.MaxConnections = canary.WantSlots(&ps, "maxConnections", p.MaxConnections)
	return p, errors.Join(ps...)
}

// OpenProbe prepares a lane. The bucket is the operator's to make, and is looked for. A
// lane of a later claim is opened without a word to the service, which may be down: that
// is what its attempts are to tell.
func (s *store) OpenProbe(ctx context.Context, spec target.ProbeSpec) (target.Probe, error) {
	p := &probe{store: s, ledger: spec.Ledger()}
	p.gate = canary.NewGate(func() bool { return p.owed.Load() >= mostOwed })
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
	if err := canary.CheckLane(spec.Lane); err != nil {
		return nil, err
	}
	params, err := readProbeParams(spec.Probe, spec.Params)
	if err != nil {
		return nil, err
	}
	p.of, p.size = canary.ReadFrom(spec, params.Of), int(params.Size)
	if !canary.CleanName(p.ledger) || !canary.CleanName(p.of) {
		return nil, fmt.Errorf("probe %s: ledgers %q and %q cannot both be prefixes of keys", spec.Name, p.ledger, p.of)
	}
	if spec.Epoch <= 1 {
		if err := s.needBucket(ctx); err != nil {
			return nil, s.scrub(fmt.Errorf("open probe %s: %w", spec.Name, err))
		}
	}
	if p.conns, err = newConns(s.service, s.client, spec.Lane == target.LaneFresh); err != nil {
		return nil, s.scrub(fmt.Errorf("open probe %s: %w", spec.Name, err))
	}
	p.Lane = s.probes.Open(canary.LaneOptions{Slots: params.MaxConnections, Drop: p.conns.reset,
		Full: fmt.Errorf("all %d connections of the lane are in use; raise params.maxConnections", params.MaxConnections)})
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
	*canary.Lane
	store *store
	conns *conns
	// ledger is what it writes, of what it reads.
	ledger, of string
	size       int
	attempt    func(context.Context, *minio.Core, int64) target.Outcome
	// owed are the requests without an answer since the last one that had one.
	owed atomic.Int64
	gate *canary.Gate
}

// Attempt makes one attempt; it is over when ctx ends, whatever the server does.
func (p *probe) Attempt(ctx context.Context, seq int64) target.Outcome {
	return p.Do(ctx, func() target.Outcome {
		began := time.Now()
		if _, err := p.gate.Pass(ctx); err != nil {
			return target.Outcome{Result: target.Unsent, Err: fmt.Errorf("%w: the server has not answered %d requests of this lane", err, p.owed.Load())}
		}
		// A request goes on after its attempt is over.
		var kept atomic.Bool
		var asked atomic.Int64
		o := p.attempt(noticing(ctx, func(begun time.Time) {
			if begun.Before(began) {
				kept.Store(true)
			}
			asked.CompareAndSwap(0, int64(time.Since(began)))
		}), p.conns.client(), seq)
		p.account(o.Result != target.OK && ctx.Err() != nil)
		o.Connected, o.Asked, o.Err = !kept.Load(), time.Duration(asked.Load()), p.store.scrub(o.Err)
		return o
	})
}

// mostOwed is how many requests of a lane may have had no answer by the end of their
// attempts, with none answered since. A server that was frozen serves each of them before
// it serves the next.
const mostOwed = 8

// account counts an attempt that was made, and says whether it ended without an answer.
func (p *probe) account(silent bool) {
	if silent {
		p.owed.Add(1)
	} else if p.owed.Swap(0) >= mostOwed {
		p.gate.Tell()
	}
}

func (p *probe) key(ledger string, seq int64) string {
	return p.store.tree().Name(ledger, seq)
}

func (p *probe) put(ctx context.Context, c *minio.Core, key string, body []byte) (minio.UploadInfo, error) {
	return c.PutObject(ctx, p.store.cfg.Bucket, key, bytes.NewReader(body), int64(len(body)), "", "", minio.PutObjectOptions{})
}

// write is ok only when the server has acknowledged the object.
func (p *probe) write(ctx context.Context, c *minio.Core, seq int64) target.Outcome {
	if _, err := p.put(ctx, c, p.key(p.ledger, seq), canary.Body(p.ledger, seq, p.size)); err != nil {
		return target.Outcome{Result: fateOf(err), Err: fmt.Errorf("write canary %d: %w", seq, err)}
	}
	p.store.latest.Raise(p.ledger, seq)
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
	if seq, ok := p.store.latest.Of(p.of); ok {
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
		seq, err = p.store.tree().Verify(key, body)
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
	for i := range c.ListObjectsIter(ctx, p.store.cfg.Bucket, minio.ListObjectsOptions{Prefix: p.store.tree().Ledger(p.of) + "/", Recursive: true, MaxKeys: 1}) {
		if i.Err != nil {
			return "", fmt.Errorf("find the latest canary: %w", i.Err)
		}
		return i.Key, nil
	}
	return "", nil
}

// cycle writes an object, reads it back and deletes it, and reads the latest
// canary. Its own keys are in no ledger that is compared, but go with the drill's.
func (p *probe) cycle(ctx context.Context, c *minio.Core, seq int64) target.Outcome {
	key, body := p.key(p.ledger, seq), canary.Body(p.ledger, seq, p.size)
	fail := func(what string, err error) target.Outcome {
		return target.Outcome{Result: target.Failed, Err: fmt.Errorf("%s %s: %w", what, key, err)}
	}
	u, err := p.put(ctx, c, key, body)
	if err != nil {
		return fail("write", err)
	}
	got, err := get(ctx, c, p.store.cfg.Bucket, key)
	if err == nil && !bytes.Equal(got, body) {
		err = canary.ErrDamaged
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
