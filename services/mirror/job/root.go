package job

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// The roots take no part in plans, so that what they look like is carried here, from
// directory to directory. A bucket has nothing that could be its root.

// rootAttrs is what a root looks like.
type rootAttrs struct {
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// rootsName is the document that holds, by side, what the roots looked like after the
// last run.
const rootsName = "roots"

// rootKey stands for a root in reports.
const rootKey = "./"

// makeRoot makes the directory that is to be the destination. Nobody may look into it
// who may not look into the source.
func (j *Job) makeRoot(path string) error {
	mode := fs.FileMode(0o755)
	if from := j.roots[plan.Source]; from != "" && len(j.spec.rights[plan.Dest]) == 0 {
		st, err := os.Stat(from)
		if err != nil {
			return err
		}
		mode = st.Mode().Perm() | 0o700
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil || j.spec.mode != plan.TwoWay {
		return err
	}
	// That it does not look like the source is nobody's doing: the source's is carried.
	made, err := lookAtRoot(path)
	if err != nil {
		return err
	}
	return j.store.Save(rootsName, [2]rootAttrs{plan.Source: {Mode: neverSeen}, plan.Dest: made})
}

// neverSeen is the mode of no root.
const neverSeen = ^uint32(0)

func lookAtRoot(path string) (rootAttrs, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return rootAttrs{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return rootAttrs{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}, nil
}

// carryRoot makes the root of the destination look like that of the source; in a
// two-way mirror it carries what was changed since the last run. Where there are rules
// for the permissions of the destination, whoever wrote them sees to it. What cannot be
// set is in the report, but for what this user may not set and what lets nobody in whom
// the other side keeps out.
func (j *Job) carryRoot(report *engine.Report) error {
	if j.roots[plan.Source] == "" || j.roots[plan.Dest] == "" || len(j.spec.rights[plan.Dest]) > 0 {
		return nil
	}
	var now [2]rootAttrs
	for s, path := range j.roots {
		var err error
		if now[s], err = lookAtRoot(path); err != nil {
			return fmt.Errorf("mirror %s: look at the root of the %s: %w", j.spec.Name, plan.Side(s), err)
		}
	}
	if !j.ownsRoots() {
		now[plan.Source].UID, now[plan.Source].GID = now[plan.Dest].UID, now[plan.Dest].GID
	}
	var was [2]rootAttrs
	known, err := j.store.Load(rootsName, &was)
	if err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	if j.spec.mode == plan.TwoWay {
		var settled bool
		if now, settled = j.carryRoots(now, was, known, report); !settled {
			return nil
		}
	} else if j.unedited() && !j.made && (!known || now[plan.Dest] != was[plan.Dest]) && now[plan.Dest] != now[plan.Source] {
		conflict(report, plan.ConflictEdited)
		return nil
	} else if j.setRoot(plan.Dest, now, report) {
		now[plan.Dest] = now[plan.Source]
	}
	if known && now == was {
		return nil
	}
	if err := j.store.Save(rootsName, now); err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	return nil
}

// conflict reports that the roots are left as they are.
func conflict(report *engine.Report, why plan.Reason) {
	report.Done[plan.Conflict]++
	report.Conflicts = append(report.Conflicts, plan.Action{Op: plan.Conflict, Key: rootKey, To: plan.Dest, Reason: why})
}

// unedited reports whether the mirror overwrites nothing but what it wrote.
func (j *Job) unedited() bool { return j.spec.Overwrite == drill.OverwriteUnedited }

// ownsRoots reports whether owners are carried.
func (j *Job) ownsRoots() bool {
	return j.places[plan.Source].Traits().Lists&j.places[plan.Dest].Traits().Lists&plan.AttrOwner != 0
}

// carryRoots carries the roots of a two-way mirror. It gives what they look like then;
// false if they are not what they should be, so that the next run tries again.
func (j *Job) carryRoots(now, was [2]rootAttrs, known bool, report *engine.Report) ([2]rootAttrs, bool) {
	source, dest := known && now[plan.Source] != was[plan.Source], known && now[plan.Dest] != was[plan.Dest]
	switch {
	case now[plan.Source] == now[plan.Dest]:
	case source && dest:
		conflict(report, plan.ConflictChanged)
		return now, false
	case source:
		if !j.setRoot(plan.Dest, now, report) {
			return now, false
		}
		now[plan.Dest] = now[plan.Source]
	case dest:
		if !j.setRoot(plan.Source, now, report) {
			return now, false
		}
		now[plan.Source] = now[plan.Dest]
	}
	return now, true
}

// verifyRoot adds to what a check has shown whether the root of the side looks as the
// last run left it, where it carried that.
func (j *Job) verifyRoot(side plan.Side, v *Verified) error {
	if j.roots[plan.Source] == "" || j.roots[plan.Dest] == "" || len(j.spec.rights[plan.Dest]) > 0 {
		return nil
	}
	var all [2]rootAttrs
	known, err := j.store.Load(rootsName, &all)
	was := all[side]
	if err != nil || !known || was.Mode == neverSeen {
		return err
	}
	now, err := lookAtRoot(j.roots[side])
	if err != nil {
		return err
	}
	switch {
	case now.Mode != was.Mode:
		v.Verdict.MetadataOnly.Add(rootKey, fmt.Sprintf("has the mode %04o, not %04o", now.Mode, was.Mode))
	case j.ownsRoots() && now != was:
		v.Verdict.MetadataOnly.Add(rootKey, fmt.Sprintf("belongs to %d:%d, not %d:%d", now.UID, now.GID, was.UID, was.GID))
	}
	return nil
}

// setRoot makes the root of the side to look like the other one; false if it could not.
func (j *Job) setRoot(to plan.Side, now [2]rootAttrs, report *engine.Report) bool {
	want, have := now[to.Other()], now[to]
	if want == have {
		return true
	}
	err := setAttrs(j.roots[to], want, have)
	switch {
	case err == nil:
		report.Done[plan.Meta]++
	case (errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)) && !j.opener(to, want):
		// Where something is mounted for this user it is often not his.
	default:
		report.Fail(rootKey, plan.Meta, fmt.Errorf("set the attributes of the root: %w", err))
	}
	return err == nil
}

// opener reports whether the root of a side lets in whom the other side keeps out.
func (j *Job) opener(side plan.Side, want rootAttrs) bool {
	now, err := lookAtRoot(j.roots[side])
	return err != nil || now.Mode&^want.Mode&0o777 != 0
}

func setAttrs(path string, want, have rootAttrs) error {
	if want.UID != have.UID || want.GID != have.GID {
		if err := os.Chown(path, int(want.UID), int(want.GID)); err != nil {
			// At least nobody else gets in.
			return errors.Join(err, unix.Chmod(path, have.Mode&want.Mode))
		}
	}
	// Behind the owner, whose change takes setuid and setgid away.
	if err := unix.Chmod(path, want.Mode); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}
