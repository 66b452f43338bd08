package mirror

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// Scale measures how much faster more workers are when the store is far away, so that
// neither this machine's processors nor its disk are what they wait for.
type Scale struct {
	// Bin, Self, Dir and Data are as in [Options].
	Bin, Self, Dir, Data string
	// Files is how many files are copied. None is large enough to be copied in parts,
	// nor small enough to travel with others.
	Files int
	// Items is how many files each worker has under way.
	Items int
	// Workers are how many there are, ascending, and Rounds how often each number of
	// them is measured.
	Workers []int
	Rounds  int
	// DelayMS is how long the way to the store takes, one way.
	DelayMS float64
	Say     func(format string, a ...any)
}

// scaleDirs makes directories of some hundred files each.
const scaleDirs = 4

// Measured is how fast so many workers were.
type Measured struct {
	Workers int
	// PerSecond are the bytes per second of each round.
	PerSecond []float64
	// Items counts what each of them has carried out, by its name.
	Items map[string]int
}

// Run measures; each copy is looked at before it counts.
func (s Scale) Run(ctx context.Context) (out []Measured, err error) {
	o := Options{Bin: s.Bin, Self: s.Self, Dir: s.Dir, Data: s.Data, Items: s.Items, Link: relay.Link{DelayMS: s.DelayMS}}
	for _, n := range s.Workers {
		for round := range s.Rounds {
			name := scaleName(n, round)
			o.Mirrors = append(o.Mirrors, drill.Mirror{Name: name, From: "dir:DIR/src", To: "s3:" + storeName + "/" + name})
		}
	}
	t, err := newTree(filepath.Join(s.Dir, "src"), 1, shape{medium: s.Files, dirs: scaleDirs})
	if err != nil {
		return nil, err
	}
	in, err := Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Stop()) }()
	for _, n := range s.Workers {
		for len(in.workers) < n {
			if err := in.AddWorker(); err != nil {
				return out, err
			}
		}
		m := Measured{Workers: n, Items: map[string]int{}}
		for round := range s.Rounds {
			name := scaleName(n, round)
			speed, err := in.measure(ctx, t, name, m.Items)
			if err != nil {
				return out, errors.Join(fmt.Errorf("%s: %w", name, err), in.logs())
			}
			s.Say("%d workers: %.2f MB/s", n, speed/1e6)
			m.PerSecond = append(m.PerSecond, speed)
		}
		out = append(out, m)
	}
	return out, nil
}

func scaleName(workers, round int) string { return fmt.Sprintf("scale-%d-%d", workers, round) }

// measure mirrors a tree into a bucket of its own, and counts who carried out how many
// items.
func (in *Installation) measure(ctx context.Context, t *tree, name string, items map[string]int) (perSecond float64, err error) {
	counted := make(chan error, 1)
	counts, stop := context.WithCancel(ctx)
	go func() {
		counted <- in.Bus.FollowMirrorDone(counts, name, bus.AnyRun, func(r bus.Record) error {
			if r.Instance != "" {
				items[r.Instance]++
			}
			return nil
		})
	}()
	defer func() {
		stop()
		if cerr := <-counted; ctx.Err() == nil && !errors.Is(cerr, context.Canceled) {
			err = errors.Join(err, cerr)
		}
	}()
	if err := in.S3.MakeBucket(ctx, name, minio.MakeBucketOptions{}); err != nil {
		return 0, err
	}
	asked, err := in.Ask(ctx, name, fleet.Request{})
	if err != nil {
		return 0, err
	}
	e, err := in.Await(ctx, name, asked)
	if err != nil {
		return 0, err
	}
	if !e.Result.Whole {
		return 0, fmt.Errorf("%w: it is not whole: %+v", ErrRun, e.Result)
	}
	if err := in.compareBucket(ctx, t.dir, name); err != nil {
		return 0, err
	}
	if err := in.S3.RemoveBucketWithOptions(ctx, name, minio.RemoveBucketOptions{ForceDelete: true}); err != nil {
		return 0, err
	}
	return float64(e.Result.Bytes) / e.Result.Seconds, nil
}
