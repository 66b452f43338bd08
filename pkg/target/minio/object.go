package minio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// maxObject bounds the file that is changed, in bytes: it is copied first.
const maxObject = 64 << 20

// object is an object on a drive, as it was when the fault was planned.
type object struct {
	Key string `json:"key"`
	// Drive and Dir are the data directory and the object's directory in it.
	Drive string `json:"drive"`
	Dir   string `json:"dir"`
	// File is, in Dir, what stands for the object: of what is damaged, the file
	// that is; else xl.meta, which names all of the object's versions.
	File string `json:"file"`
	// Sum is the SHA-256 of File, Damaged what it is once the fault has changed it;
	// "" if the fault removes the object.
	Sum     string `json:"sum"`
	Damaged string `json:"damaged,omitempty"`
}

// keptDir is where what the fault hits is kept.
func (s *store) keptDir(r record) string { return filepath.Join(s.cfg.StateDir, r.Token+".kept") }

func (s *store) planObject(ctx context.Context, o *operation, p *target.Plan) error {
	x := &object{Drive: o.params.Drive}
	switch {
	case x.Drive == "":
		x.Drive = o.node.Drives[0]
	case !slices.Contains(o.node.Drives, x.Drive):
		return &target.FieldError{Field: "params.drive", Value: x.Drive, Fix: "use one of the node's drives: " + strings.Join(o.node.Drives, ", ")}
	}
	key, err := s.chooseKey(ctx, o)
	if errors.Is(err, errNoCanaries) && o.CanariesToCome {
		o.rec.Undo = undoNothing
		p.Parts = []event.Part{s.part(o.node, "drive", x.Drive)}
		p.Does = []string{fmt.Sprintf("break one of the drill's canaries on drive %s of node %s, behind the server's back; it is chosen when there are some", x.Drive, o.node.Name)}
		p.Undoes = "nothing: there is nothing to break yet"
		return nil
	}
	if err != nil {
		return err
	}
	x.Key = key
	x.Dir = path.Join(x.Drive, s.cfg.Bucket, key)
	raw, err := s.readObject(ctx, o, x)
	if err != nil {
		return err
	}
	x.Sum = sumOf(raw)
	verb := "remove"
	if o.Name == FaultCorruptObject {
		verb = "change bytes of " + x.File + " in"
		x.Damaged = sumOf(damage(raw))
	}
	o.rec.Undo, o.rec.Object = undoObject, x
	p.Parts = []event.Part{s.part(o.node, "drive", x.Drive, "key", key)}
	p.DeadMan = undo.DeadMan(o.Operation)
	p.Does = []string{
		fmt.Sprintf("set a timer on the node's machine that puts the object back after %v", p.DeadMan),
		fmt.Sprintf("copy %s to %s on node %s", x.Dir, s.keptDir(o.rec), o.node.Name),
		fmt.Sprintf("%s %s, behind the server's back", verb, x.Dir),
	}
	p.Undoes = fmt.Sprintf("put the object back from %s, unless it was written anew meanwhile", s.keptDir(o.rec))
	return nil
}

// errNoCanaries says that no canary can be chosen yet.
var errNoCanaries = errors.New("the drill has no canaries: let a write probe run before, or name an object in params.key")

// chooseKey is params.key, if a drill may break it, or one of the drill's canaries.
func (s *store) chooseKey(ctx context.Context, o *operation) (string, error) {
	drills := s.tree().Drill(o.Drill) + "/"
	if key := o.params.Key; key != "" {
		if strings.HasPrefix(key, drills) || slices.ContainsFunc(s.cfg.BreakablePrefixes, func(prefix string) bool {
			return strict.Within(key, strings.TrimSuffix(prefix, "/"))
		}) {
			return key, nil
		}
		return "", &target.FieldError{Field: "params.key", Value: key, Fix: fmt.Sprintf(
			"it is no canary of the drill and lies below none of the target's breakablePrefixes (%s): choose another, or have the operator add its prefix to the configuration", strings.Join(s.cfg.BreakablePrefixes, ", "))}
	}
	const most = 1000
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var keys []string
	for i := range s.users.client().ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: drills, Recursive: true}) {
		if i.Err != nil {
			return "", fmt.Errorf("list the drill's canaries: %w", i.Err)
		}
		if keys = append(keys, i.Key); len(keys) == most {
			break
		}
	}
	if len(keys) == 0 {
		return "", errNoCanaries
	}
	return keys[rand.New(rand.NewPCG(uint64(o.Seed), 0)).IntN(len(keys))], nil
}

// filesScript prints size and name of the files of an object's directory, of which
// xl.meta is one: small objects have nothing else. A link on the way is refused.
const filesScript = `[ "$(readlink -f -- "$1")" = "$(readlink -f -- "$2")/$3" ] || { echo "$1 is not on the drive, or a link" >&2; exit 1; }
[ -f "$1/xl.meta" ] && cd -- "$1" && for f in xl.meta */part.*; do [ -f "$f" ] && [ ! -L "$f" ] && stat -c '%s %n' -- "$f"; done; :`

// readObject finds the file of the object that the fault hits, and reads it.
func (s *store) readObject(ctx context.Context, o *operation, x *object) ([]byte, error) {
	out, err := s.run(ctx, o.node, control.Command{What: "look at " + x.Dir, Script: filesScript, Args: []string{x.Dir, x.Drive, path.Join(s.cfg.Bucket, x.Key)}})
	if err != nil {
		return nil, err
	}
	var most int64 = -1
	for line := range strings.Lines(out) {
		size, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("node %s: files of %s: %q: %w", o.node.Name, x.Dir, line, err)
		}
		// The content lies in the largest part, and in xl.meta if there is none.
		part := name != "xl.meta"
		if x.File == "" || o.Name == FaultCorruptObject && part && (x.File == "xl.meta" || n > most) {
			x.File, most = name, n
		}
	}
	switch {
	case x.File == "":
		return nil, fmt.Errorf("node %s: there is no object in %s", o.node.Name, x.Dir)
	case most > maxObject:
		return nil, &target.FieldError{Field: "params.key", Value: x.Key, Fix: fmt.Sprintf("%s has %d bytes, more than %d: choose a smaller object", x.File, most, maxObject)}
	}
	raw, err := o.node.host.ReadFile(ctx, path.Join(x.Dir, x.File))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if len(raw) == 0 {
		return nil, fmt.Errorf("node %s: %s of %s is empty", o.node.Name, x.File, x.Dir)
	}
	return raw, nil
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// damage changes the last bytes, which are content also where it lies in xl.meta,
// and keeps the size: the object looks whole until it is read.
func damage(raw []byte) []byte {
	out := slices.Clone(raw)
	for i := max(0, len(out)-16); i < len(out); i++ {
		out[i] ^= 0xff
	}
	return out
}

// keepScript copies the object's directory, at once or not at all.
const keepScript = `mkdir -p -- "$3" && rm -rf -- "$2.new" && cp -a -- "$1" "$2.new" && sync -f "$2.new" && rm -rf -- "$2" && mv -T -- "$2.new" "$2"`

// keep makes the copy and checks that it is what the plan saw, then sets the timer.
func (s *store) keep(ctx context.Context, o *operation) error {
	x := o.rec.Object
	if x == nil {
		return fmt.Errorf("when this was planned %w", errNoCanaries)
	}
	kept := s.keptDir(o.rec)
	if _, err := s.run(ctx, o.node, control.Command{What: "keep " + x.Dir, Script: o.fence.Guard(keepScript), Args: []string{x.Dir, kept, s.cfg.StateDir}}); err != nil {
		return err
	}
	raw, err := o.node.host.ReadFile(ctx, path.Join(kept, x.File))
	if err != nil {
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	}
	if sumOf(raw) != x.Sum {
		return fmt.Errorf("%s was written anew since the fault was planned; plan again", x.Key)
	}
	return o.machine.Arm(ctx, o.Operation, o.rec.Token, control.Timer{Script: putBackScript, Args: s.putBackArgs(o.rec)})
}

// removeScript takes the directory away at one moment: it is moved on its own drive
// and removed there.
const removeScript = `t="$2/.minio.sys/tmp/$3"; rm -rf -- "$t" && mv -T -- "$1" "$t" && rm -rf -- "$t"`

func (s *store) deleteObject(ctx context.Context, o *operation) (target.Effect, error) {
	return s.breakObject(ctx, o, func() error {
		x := o.rec.Object
		_, err := s.run(ctx, o.node, control.Command{What: "remove " + x.Dir, Script: o.fence.Guard(removeScript), Args: []string{x.Dir, x.Drive, o.rec.Token}})
		return err
	})
}

func (s *store) corruptObject(ctx context.Context, o *operation) (target.Effect, error) {
	return s.breakObject(ctx, o, func() error {
		file := path.Join(o.rec.Object.Dir, o.rec.Object.File)
		raw, err := o.node.host.ReadFile(ctx, file)
		if err == nil {
			err = o.node.host.WriteFile(ctx, file, damage(raw), 0o600, "")
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", o.node.Name, err)
		}
		return nil
	})
}

func (s *store) breakObject(ctx context.Context, o *operation, act func() error) (target.Effect, error) {
	var e target.Effect
	if err := s.keep(ctx, o); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	err := act()
	e.Ended = s.clock.Now()
	if err != nil {
		return e, err
	}
	return e, s.proveBroken(ctx, o, &e)
}

// proveBroken looks at the drive, where the effect is for certain, and says what a
// client gets: with a second drive the store may still have the object whole.
func (s *store) proveBroken(ctx context.Context, o *operation, e *target.Effect) error {
	x := o.rec.Object
	raw, err := o.node.host.ReadFile(ctx, path.Join(x.Dir, x.File))
	switch gone := errors.Is(err, control.ErrNotExist); {
	case err != nil && !gone:
		return fmt.Errorf("node %s: %w", o.node.Name, err)
	case x.Damaged == "":
		e.Proof = event.Proof{Proven: gone, How: "the object is not on the drive", Observations: []string{x.Dir}}
	default:
		e.Proof = event.Proof{Proven: !gone && sumOf(raw) == x.Damaged, How: "the file's SHA-256 is the damaged one's", Observations: []string{path.Join(x.Dir, x.File)}}
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	said := "a client can still read it"
	if _, err := get(ctx, s.users.client(), s.cfg.Bucket, x.Key); err != nil {
		said = "a client gets: " + s.scrub(err).Error()
	}
	e.Proof.Observations = append(e.Proof.Observations, said)
	return nil
}

// putBackScript puts the object back if it is as the fault left it: gone, or with
// the damaged file. It says what it did. What was written or deleted since is left
// alone. The copy goes last, so that it can be done again; the lock is for the timer,
// which runs the same script.
const putBackScript = `obj=$1 kept=$2 file=$3 sum=$4 damaged=$5 drive=$6 bucket=$7 tmp=$6/.minio.sys/tmp/$8
exec 9>>"${kept%/*}/objects.lock" && flock -w 60 9 || exit 1
[ -d "$kept" ] || { rm -rf -- "$kept.new"; exit 0; }
if [ -e "$obj/$file" ]; then is=$(sha256sum <"$obj/$file") && is=${is%% *} || exit 1
elif [ -e "$obj/xl.meta" ]; then is=other
else is=gone; fi
case $is in
"$sum") ;;
"$damaged")
  [ -d "$drive/$bucket" ] || { echo "the bucket $bucket is gone from $drive" >&2; exit 1; }
  rm -rf -- "$tmp" && cp -a -- "$kept" "$tmp" && sync -f "$tmp" || exit 1
  p=${obj%/*}; if [ ! -d "$p" ]; then
    above=$p; while [ ! -d "$above" ]; do new=$above; above=${above%/*}; done
    mkdir -p -- "$p" && chown -R --reference="$above" -- "$new" || exit 1
  fi
  if [ -e "$obj" ]; then rm -rf -- "$tmp.old" && mv -T -- "$obj" "$tmp.old" || exit 1; fi
  mv -T -- "$tmp" "$obj" && rm -rf -- "$tmp.old" && echo restored ;;
*) echo anew ;;
esac && rm -rf -- "$kept"`

func (s *store) putBackArgs(r record) []string {
	x := r.Object
	damaged := x.Damaged
	if damaged == "" {
		damaged = "gone" // what the script calls it
	}
	return []string{x.Dir, s.keptDir(r), x.File, x.Sum, damaged, x.Drive, s.cfg.Bucket, r.Token}
}

// putBack undoes what was done to an object.
func (s *store) putBack(ctx context.Context, o *operation, j *undo.Journal) error {
	x := o.rec.Object
	if x == nil || !canary.CleanName(x.Key) || !canary.CleanName(x.File) || !slices.Contains(o.node.Drives, x.Drive) || x.Dir != path.Join(x.Drive, s.cfg.Bucket, x.Key) {
		return errors.New("the record's object is not on a drive of the node: refused")
	}
	out, err := s.run(ctx, o.node, control.Command{What: "put back " + x.Dir, Script: o.fence.Guard(putBackScript), Args: s.putBackArgs(o.rec)})
	switch out {
	case "restored":
		j.Add("put %s back on drive %s of node %s", x.Key, x.Drive, o.node.Name)
	case "anew":
		j.Add("left %s alone: it was written or deleted after the fault", x.Key)
	}
	return err
}
