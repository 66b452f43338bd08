package postgres

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// defaultFillMax is the most that a fill writes without being told otherwise.
const defaultFillMax = 4 << 30

// diskScript prints the devices of firedrill's own directory, /, the data and the
// path, and the path's free bytes.
const diskScript = `o=$3; while [ ! -d "$o" ]; do o=$(dirname -- "$o"); done
stat -c %d "$o" / "$1" "$2" && [ -d "$2" ] && df -P -B1 "$2" | sed -n 's/  */ /g;2p' | cut -d' ' -f4`

func (s *servers) planFill(ctx context.Context, o *operation, views []view, p *target.Plan) error {
	if err := s.planRunning(o, views, p); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.cfg.ScratchDirs, func(dir string) bool { return within(o.params.Path, dir) }) {
		return &target.FieldError{Field: "params.path", Value: o.params.Path,
			Fix: fmt.Sprintf("it lies in none of the target's scratchDirs (%s): choose one, or have the operator add it to the configuration", strings.Join(s.cfg.ScratchDirs, ", "))}
	}
	size, err := s.fillSize(ctx, o)
	if err != nil {
		return err
	}
	o.rec.Undo, o.rec.Path = undoFile, path.Join(o.params.Path, "."+o.rec.Token+".fill")
	p.Parts = append(p.Parts, event.Part{ID: "disk:" + o.node.Name + ":" + o.params.Path, Kind: "filesystem", Labels: map[string]string{"host": o.node.Host}})
	p.DeadMan = o.deadMan()
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that removes the file after %v", p.DeadMan),
		fmt.Sprintf("write %d bytes to %s on node %s", size, o.rec.Path, o.node.Name),
	}
	p.Undoes = fmt.Sprintf("remove %s on node %s", o.rec.Path, o.node.Name)
	return nil
}

// fillSize is how many bytes are to be written: refused where they could hurt
// more than the drill asked for.
func (s *servers) fillSize(ctx context.Context, o *operation) (int64, error) {
	out, err := o.node.host.Output(ctx, control.Command{Script: diskScript, Args: []string{o.node.DataDir, o.params.Path, s.cfg.Failback.EvidenceDir}})
	if err != nil {
		return 0, fmt.Errorf("node %s: %s: is it a directory? %w", o.node.Name, o.params.Path, err)
	}
	f := strings.Fields(out)
	if len(f) != 5 {
		return 0, fmt.Errorf("node %s: df of %s said %q", o.node.Name, o.params.Path, out)
	}
	free, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("node %s: free bytes of %s: %w", o.node.Name, o.params.Path, err)
	}
	limit := o.params.Max
	if limit == 0 {
		limit = defaultFillMax
	}
	size := o.params.Bytes
	if size == 0 {
		if slices.Contains(f[:3], f[3]) {
			return 0, &target.FieldError{Field: "params.path", Value: o.params.Path, Fix: "it lies on the file system of /, of the data directory or of failback.evidenceDir: set params.bytes to bound the file, or choose a small file system of its own"}
		}
		size = free - o.params.Leave
	}
	switch {
	case size <= 0:
		return 0, fmt.Errorf("node %s: %s has %d bytes free: nothing is to be filled", o.node.Name, o.params.Path, free)
	case size > limit:
		return 0, &target.FieldError{Field: "params.path", Value: o.params.Path, Fix: fmt.Sprintf("%d bytes would be written, more than %d: choose a smaller file system or raise params.max", size, limit)}
	case size > free:
		return 0, fmt.Errorf("node %s: %s has %d bytes free, params.bytes asks for %d", o.node.Name, o.params.Path, free, size)
	}
	return size, nil
}

// fillScript writes the file. With "rest", it goes on until nothing is free.
const fillScript = `head -c "$2" /dev/zero >"$1" 2>/dev/null
if [ "$3" = rest ]; then dd if=/dev/zero bs=4k >>"$1" 2>/dev/null; fi
stat -c %s "$1"; df -P -B1 "$1" | sed -n 's/  */ /g;2p' | cut -d' ' -f4`

func (s *servers) fill(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	size, err := s.fillSize(ctx, o)
	if err != nil {
		return e, err
	}
	if err := s.arm(ctx, o, control.Timer{Script: `rm -f -- "$1"`, Args: []string{o.rec.Path}}); err != nil {
		return e, err
	}
	rest := "exact"
	if o.params.Bytes == 0 && o.params.Leave == 0 {
		rest = "rest"
	}
	e.Began = s.clock.Now()
	out, err := o.node.host.Output(ctx, control.Command{Script: conductor(ctx).Guard(fillScript), Args: []string{o.rec.Path, strconv.FormatInt(size, 10), rest}})
	e.Ended = s.clock.Now()
	if err != nil {
		return e, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	var wrote, free int64
	if _, err := fmt.Sscan(out, &wrote, &free); err != nil {
		return e, fmt.Errorf("node %s: after filling %s: %q: %w", o.node.Name, o.rec.Path, out, err)
	}
	e.Proof = event.Proof{How: "the file's size and the file system's free bytes",
		Observations: []string{fmt.Sprintf("%s has %d bytes; %d bytes are free", o.rec.Path, wrote, free)}}
	if o.params.Bytes > 0 {
		e.Proof.Proven = wrote == size
	} else {
		e.Proof.Proven = wrote > 0 && free <= o.params.Leave+64<<10
	}
	return e, nil
}

func (s *servers) undoFill(ctx context.Context, r record, j *journal) error {
	n, err := s.node(r.Node)
	if err != nil {
		return err
	}
	if path.Base(r.Path) != "."+r.Token+".fill" {
		return fmt.Errorf("%s is not a file of this fault: refused", r.Path)
	}
	out, err := n.host.Output(ctx, control.Command{Script: `[ -e "$1" ] && rm -f -- "$1" && echo removed; [ ! -e "$1" ]`, Args: []string{r.Path}})
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if out == "removed" {
		j.add("removed %s on node %s", r.Path, n.Name)
	}
	return s.disarm(ctx, n, r)
}
