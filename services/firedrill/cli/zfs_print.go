package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/zfs"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// zfsPrinter writes what the ZFS commands do: progress on a terminal, results for
// people or as JSON.
type zfsPrinter struct {
	out, err   io.Writer
	json, live bool

	mu          sync.Mutex // guards what follows up to bytesPerSec, and err
	drawn       bool
	shown       zfs.Progress
	at          time.Time
	bytesPerSec float64

	// several, if not nil, gathers the results of which each would be a document.
	several *[]any
	// said is that a document was printed, or is gathered.
	said bool
}

func (a *app) zfsPrinter(o *mirrorOptions) *zfsPrinter {
	return &zfsPrinter{out: a.Out, err: a.Err, json: o.json, live: !o.quiet && isTerminal(a.Err)}
}

// redraw is how often progress is drawn at most.
const redraw = 200 * time.Millisecond

// progress draws one line.
func (p *zfsPrinter) progress(g zfs.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	span := now.Sub(p.at)
	if !p.live || span < redraw {
		return
	}
	if p.shown.Snapshot == g.Snapshot {
		speed := float64(g.Bytes-p.shown.Bytes) / span.Seconds()
		p.bytesPerSec += (speed - p.bytesPerSec) / 4
	}
	p.shown, p.at, p.drawn = g, now, true
	of := ""
	if g.Total > 0 {
		of = " of " + size(g.Total)
	}
	fmt.Fprintf(p.err, "\r%s (%d of %d): %s%s, %s/s\x1b[K", g.Snapshot, g.Number, g.Of, size(g.Bytes), of, size(int64(p.bytesPerSec)))
}

// work is what is done with a dataset to the other heavy work of the machine that locks
// belong to: what sends is passed on to watch, and may have to wait there. What is held back
// to so many bytes a second is no heavy work. The caller calls end.
func (p *zfsPrinter) work(ctx context.Context, locks machine.Locks, dataset string, bytesPerSecond int64) (watch func(zfs.Progress), end func()) {
	load := heavy.OfMirror(ctx, drill.Mirror{BytesPerSecond: bytesPerSecond}, p.load(locks, dataset))
	return func(g zfs.Progress) {
		p.progress(g)
		_ = load.Pass(ctx) // The stream ends by itself when ctx does.
	}, load.End
}

// load is what is said of a dataset's work while others are at theirs.
func (p *zfsPrinter) load(locks machine.Locks, dataset string) heavy.Options {
	return heavy.Options{
		Locks: locks, By: "firedrill zfs with " + dataset,
		Waits:    func(first *machine.Head) { p.say(behindWhom(first)) },
		Unlocked: func(why error) { p.say(beside(why)) },
	}
}

// say prints a line for people beside the progress.
func (p *zfsPrinter) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	fmt.Fprintln(p.err, line)
}

// clear takes the line of progress away.
func (p *zfsPrinter) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

// wipe is clear for who holds mu.
func (p *zfsPrinter) wipe() {
	if p.drawn {
		fmt.Fprint(p.err, "\r\x1b[K")
		p.drawn = false
	}
}

// end is what a command returns that has printed its result: why it failed, or that
// it could not print. JSON has said why it failed, if there was any.
func (p *zfsPrinter) end(printed, err error) error {
	if printed != nil {
		return failure(errors.Join(printed, err))
	}
	if err == nil || !p.json || !p.said {
		return err
	}
	code := &exitError{code: run.BadArguments}
	_ = errors.As(err, &code) // else it is the caller's mistake
	return &exitError{code: code.code}
}

// print writes JSON, or the lines of text.
func (p *zfsPrinter) print(asJSON any, text func(line func(format string, args ...any))) error {
	p.said = true
	switch {
	case p.json && p.several != nil:
		*p.several = append(*p.several, asJSON)
		return nil
	case p.json:
		return writeJSON(p.out, asJSON)
	}
	var failed error
	text(func(format string, args ...any) {
		if _, err := fmt.Fprintf(p.out, format+"\n", args...); err != nil {
			failed = err
		}
	})
	return failed
}

// snapshotJSON is a snapshot in results. Its guid is a string, as it exceeds what many
// readers of JSON can hold in a number.
type snapshotJSON struct {
	Snapshot string    `json:"snapshot"`
	GUID     uint64    `json:"guid,string"`
	Created  time.Time `json:"created"`
}

func snapshotsJSON(all []zfs.Snapshot) []snapshotJSON {
	out := []snapshotJSON{}
	for _, s := range all {
		out = append(out, snapshotJSON{s.String(), s.GUID, s.Created})
	}
	return out
}

// stepJSON is a snapshot that was brought elsewhere.
type stepJSON struct {
	snapshotJSON
	// Since is the snapshot that the increment began at; "" for a whole stream.
	Since  string     `json:"since,omitempty"`
	Stream zfs.Stream `json:"stream"`
}

// replicateJSON is the result of replicate.
type replicateJSON struct {
	From         string         `json:"from"`
	To           string         `json:"to"`
	Job          string         `json:"job"`
	Taken        string         `json:"taken,omitempty"`
	Sent         []stepJSON     `json:"sent"`
	Common       *snapshotJSON  `json:"common,omitempty"`
	RolledBack   bool           `json:"rolledBack"`
	Lost         []snapshotJSON `json:"lost"`
	PrunedSource []snapshotJSON `json:"prunedSource"`
	PrunedTarget []snapshotJSON `json:"prunedTarget"`
	Error        string         `json:"error,omitempty"`
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (p *zfsPrinter) replicated(r zfs.Replication, u zfs.Updated, err error) error {
	out := replicateJSON{
		From: r.From, To: r.To, Job: r.Job, Sent: []stepJSON{}, RolledBack: u.RolledBack, Lost: snapshotsJSON(u.Lost),
		PrunedSource: snapshotsJSON(u.PrunedSource), PrunedTarget: snapshotsJSON(u.PrunedTarget), Error: errorText(err),
	}
	if u.Taken != nil {
		out.Taken = u.Taken.String()
	}
	if u.Common != nil {
		out.Common = &snapshotsJSON([]zfs.Snapshot{*u.Common})[0]
	}
	var bytes int64
	for _, s := range u.Steps {
		step := stepJSON{snapshotJSON: snapshotJSON{s.To.String(), s.To.GUID, s.To.Created}, Stream: s.Stream}
		if s.From != nil {
			step.Since = s.From.Name
		}
		out.Sent, bytes = append(out.Sent, step), bytes+s.Stream.Bytes
	}
	return p.print(out, func(line func(string, ...any)) {
		if err == nil || len(u.Steps) > 0 {
			line("%s -> %s: %s sent (%s), each verified by its guid", r.From, r.To, fold.Plural(len(u.Steps), "snapshot"), size(bytes))
		}
		for _, s := range out.Sent {
			line("  sent       %s, %s, %s", s.Snapshot, kind(s.Since), size(s.Stream.Bytes))
		}
		listed(line, "rolled back", u.Lost)
		listed(line, "pruned", slices.Concat(u.PrunedSource, u.PrunedTarget))
		if u.Common != nil {
			line("  both have  %s, held as firedrill:%s", u.Common, r.Job)
		}
	})
}

// kind says what a stream holds.
func kind(since string) string {
	if since == "" {
		return "whole"
	}
	return "since " + since
}

func listed(line func(string, ...any), what string, all []zfs.Snapshot) {
	for _, s := range all {
		line("  %-10s %s", what, s)
	}
}

func (p *zfsPrinter) planned(r zfs.Replication, u zfs.UpdatePlan, err error) error {
	out := struct {
		DryRun      bool           `json:"dryRun"`
		From        string         `json:"from"`
		To          string         `json:"to"`
		Take        string         `json:"take,omitempty"`
		Send        []snapshotJSON `json:"send"`
		Ahead       []snapshotJSON `json:"ahead"`
		PruneSource []snapshotJSON `json:"pruneSource"`
		PruneTarget []snapshotJSON `json:"pruneTarget"`
		Error       string         `json:"error,omitempty"`
	}{true, r.From, r.To, u.Take, snapshotsJSON(u.Send), snapshotsJSON(u.Ahead), snapshotsJSON(u.PruneSource), snapshotsJSON(u.PruneTarget), errorText(err)}
	return p.print(out, func(line func(string, ...any)) {
		if err != nil && u.Take == "" && !errors.Is(err, zfs.ErrCloned) {
			return // there is no plan
		}
		line("%s -> %s: nothing is done in a dry run; it would have:", r.From, r.To)
		if u.Take != "" {
			line("  taken      %s@%s, and sent it last", r.From, u.Take)
		}
		listed(line, "sent", u.Send)
		listed(line, "destroyed", u.Ahead)
		listed(line, "pruned", slices.Concat(u.PruneSource, u.PruneTarget))
	})
}

func (p *zfsPrinter) pruned(dataset string, dryRun bool, gone []zfs.Snapshot, err error) error {
	out := struct {
		Dataset string         `json:"dataset"`
		DryRun  bool           `json:"dryRun"`
		Pruned  []snapshotJSON `json:"pruned"`
		Error   string         `json:"error,omitempty"`
	}{dataset, dryRun, snapshotsJSON(gone), errorText(err)}
	return p.print(out, func(line func(string, ...any)) {
		would := ""
		if dryRun {
			would = "would be "
		}
		if err == nil || len(gone) > 0 {
			line("%s: %s %spruned", dataset, fold.Plural(len(gone), "snapshot"), would)
		}
		listed(line, "pruned", gone)
	})
}

func (p *zfsPrinter) thinned(where string, dryRun bool, t zfs.Thinned, err error) error {
	out := struct {
		Where  string      `json:"where"`
		DryRun bool        `json:"dryRun"`
		Pruned []pointJSON `json:"pruned"`
		// Needed would have been pruned if nothing that stays built on them.
		Needed []pointJSON `json:"needed"`
		Freed  int64       `json:"freedBytes"`
		Error  string      `json:"error,omitempty"`
	}{where, dryRun, pointsJSON(t.Gone, nil), pointsJSON(t.Needed, nil), stored(t.Gone), errorText(err)}
	return p.print(out, func(line func(string, ...any)) {
		would := ""
		if dryRun {
			would = "would be "
		}
		if err == nil || len(t.Gone) > 0 {
			line("%s: %s %spruned (%s)", where, fold.Plural(len(t.Gone), "point"), would, size(out.Freed))
		}
		thinnedLines(line, t)
	})
}

func thinnedLines(line func(string, ...any), t zfs.Thinned) {
	for _, one := range t.Gone {
		line("  %-10s %s", "pruned", one.Name())
	}
	for _, one := range t.Needed {
		line("  %-10s %s, on which what stays builds", "needed", one.Name())
	}
}

func stored(points []zfs.Point) (bytes int64) {
	for _, p := range points {
		bytes += p.Stored()
	}
	return bytes
}

func (p *zfsPrinter) archived(dataset, where string, done zfs.Archived, err error) error {
	out := struct {
		From   string         `json:"from"`
		Where  string         `json:"where"`
		Taken  string         `json:"taken,omitempty"`
		Points []pointJSON    `json:"points"`
		Swept  int            `json:"sweptParts"`
		Pruned []snapshotJSON `json:"pruned"`
		// PrunedPoints went from the archive.
		PrunedPoints []pointJSON `json:"prunedPoints"`
		Error        string      `json:"error,omitempty"`
	}{dataset, where, "", pointsJSON(done.Points, nil), done.Swept, snapshotsJSON(done.Pruned), pointsJSON(done.Thinned.Gone, nil), errorText(err)}
	if done.Taken != nil {
		out.Taken = done.Taken.String()
	}
	return p.print(out, func(line func(string, ...any)) {
		if err == nil || len(done.Points) > 0 {
			line("%s -> %s: %s archived", dataset, where, fold.Plural(len(done.Points), "snapshot"))
		}
		for _, one := range done.Points {
			since := "whole"
			if one.From != 0 {
				since = "an increment"
			}
			line("  archived   %s, %s, %s of a stream of %s", one.Name(), since, size(one.Stored()), size(one.Stream.Bytes))
		}
		if done.Swept > 0 {
			line("  swept      %s of uploads that were never finished", fold.Plural(done.Swept, "part"))
		}
		listed(line, "pruned", done.Pruned)
		thinnedLines(line, done.Thinned)
	})
}

// pointJSON is a point of an archive.
type pointJSON struct {
	Name    string    `json:"name"`
	GUID    uint64    `json:"guid,string"`
	Created time.Time `json:"created"`
	// Whole says that it is no increment; Since is what it is one to, if that is there.
	Whole      bool   `json:"whole"`
	SinceGUID  uint64 `json:"sinceGuid,string,omitempty"`
	Since      string `json:"since,omitempty"`
	Stored     int64  `json:"storedBytes"`
	Stream     int64  `json:"streamBytes"`
	Parts      int    `json:"parts"`
	Restorable *bool  `json:"restorable,omitempty"`
}

// pointsJSON describes points; restorable is nil where that was not looked at.
func pointsJSON(points []zfs.Point, restorable map[uint64]bool) []pointJSON {
	names := map[uint64]string{}
	for _, p := range points {
		names[p.GUID] = p.Name()
	}
	out := []pointJSON{}
	for _, p := range points {
		one := pointJSON{
			Name: p.Name(), GUID: p.GUID, Created: p.Created, Whole: p.From == 0, SinceGUID: p.From, Since: names[p.From],
			Stored: p.Stored(), Stream: p.Stream.Bytes, Parts: len(p.Parts),
		}
		if restorable != nil {
			good := restorable[p.GUID]
			one.Restorable = &good
		}
		out = append(out, one)
	}
	return out
}

func (p *zfsPrinter) points(where string, points []zfs.Point, err error) error {
	all := pointsJSON(points, zfs.Restorable(points))
	out := struct {
		Where  string      `json:"where"`
		Points []pointJSON `json:"points"`
		Error  string      `json:"error,omitempty"`
	}{where, all, errorText(err)}
	return p.print(out, func(line func(string, ...any)) {
		if p.several != nil {
			line("%s:", where)
		}
		if len(all) == 0 {
			line("nothing is archived there")
			return
		}
		t := tabwriter.NewWriter(p.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "POINT\tTAKEN\tSTORED\tSTREAM\tHOLDS\tGUID")
		for _, one := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", one.Name, one.Created.UTC().Format(time.RFC3339), size(one.Stored), size(one.Stream), one.holds(), one.GUID)
		}
		_ = t.Flush() // the terminal is the only place to complain to
	})
}

// holds says what a point holds.
func (p pointJSON) holds() string {
	switch {
	case p.Whole:
		return "all"
	case p.Since == "":
		return "what changed since guid " + strconv.FormatUint(p.SinceGUID, 10) + ", WHICH IS MISSING"
	case p.Restorable != nil && !*p.Restorable:
		return "what changed since " + p.Since + ", which CANNOT BE RESTORED"
	}
	return "what changed since " + p.Since
}

func (p *zfsPrinter) restored(dataset string, point zfs.Point, received []zfs.Snapshot, err error) error {
	out := struct {
		Dataset  string         `json:"dataset"`
		Point    string         `json:"point"`
		GUID     uint64         `json:"guid,string"`
		Received []snapshotJSON `json:"received"`
		Error    string         `json:"error,omitempty"`
	}{dataset, point.Name(), point.GUID, snapshotsJSON(received), errorText(err)}
	return p.print(out, func(line func(string, ...any)) {
		listed(line, "received", received)
		switch n := len(received); {
		case err == nil && n == 0:
			line("%s: has %s already; nothing was done, and what was changed there since then stays: to get the point itself, restore to a dataset that does not exist", dataset, point.Name())
		case err == nil:
			line("%s: restored to %s, verified by its guid; `zfs mount %s` mounts it", dataset, point.Name(), dataset)
		case n > 0 && isDamaged(err):
			line("%s: NOT restored to %s; it has come as far as %s, which is whole", dataset, point.Name(), received[n-1].Name)
		case n > 0:
			line("%s: NOT restored to %s yet; it has come as far as %s, and the same command goes on from there", dataset, point.Name(), received[n-1].Name)
		}
	})
}

func (p *zfsPrinter) checked(where string, c zfs.Checked, err error) error {
	type damageJSON struct {
		Point string   `json:"point"`
		GUID  uint64   `json:"guid,string"`
		Why   []string `json:"why"`
	}
	out := struct {
		Where   string       `json:"where"`
		Whole   bool         `json:"whole"`
		Points  int          `json:"points"`
		Parts   int          `json:"parts"`
		Bytes   int64        `json:"bytes"`
		Damaged []damageJSON `json:"damaged"`
		Indexes []string     `json:"unreadableIndexes"`
		Error   string       `json:"error,omitempty"`
	}{where, err == nil, c.Points, c.Parts, c.Bytes, []damageJSON{}, []string{}, errorText(err)}
	for _, d := range c.Damaged {
		one := damageJSON{Point: d.Point.Name(), GUID: d.Point.GUID}
		for _, err := range d.Errs {
			one.Why = append(one.Why, err.Error())
		}
		out.Damaged = append(out.Damaged, one)
	}
	for _, err := range c.Indexes {
		out.Indexes = append(out.Indexes, err.Error())
	}
	return p.print(out, func(line func(string, ...any)) {
		for _, d := range out.Damaged {
			line("DAMAGED %s", d.Point)
			for _, why := range d.Why {
				line("  %s", why)
			}
		}
		for _, why := range out.Indexes {
			line("UNREADABLE %s", why)
		}
		if out.Whole {
			line("%s: whole: %s in %s (%s) read, all hashes are right, and each point leads back to a whole one",
				where, fold.Plural(c.Points, "point"), fold.Plural(c.Parts, "part"), size(c.Bytes))
		}
	})
}
