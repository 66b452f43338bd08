package zfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// pass is what mendScript does for the action scrub, beside the kinds of undo.
const pass = "pass"

// mendScript brings a disk back to what it should be, and says what it did. The timer
// runs it too. Its arguments: what to do (scrub if anything is damaged, pass for a scrub
// in any case, online), the pool, the disk by its path and by its name in the pool's
// status, and the spots that the fault damaged.
const mendScript = spotScript + `kind=$1 pool=$2 vdev=$3 name=$4; shift 4
say() { echo "$*" >&2; zpool status -- "$pool" >&2; exit 1; }
leaf() { zpool status -- "$pool" | awk -v v="$name" '$1 == v { print $2, $3, $4, $5; exit }'; }
settle() { while zpool status -- "$pool" | grep -Eq '^ *(scan|scrub): .*in progress'; do sleep 0.2; done; }
damaged() { for s; do still "$vdev" "$s"; case $? in 0) return 0 ;; 1) ;; *) echo "$vdev cannot be read" >&2; exit 1 ;; esac; done; return 1; }
scrub() {
  settle # one that runs has perhaps been there already
  zpool scrub -- "$pool" || exit 1
  settle
  zpool status -- "$pool" | grep -Eq '^ *(scan|scrub): scrub .*with 0 errors' || say "the scrub was broken off, or could not repair everything"
  echo scrubbed
}
case $kind in
pass) scrub ;;
scrub) if damaged "$@"; then scrub; if damaged "$@"; then echo freed; fi; fi ;;
online) case $(leaf) in ONLINE*) ;; *) zpool online -- "$pool" "$vdev" || exit 1; echo onlined; sleep 1 ;; esac # it begins to resilver a moment later
  settle ;;
esac
if [ "$kind" != online ]; then
  zpool status -- "$pool" | grep -q '^errors: No known data errors' || say "data is lost"
  was=$(leaf)
  [ "$was" = "ONLINE 0 0 0" ] || { zpool clear -- "$pool" "$vdev" || exit 1; echo "cleared $was"; settle; }
fi
case $(leaf) in ONLINE*) ;; *) say "$vdev is $(leaf)" ;; esac`

// mending is mendScript for what a record says, with its arguments.
func (p *pool) mending(kind string, r record, name string) (script string, args []string) {
	args = append([]string{kind, p.cfg.Pool, r.Vdev, name}, spotArgs(r.Spots)...)
	return p.marker().Mend(mendScript), p.marker().Args(r.Token, args...)
}

// runMend runs mendScript on a disk as the pool calls it now.
func (p *pool) runMend(ctx context.Context, o *operation, kind string, j *undo.Journal) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	v, _, err := s.leaf(o.rec.Vdev)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	script, args := p.mending(kind, o.rec, v.name)
	out, err := p.run(ctx, "mend "+o.rec.Vdev, o.fence.Guard(script), args...)
	p.told(out, o.rec, j)
	return err
}

// told puts what mendScript did into words.
func (p *pool) told(out string, r record, j *undo.Journal) {
	for line := range strings.Lines(out) {
		switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "scrubbed":
			j.Add("scrubbed pool %s to the end, with nothing left to repair", p.cfg.Pool)
		case "freed":
			// A scrub goes over all that is in use, and repaired it.
			j.Add("left damage on %s alone where the pool holds nothing any more", r.Vdev)
		case "onlined":
			j.Add("brought %s back into pool %s, and waited until it was resilvered", r.Vdev, p.cfg.Pool)
		case "cleared":
			j.Add("cleared the errors of %s, which were (state, read, write, checksum) %s", r.Vdev, rest)
		}
	}
}

func (p *pool) planScrub(ctx context.Context, o *operation, plan *target.Plan) error {
	if _, err := p.look(ctx); err != nil {
		return err
	}
	plan.Does = []string{
		fmt.Sprintf("scrub pool %s and wait until it is over", p.cfg.Pool),
		fmt.Sprintf("clear the errors of %s if everything was repaired", o.rec.Vdev),
	}
	plan.Undoes = "nothing: a scrub changes only what is damaged"
	return nil
}

func (p *pool) scrub(ctx context.Context, o *operation) (target.Effect, error) {
	return p.act(ctx, o, pass, "a scrub went to the end, and the pool is well")
}

func (p *pool) planOnline(ctx context.Context, o *operation, plan *target.Plan) error {
	s, err := p.look(ctx)
	if err != nil {
		return err
	}
	if _, _, err := s.leaf(o.rec.Vdev); err != nil {
		return fmt.Errorf("pool %s: %w", p.cfg.Pool, err)
	}
	plan.Does = []string{fmt.Sprintf("bring %s online in pool %s unless it is, and wait until it is resilvered", o.rec.Vdev, p.cfg.Pool)}
	plan.Undoes = "nothing: a disk that is online is as it should be"
	return nil
}

func (p *pool) online(ctx context.Context, o *operation) (target.Effect, error) {
	return p.act(ctx, o, undoOnline, "the disk is online and resilvered, and the pool is well")
}

// act does an action by mendScript and proves it by the pool's status.
func (p *pool) act(ctx context.Context, o *operation, kind, how string) (target.Effect, error) {
	e := target.Effect{Began: p.clock.Now()}
	var j undo.Journal
	err := p.runMend(ctx, o, kind, &j)
	e.Ended = p.clock.Now()
	e.Details = j.Details()
	if err != nil {
		return e, err
	}
	s, err := p.look(ctx)
	if err != nil {
		return e, err
	}
	wrong := s.problems()
	e.Proof = event.Proof{Proven: len(wrong) == 0, How: how, Observations: append([]string{s.scan}, wrong...)}
	return e, nil
}
