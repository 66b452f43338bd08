package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// Victim is who is killed.
type Victim string

// The victims.
const (
	// Worker is any process but the planner; if there is no planner, any.
	Worker Victim = "worker"
	// Planner is the process that plans the run.
	Planner Victim = "planner"
	// NATS is the server.
	NATS Victim = "nats"
)

// Kills says how a mirror is run while its processes are killed.
type Kills struct {
	// Bin, Self, Dir and Data are as in [Options].
	Bin, Self, Dir, Data string
	// Runs is how many mirrors are run, each twice: the second time something has
	// changed. Every other one goes into a bucket, the rest into directories.
	Runs int
	// Seed makes the tree, and chooses who is killed and when.
	Seed uint64
	Say  func(format string, a ...any)
}

// KillsResult is what came of it. Nothing was lost and nothing was different, or
// there would be an error.
type KillsResult struct {
	// Kills counts them by victim.
	Kills map[Victim]int
	// Requests is how many there were, and Again how many more it took because a run
	// ended and had not brought everything.
	Requests, Again int
	// Audits is how often the mirror could not prove what it held without an audit.
	Audits int
	// Written counts what was written to buckets, Twice what of it had been there
	// already, and Allowed what of that could have been in flight when something was
	// killed.
	Written, Twice, Allowed int
	Took                    time.Duration
}

// ErrTooOften says that more was copied again than had been in flight.
var ErrTooOften = errors.New("more was copied again than had been in flight")

const (
	killWorkers = 3
	killItems   = 2
	// killMost is how many processes one request sees die.
	killMost = 3
	// askMost is how often is asked until a run brings everything.
	askMost = 5
	// killRunsMost is how many runs one installation makes: an inventory holds 100
	// mirrors. Most of the time all wait for somebody to be missed, so that several
	// installations do not disturb each other.
	killRunsMost    = 50
	killPartsAtOnce = 2
	// requestLimit bounds one request, with all that dies meanwhile.
	requestLimit = 3 * time.Minute
)

// Run makes the runs. The error says in which something was wrong.
func (k Kills) Run(ctx context.Context) (KillsResult, error) {
	began := time.Now()
	res := KillsResult{Kills: map[Victim]int{}}
	parts := (k.Runs + killRunsMost - 1) / killRunsMost
	results, errs := make([]KillsResult, parts), make([]error, parts)
	slots := make(chan struct{}, killPartsAtOnce)
	var wg sync.WaitGroup
	for part := range parts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[part].Kills = map[Victim]int{}
			errs[part] = k.part(ctx, part, min(k.Runs-part*killRunsMost, killRunsMost), &results[part])
		})
	}
	wg.Wait()
	for _, r := range results {
		res.add(r)
	}
	res.Took = time.Since(began)
	return res, errors.Join(errs...)
}

func (r *KillsResult) add(o KillsResult) {
	for victim, n := range o.Kills {
		r.Kills[victim] += n
	}
	r.Requests += o.Requests
	r.Again += o.Again
	r.Audits += o.Audits
	r.Written += o.Written
	r.Twice += o.Twice
	r.Allowed += o.Allowed
}

// part makes some of the runs in an installation of their own.
func (k Kills) part(ctx context.Context, part, runs int, res *KillsResult) (err error) {
	name := fmt.Sprintf("part-%d", part)
	o := Options{
		Bin: k.Bin, Self: k.Self, Dir: filepath.Join(k.Dir, name), Data: filepath.Join(k.Data, name), Items: killItems, AckWait: 2 * time.Second,
		Link: relay.Link{DelayMS: 4},
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	for i := range runs {
		o.Mirrors = append(o.Mirrors, drill.Mirror{
			Name: killName(i), From: "dir:DIR/src", To: k.destination(i), Mode: drill.MirrorMirror,
			Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100},
		})
	}
	in, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Stop(), os.RemoveAll(o.Data)) }()
	for range killWorkers {
		if err := in.AddWorker(); err != nil {
			return err
		}
	}
	seed := k.Seed + uint64(part)<<32
	t, err := newTree(filepath.Join(o.Dir, "src"), seed, shape{small: 400, medium: 120, large: 1, dirs: 13})
	if err != nil {
		return err
	}
	say := func(format string, a ...any) { k.Say(name+" "+format, a...) }
	c := &killer{Installation: in, tree: t, res: res, rand: rand.New(rand.NewPCG(seed, 2)), say: say}
	for i := range runs {
		if err := c.run(ctx, i); err != nil {
			return errors.Join(fmt.Errorf("%s, run %d of seed %d: %w", name, i, k.Seed, err), in.logs())
		}
	}
	return nil
}

func killName(i int) string { return fmt.Sprintf("run-%04d", i) }

func intoBucket(i int) bool { return i%2 == 0 }

// killPause is how long nobody dies at most: a part of what a run takes.
func killPause(i int) time.Duration {
	if intoBucket(i) {
		return 1500 * time.Millisecond
	}
	return 300 * time.Millisecond
}

func (k Kills) destination(i int) string {
	if intoBucket(i) {
		return "s3:" + storeName + "/" + killName(i)
	}
	return "dir:DIR/dst/" + killName(i)
}

// killer makes one run after the other. It is used by one goroutine.
type killer struct {
	*Installation
	tree *tree
	res  *KillsResult
	rand *rand.Rand
	say  func(format string, a ...any)
}

// run mirrors the tree to a new place, changes it, and mirrors it again.
func (c *killer) run(ctx context.Context, i int) error {
	name := killName(i)
	for path := range c.tree.writes {
		delete(c.tree.writes, path)
	}
	for path := range c.tree.size {
		c.tree.writes[path] = 1
	}
	dst := filepath.Join(c.Dir, "dst", name)
	if intoBucket(i) {
		if err := c.S3.MakeBucket(ctx, name, minio.MakeBucketOptions{}); err != nil {
			return err
		}
		if err := c.S3.EnableVersioning(ctx, name); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	dead := 0
	for step := range 2 {
		if step == 1 {
			if err := c.tree.change(); err != nil {
				return err
			}
		}
		n, err := c.request(ctx, name, killPause(i))
		if err == nil {
			err = c.compare(ctx, i, dst)
		}
		if err != nil {
			return fmt.Errorf("request %d: %w", step+1, err)
		}
		dead += n
	}
	if !intoBucket(i) {
		return os.RemoveAll(dst)
	}
	if err := c.count(ctx, name, dead); err != nil {
		return err
	}
	return c.S3.RemoveBucketWithOptions(ctx, name, minio.RemoveBucketOptions{ForceDelete: true})
}

// compare looks at both sides with another program, and has the mirror verify them.
// Where it cannot, an audit must make that it can, and find nothing to be copied.
func (c *killer) compare(ctx context.Context, i int, dst string) error {
	var err error
	if intoBucket(i) {
		err = c.compareBucket(ctx, c.tree.dir, killName(i))
	} else {
		err = compareDir(ctx, c.tree.dir, dst)
	}
	proven, verr := c.verify(ctx, killName(i))
	if err := errors.Join(err, verr); err != nil || proven {
		return err
	}
	c.res.Audits++
	asked, err := c.Ask(ctx, killName(i), fleet.Request{Check: "audit"})
	if err != nil {
		return err
	}
	e, err := c.Await(ctx, killName(i), asked)
	if err != nil {
		return err
	}
	if proven, err = c.verify(ctx, killName(i)); err == nil && (!proven || !e.Result.Whole || e.Result.Done["put"] > 0) {
		err = fmt.Errorf("%w: after an audit, which came to %+v, it is still not proven", ErrDifferent, e.Result)
	}
	return err
}

// count looks how often each object was written. flight is how many pieces of work
// were under way when something was killed.
func (c *killer) count(ctx context.Context, bucket string, flight int) error {
	written, err := c.versions(ctx, bucket)
	if err != nil {
		return err
	}
	if key, ok := missing(written, c.tree.writes); ok {
		return fmt.Errorf("%w: %s has %d versions of %d", ErrDifferent, key, written[key], c.tree.writes[key])
	}
	c.res.Allowed += flight
	// A small file is one of many in its piece of work, any other has one of its own.
	pieces := 0
	for key, n := range surplus(written, c.tree.writes) {
		c.res.Twice += n
		if n > flight {
			return fmt.Errorf("%w: %s was written %d times more than it changed, with %d pieces of work in flight", ErrTooOften, key, n, flight)
		}
		if c.tree.size[key] >= mediumLeast {
			pieces += n
		}
	}
	for _, n := range written {
		c.res.Written += n
	}
	if pieces > flight {
		return fmt.Errorf("%w: %d pieces of work, with %d in flight", ErrTooOften, pieces, flight)
	}
	return nil
}

// request asks for a run until one brings everything, and kills meanwhile. It gives
// how many pieces of work were under way where something was killed.
func (c *killer) request(ctx context.Context, name string, pauses time.Duration) (flight int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestLimit, fmt.Errorf("a request took longer than %s", requestLimit))
	defer cancel()
	for ask := 1; ; ask++ {
		began := time.Now()
		c.res.Requests++
		asked, err := c.Ask(ctx, name, fleet.Request{})
		if err != nil {
			return flight, err
		}
		over, end := context.WithCancel(ctx)
		var wg sync.WaitGroup
		killed, killErr := 0, error(nil)
		if ask == 1 {
			wg.Go(func() { killed, killErr = c.killSome(over, name, pauses) })
		}
		e, err := c.Await(ctx, name, asked)
		took := time.Since(began)
		end()
		wg.Wait()
		flight += killed
		if err := errors.Join(killErr, c.revive()); err != nil {
			return flight, err
		}
		switch {
		case err != nil && !errors.Is(err, ErrRun):
			return flight, err
		case err == nil && e.Result.Whole:
			c.say("%s: whole after %d requests and %.1f s, put %d, deleted %d, equal %d", name, ask, took.Seconds(), e.Result.Done["put"], e.Result.Done["delete"], e.Result.Done["equal"])
			return flight, nil
		case ask == askMost:
			return flight, fmt.Errorf("%d requests did not bring everything: %w: %+v", ask, errors.Join(err, ErrRun), e.Result)
		}
		c.say("%s: asked again after %.1f s: %v %+v", name, took.Seconds(), err, e.Result)
		c.res.Again++
	}
}

// killSome kills and starts again until ctx ends or enough died.
func (c *killer) killSome(ctx context.Context, name string, pauses time.Duration) (flight int, err error) {
	for range 1 + c.rand.IntN(killMost) {
		if !pause(ctx, time.Duration(c.rand.Int64N(int64(pauses)))) {
			return flight, nil
		}
		victim := []Victim{Worker, Planner, NATS}[c.rand.IntN(3)]
		p, err := c.choose(ctx, victim, name)
		if err != nil && ctx.Err() != nil {
			return flight, nil // the run came to its end meanwhile
		}
		if err != nil {
			return flight, err
		}
		if p == nil {
			continue
		}
		p.kill()
		c.res.Kills[victim]++
		c.say("%s: killed %s (%s)", name, p.name, victim)
		if victim == Worker {
			flight += killItems
		} else {
			flight += killItems * killWorkers
		}
		pause(ctx, time.Duration(c.rand.Int64N(int64(time.Second))))
		if err := p.start(); err != nil {
			return flight, err
		}
	}
	return flight, nil
}

// choose gives the process to kill; nil if there is none of the kind right now.
func (c *killer) choose(ctx context.Context, v Victim, name string) (*process, error) {
	if v == NATS {
		return c.Nats, nil
	}
	l, err := c.Bus.MirrorLease(ctx, name)
	if err != nil {
		return nil, err
	}
	var some []*process
	for _, w := range c.workers {
		if planner := l.Run != "" && l.Instance == w.name; planner == (v == Planner) {
			some = append(some, w)
		}
	}
	if len(some) == 0 {
		return nil, nil
	}
	return some[c.rand.IntN(len(some))], nil
}

// revive starts what is still dead.
func (c *killer) revive() error {
	errs := []error{c.Nats.start()}
	for _, w := range c.workers {
		errs = append(errs, w.start())
	}
	return errors.Join(errs...)
}

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
