package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target"
)

func (s *servers) checkForensics(ctx context.Context, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	const name = "commits that did not survive"
	now, views, err := s.primaryNow(ctx)
	if err != nil {
		return nil, err
	}
	var dead *view
	for i := range views {
		v := &views[i]
		if v.node != now.node && !v.Answers && v.primary() && v.Timeline < now.Timeline {
			dead = v
		}
	}
	if dead == nil {
		return []event.Property{undecided(name, "no node is a dead former primary: "+describe(views), "one whose log can be read")}, nil
	}
	if dead.Running() && !dead.Frozen {
		return []event.Property{undecided(name, "the former primary "+dead.node.Name+" is still running", "one that has stopped writing")}, nil
	}
	forks, err := s.history(ctx, now)
	if err != nil {
		return nil, err
	}
	for _, f := range forks {
		if f.Parent == dead.Timeline {
			return s.commitsAfter(ctx, *dead, f, p)
		}
	}
	return []event.Property{undecided(name, fmt.Sprintf("the history of timeline %d does not contain timeline %d of node %s", now.Timeline, dead.Timeline, dead.node.Name), "a fork from it")}, nil
}

// commitsScript lists the commits from a position on, the log's files of the timeline,
// and pg_waldump's last words: it ends with an error at the end of the log, which is
// where it is to end.
const commitsScript = `"$1/pg_waldump" -p "$2/pg_wal" -t "$3" -s "$4" -r Transaction 2>"$5" | grep -E 'desc: COMMIT|desc: COMMIT_PREPARED' || :
for f in "$2/pg_wal/$(printf %08X "$3")"????????????????; do echo "file: ${f##*/}"; done
cat "$5" >&2; sed 's/^/end: /' "$5"; rm -f "$5"`

func (s *servers) commitsAfter(ctx context.Context, dead view, f fork, p checkParams) ([]event.Property, error) {
	const name = "commits that did not survive"
	if err := s.makeEvidenceDir(ctx, dead.node); err != nil {
		return nil, err
	}
	scratch := s.cfg.Failback.EvidenceDir + "/waldump-" + dead.node.Name + ".err"
	out, err := s.run(ctx, dead.node, commitsScript, dead.node.BinDir, dead.node.DataDir, strconv.Itoa(f.Parent), f.At.String(), scratch)
	if err != nil {
		return nil, err
	}
	var commits, files []string
	end := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "end: "); ok {
			end = rest
		} else if rest, ok := strings.CutPrefix(line, "file: "); ok {
			files = append(files, rest)
		} else if line != "" {
			commits = append(commits, line)
		}
	}
	found := fmt.Sprintf("%d commits in the log of node %s after the fork at %s", len(commits), dead.node.Name, f.At)
	// The log ends where no valid record follows. Any other reason may have hidden commits.
	if !endOfLog(end, files) {
		if end == "" {
			end = "pg_waldump did not say why it stopped"
		}
		return []event.Property{{Name: name, Result: event.ResultInconclusive, Found: found + "; " + end, Wanted: "the log read to its end", Samples: commits}}, nil
	}
	prop := info(name, found)
	if p.MaxCommits != nil {
		prop = target.Judge(name, int64(len(commits)) <= *p.MaxCommits, found, fmt.Sprintf("at most %d", *p.MaxCommits))
	}
	prop.Samples = commits
	return []event.Property{prop}, nil
}

// missingFile is pg_waldump's word for a file of the log that is not there.
var missingFile = lazy.Regexp(`could not find file "([0-9A-F]{24})"`)

// endOfLog recognises pg_waldump's word that no valid record follows. A file that is
// missing is the log's end if it would have followed the last one of the timeline;
// otherwise it was removed, or used again, with what it held.
func endOfLog(message string, files []string) bool {
	if m := missingFile().FindStringSubmatch(message); m != nil {
		last := slices.Max(append(files, ""))
		return last != "" && len(last) == len(m[1]) && follows(last, m[1])
	}
	for _, s := range []string{
		"invalid record length", "could not find a valid record after", "invalid magic number", "unexpected pageaddr",
		"record with incorrect prev-link", "invalid resource manager ID", "incorrect resource manager data checksum",
		"contrecord is requested", "there is no contrecord flag", "invalid contrecord length",
	} {
		if strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// follows reports whether next is the name of the log file after last. The low half of
// the last 16 digits starts again at zero after as many files as 4 GiB hold.
func follows(last, next string) bool {
	half := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 16, 32)
		if err != nil {
			return math.MaxUint64 - 1 // a shell pattern that met no file: nothing follows it
		}
		return n
	}
	lh, ll := half(last[8:16]), half(last[16:])
	nh, nl := half(next[8:16]), half(next[16:])
	return last[:8] == next[:8] && (nh == lh && nl == ll+1 || nh == lh+1 && nl == 0)
}
