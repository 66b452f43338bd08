package cli

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func (a *app) mirrorDeletedCmd(o *mirrorOptions) *cobra.Command {
	var do job.DeletedOptions
	use, args := mirrorArgs("deleted")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "List what runs have deleted and can be brought back",
		Long: `List what runs have deleted and put aside, as they were told to by --keep-deleted, or
keepDeleted in the inventory: when, by which run, its size and its path. Of a bucket that
keeps versions it is what anybody has deleted within that time, and no run is named.
Paths are quoted, and mirror restore takes them as they are printed. What others have put
there and is no name of a file is listed as cannot, and exits with 1. So does a run or a
path that is named, and nothing of which can be brought back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if do.Under, err = cleanPaths(do.Under); err != nil {
				return fmt.Errorf("--path: %w", err)
			}
			return a.withMirror(cmd, args, o, visit{
				left: "nothing was changed",
				use:  job.Looks,
				do: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
					l := &deletedList{mirrorPrinter: p, all: jsonList{out: p.out, name: "deleted"}}
					for d, err := range j.Deleted(ctx, do) {
						bad, is := errors.AsType[*place.KeptError](err)
						switch {
						case is:
							l.cannot(d, bad)
						case err != nil:
							return l.end, err
						default:
							l.add(d)
						}
					}
					return l.end, nil
				},
			})
		},
	}
	c.Flags().StringArrayVar(&do.Under, "path", nil, "list only this path and what lies in it; may be repeated")
	c.Flags().StringVar(&do.Run, "run", "", "list only what this run has deleted")
	o.describeWait(c.Flags())
	return c
}

func (a *app) mirrorRestoreCmd(o *mirrorOptions) *cobra.Command {
	var ro job.RestoreOptions
	all := false
	c := &cobra.Command{
		Use: "restore (NAME | FROM TO) (PATH... | --all)",
		Args: func(_ *cobra.Command, args []string) error {
			if _, paths := split(args); len(args) == 0 || len(paths) == len(args) {
				return errors.New("give the name of a mirror of the inventory, or two locations, and then the paths to bring back")
			}
			return nil
		},
		Short: "Bring back what runs have deleted, on both sides",
		Long: `Bring back what runs have deleted, as mirror deleted lists it: where it was deleted, and
on the other side as well, as else the next run would delete it again. A directory comes
back with all that was deleted in it, and of each path the newest unless --run names a run.
Nothing is written over: what has its name by now, on either side, stays, is reported, and
exits with 1; nothing that lies in it comes back either. PATH is a path as it is, or in
double quotes as mirror deleted prints it, such as '"new\nline"'. One that itself begins and
ends with a double quote is given as it is printed: '"\"quoted\""'.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, paths := split(args)
			var err error
			if ro.Under, err = cleanPaths(paths); err != nil {
				return fmt.Errorf("PATH: %w", err)
			}
			switch {
			case all && len(paths) > 0:
				return errors.New("--all: it brings back everything, and paths are given as well: leave one of them out")
			case !all && len(paths) == 0:
				return errors.New("it is not said what to bring back: give paths as `firedrill mirror deleted` lists them, or --all")
			}
			use := job.Repairs
			if ro.DryRun {
				use = job.Looks
			}
			return a.withMirror(cmd, args, o, visit{
				left: "what was brought back stays, and the rest can be brought back later",
				use:  use,
				do: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
					l := &restoredList{mirrorPrinter: p, dry: ro.DryRun, all: jsonList{out: p.out, name: "restored"}}
					ro.Each = l.add
					var err error
					l.res, err = j.Restore(ctx, ro)
					return l.end, err
				},
			})
		},
	}
	c.Flags().StringVar(&ro.Run, "run", "", "bring back what this run has deleted; left out, the newest of each path")
	c.Flags().BoolVar(&all, "all", false, "bring back all that is listed")
	c.Flags().BoolVar(&ro.DryRun, "dry-run", false, "do nothing, print what would be brought back, and exit as the command would")
	o.describeWait(c.Flags())
	return c
}

// split tells what names a mirror, which is two locations or one name, from what follows.
func split(args []string) (mirror, paths []string) {
	n := min(1, len(args))
	if n > 0 {
		if _, err := location.Parse(args[0]); err == nil {
			n = 2
		}
	}
	if n > len(args) {
		return nil, args
	}
	return args[:n], args[n:]
}

// cleanPaths reads paths, given as they are or as they are printed, in double quotes, and
// takes off the slashes that people add.
func cleanPaths(given []string) (out []string, err error) {
	for _, text := range given {
		p := text
		if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
			if p, err = strconv.Unquote(text); err != nil {
				return nil, fmt.Errorf("%s is in double quotes, and not as `firedrill mirror deleted` prints a path: copy it from there with its quotes, or leave them out", strconv.Quote(text))
			}
		}
		p = strings.Trim(p, "/")
		if p == "" || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
			return nil, fmt.Errorf("%q is no path in a mirror: write it as `firedrill mirror deleted` lists it, such as reports/2026", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// deletedJSON is one entry that can be brought back, or was.
type deletedJSON struct {
	Path string `json:"path"`
	// Quoted is a path that is not UTF-8, as commands take it: JSON has other bytes there.
	Quoted string `json:"quoted,omitempty"`
	Kind   string `json:"kind"`
	Size   int64  `json:"size"`
	// Run is left out where a bucket keeps it as a version.
	Run     string    `json:"run,omitempty"`
	Deleted time.Time `json:"deleted"`
	Side    string    `json:"side"`
	// Error says why it is not back, OnlyThere why it is not back on the other side.
	Error     string `json:"error,omitempty"`
	OnlyThere string `json:"onlyThere,omitempty"`
}

func deletedAsJSON(d job.Deleted) deletedJSON {
	one := deletedJSON{Path: d.Entry.Path, Kind: d.Entry.Kind.String(), Size: d.Entry.Size, Run: d.Bin.Run, Deleted: d.Bin.At.UTC(), Side: d.Side.String()}
	if !utf8.ValidString(one.Path) {
		one.Quoted = strconv.Quote(one.Path)
	}
	return one
}

// deletedList prints what was deleted as it is found.
type deletedList struct {
	*mirrorPrinter
	all jsonList // for JSON only
	// n counts what can be brought back, bad what cannot.
	n, bad int64
	bytes  int64
}

// cannot prints what is kept and is no entry.
func (l *deletedList) cannot(d job.Deleted, why *place.KeptError) {
	l.bad++
	if l.json {
		d.Entry.Path = why.Key
		one := deletedAsJSON(d)
		one.Error = why.Error()
		l.all.add(one)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	fmt.Fprintf(l.out, "%s  cannot: %v\n", clockTime(d.Bin.At), why)
}

func (l *deletedList) add(d job.Deleted) {
	l.n++
	if d.Entry.Kind != entry.Dir {
		l.bytes += d.Entry.Size
	}
	if l.json {
		l.all.add(deletedAsJSON(d))
		return
	}
	run, much := d.Bin.Run, size(d.Entry.Size)
	if run == "" {
		run = "-"
	}
	if d.Entry.Kind == entry.Dir {
		much = "-"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	fmt.Fprintf(l.out, "%s  %-16s %10s  %-11s  %q\n", clockTime(d.Bin.At), run, much, d.Side, strings.TrimSuffix(d.Entry.Path, "/")+dirMark(d.Entry))
}

// dirMark is what the path of a directory ends with.
func dirMark(e entry.Entry) string {
	if e.Kind == entry.Dir {
		return "/"
	}
	return ""
}

// end is what is printed at the end.
func (l *deletedList) end(err error) error {
	switch {
	case l.json:
		err = l.all.close(nil, err)
	case err != nil:
	case l.n == 0:
		fmt.Fprintln(l.out, "nothing that was deleted can be brought back")
	default:
		fmt.Fprintf(l.out, "%s, %s: mirror restore brings them back\n", fold.Plural(l.n, "entry"), size(l.bytes))
	}
	if err == nil && l.bad > 0 {
		err = &exitError{code: run.Fail}
	}
	return err
}

// restoredList prints what is brought back.
type restoredList struct {
	*mirrorPrinter
	dry bool
	all jsonList // for JSON only
	res job.Restoration
}

func (l *restoredList) add(r job.Restored) {
	if l.json {
		one := deletedAsJSON(r.Deleted)
		if r.Err != nil {
			one.Error = r.Err.Error()
		}
		if r.Alone != nil {
			one.OnlyThere = r.Alone.Error()
		}
		l.all.add(one)
		return
	}
	name := r.Entry.Path + dirMark(r.Entry)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	switch {
	case r.Err != nil:
		fmt.Fprintf(l.out, "  %-10s %q: %v\n", "cannot", name, r.Err)
	case r.Alone != nil && l.dry:
		fmt.Fprintf(l.out, "  %-10s %q would be back at the %s and not at the %s, so that a later run deletes it again: %v\n", "half", name, r.Side, r.Side.Other(), r.Alone)
	case r.Alone != nil:
		fmt.Fprintf(l.out, "  %-10s %q is back at the %s and not at the %s, so that a later run deletes it again: %v\n", "half", name, r.Side, r.Side.Other(), r.Alone)
	case l.dry:
		fmt.Fprintf(l.out, "  %-10s %q, deleted %s\n", "would", name, clockTime(r.Bin.At))
	default:
		fmt.Fprintf(l.out, "  %-10s %q, deleted %s\n", "restored", name, clockTime(r.Bin.At))
	}
}

// end is what is printed at the end.
func (l *restoredList) end(err error) error {
	good := l.res.Failed+l.res.Alone == 0
	switch {
	case l.json:
		err = l.all.close(map[string]any{"entries": l.res.Entries, "bytes": l.res.Bytes, "onlyThere": l.res.Alone, "failed": l.res.Failed, "dryRun": l.dry}, err)
	case err != nil && l.res == (job.Restoration{}):
		return err
	default:
		did := "restored on both sides"
		if l.dry {
			did = "would be " + did
		}
		fmt.Fprintf(l.out, "%s (%s) %s, %d on one only, %d not\n", fold.Plural(l.res.Entries, "entry"), size(l.res.Bytes), did, l.res.Alone, l.res.Failed)
	}
	if err == nil && !good {
		return &exitError{code: run.Fail}
	}
	return err
}

// reportDeleted says where what a run has deleted is now.
func (p *mirrorPrinter) reportDeleted(m drill.Mirror, dry bool, deleted int64) {
	if m.KeepDeleted <= 0 || deleted == 0 {
		return
	}
	how := "kept"
	if dry {
		how = "would be kept"
	}
	fmt.Fprintf(p.out, "  deleted    %d: %s for %s, mirror deleted lists and mirror restore brings back\n", deleted, how, m.KeepDeleted)
}
