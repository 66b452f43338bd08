package zfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// onDiskTime is how long ZFS may take until what was acknowledged lies where it stays:
// until then it is in a log only. It does so every 5 s, or every 30 s without load.
const onDiskTime = 45 * time.Second

func (p *pool) planCorrupt(ctx context.Context, o *operation, plan *target.Plan) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	if err := s.unfit(o.rec.Vdev); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	l, err := p.ownLabel(ctx, o.rec.Vdev, o.rec.GUID)
	if err != nil {
		return err
	}
	chosen, err := p.choose(ctx, o)
	switch {
	case o.params.File != "" || !errors.Is(err, errNoFiles):
	case o.CanariesToCome:
		plan.Does = []string{fmt.Sprintf("invert blocks of up to %d of the drill's canaries on %s, behind ZFS's back; they are chosen when there are some", o.params.Canaries, o.rec.Vdev)}
		plan.Undoes = "nothing: there is nothing to damage yet"
		return nil
	default:
		err = errNoCanaries
	}
	if err != nil {
		return err
	}
	if err := p.locate(ctx, o, l, chosen); err != nil {
		return err
	}
	o.rec.Undo = undoScrub
	total, files := int64(0), []string{}
	for _, x := range o.rec.Spots {
		total += x.Holds
		if !slices.Contains(files, x.File) {
			files = append(files, x.File)
		}
	}
	plan.DeadMan = undo.DeadMan(o.Operation)
	plan.Does = []string{
		fmt.Sprintf("set a timer on the pool's machine that scrubs pool %s after %v", p.cfg.Pool, plan.DeadMan),
		fmt.Sprintf("invert %d bytes of %d blocks on %s, behind ZFS's back: of %s", total, len(o.rec.Spots), o.rec.Vdev, clip(strings.Join(files, ", "), 500)),
	}
	plan.Undoes = fmt.Sprintf("scrub pool %s unless the damage is repaired, and clear the errors of %s", p.cfg.Pool, o.rec.Vdev)
	return nil
}

// errNoCanaries says that there are no canaries to damage.
var errNoCanaries = errors.New("the drill has no canaries: let a write probe run before, or name a file in params.file")

// locate waits until files lie where they stay, and finds where.
func (p *pool) locate(ctx context.Context, o *operation, l label, chosen []file) error {
	return target.Poll(ctx, onDiskTime, time.Second, "files to lie on the disk", func(ctx context.Context) (bool, string, error) {
		parts, err := p.parts(ctx, chosen)
		if err == nil {
			o.rec.Spots, err = p.spots(ctx, o.rec.Vdev, l, parts)
		}
		return len(o.rec.Spots) > 0, fmt.Sprintf("of %d files nothing is found on %s and the rest of its mirror as it is read; are they compressed or encrypted?", len(chosen), o.rec.Vdev), err
	})
}

// choose picks files: params.file, if a drill may damage it, or canaries of the drill.
func (p *pool) choose(ctx context.Context, o *operation) ([]file, error) {
	if name := o.params.File; name != "" {
		if !slices.ContainsFunc(p.cfg.BreakableFiles, func(f string) bool { return strict.Within(name, f) }) {
			return nil, &target.FieldError{Field: "params.file", Value: name, Fix: fmt.Sprintf(
				"it is none of the target's breakableFiles (%s) and lies below none of them: choose another, or have the operator add it to the configuration", strings.Join(p.cfg.BreakableFiles, ", "))}
		}
		all, err := p.files(ctx, name)
		if err == nil && (len(all) > 1 || all[0].name != name) {
			err = &target.FieldError{Field: "params.file", Value: name, Fix: "name one file, not a directory"}
		}
		return all, err
	}
	all, err := p.files(ctx, p.tree().Drill(o.Drill))
	if err != nil {
		return nil, err
	}
	rand.New(rand.NewPCG(uint64(o.Seed), 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(int64(len(all)), o.params.Canaries)], nil
}

// parts finds where files lie, as much of them as one fault may damage.
func (p *pool) parts(ctx context.Context, files []file) ([]part, error) {
	blocks, err := p.blocks(ctx, files)
	if err != nil {
		return nil, err
	}
	var out []part
	left := int64(maxDamage)
	for _, b := range blocks {
		i := slices.IndexFunc(files, func(f file) bool { return f.object == b.object })
		if i < 0 || b.offset >= files[i].size || b.takes > left || len(out) == maxSpots {
			continue
		}
		left -= b.takes
		out = append(out, part{b, files[i]})
	}
	return out, nil
}

// begin is before each fault's effect: the pool is looked at once more, the fault
// leaves its marker, and its timer is set.
func (p *pool) begin(ctx context.Context, o *operation) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	if err := s.unfit(o.rec.Vdev); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	v, _, err := s.leaf(o.rec.Vdev)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	var damaged []string
	for _, x := range o.rec.Spots {
		damaged = append(damaged, o.rec.Vdev+" "+x.arg())
	}
	if err := p.marker().Leave(ctx, o.Operation, o.rec.Token, damaged...); err != nil {
		return err
	}
	script, args := p.mending(o.rec.Undo, o.rec, v.name)
	return p.machine().Arm(ctx, o.Operation, o.rec.Token, control.Timer{Script: prelude + script, Args: args})
}

// writeScript writes its input to spots of a disk, and neither makes nor cuts a file.
const writeScript = `vdev=$1 flags=; shift; [ ! -b "$vdev" ] || flags=oflag=direct
for s; do n=${s#*:} at=${s%%:*} n=${n%%:*} b=512; [ $((at % 4096 + n % 4096)) != 0 ] || b=4096
  dd of="$vdev" bs=$b seek=$((at / b)) count=$((n / b)) iflag=fullblock $flags conv=notrunc,nocreat,fsync status=none || exit 1
done`

func (p *pool) corrupt(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	vdev, spots := o.rec.Vdev, o.rec.Spots
	if len(spots) == 0 {
		return e, fmt.Errorf("when this was planned %w", errNoCanaries)
	}
	l, err := p.ownLabel(ctx, vdev, o.rec.GUID)
	if err != nil {
		return e, err
	}
	was, err := p.readSpots(ctx, vdev, spots)
	if err != nil {
		return e, err
	}
	var bad []byte
	for i, s := range spots {
		if s.At+s.Bytes > labelsBefore+l.size || sumOf(was[i]) != s.Sum {
			return e, fmt.Errorf("%d bytes at %d of %s: %w", s.Bytes, s.At, vdev, errForeign)
		}
		bad = append(bad, s.damage(was[i])...)
	}
	if err := p.begin(ctx, o); err != nil {
		return e, err
	}
	e.Began = p.clock.Now()
	_, err = p.host.Run(ctx, control.Command{What: "write to " + vdev, Script: prelude + o.fence.Guard(writeScript), Args: append([]string{vdev}, spotArgs(spots)...), Stdin: bad})
	e.Ended = p.clock.Now()
	if err != nil {
		return e, fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	e.Proof, err = p.proveDamage(ctx, vdev, spots)
	return e, err
}

// proveDamage reads the disk itself. ZFS does not know of it yet.
func (p *pool) proveDamage(ctx context.Context, vdev string, spots []spot) (event.Proof, error) {
	now, err := p.readSpots(ctx, vdev, spots)
	if err != nil {
		return event.Proof{}, err
	}
	n, total := 0, int64(0)
	for i, s := range spots {
		if sumOf(now[i]) == s.Damaged {
			n, total = n+1, total+s.Holds
		}
	}
	// A reader may have met a block, and ZFS have repaired it, by now.
	return event.Proof{Proven: n > 0, How: "blocks on the disk have the SHA-256 of the damaged ones",
		Observations: []string{fmt.Sprintf("%d of %d blocks on %s are damaged, %d bytes", n, len(spots), vdev, total)}}, nil
}
