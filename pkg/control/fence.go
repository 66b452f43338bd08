package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// Fence keeps an older conductor of a drill from acting on a host after a newer
// one has. The host remembers, in the file "fence" of Dir, the highest epoch that
// acted for each name.
//
// What is checked is checked on the host, so a conductor that was suspended
// between its last look at its lease and its act is stopped too. Signals are
// sent under the fence's lock: no newer conductor comes between. For any other
// act a window remains between the check and the act's own first effect.
type Fence struct {
	// Dir holds the file. It is made when missing, mode 0700.
	Dir string
	// Owner is whom a Dir that had to be made belongs to; empty means the user
	// that firedrill has there.
	Owner string
	// Name is what is fenced, a drill: one word of 1 to 200 visible characters.
	Name string
	// Epoch is the conductor's; it rises with each takeover. 0 is no conductor's:
	// nothing is compared or lowered.
	Epoch int64
	// Note is kept with the name, for whoever acts next: visible characters,
	// without spaces. An empty one leaves the note that is there.
	Note string
}

// FencedError says that a newer conductor has acted, so nothing was done.
type FencedError struct {
	// Epoch is the one that was refused, Newer the one that has acted.
	Epoch, Newer int64
}

// Error names both epochs.
func (e *FencedError) Error() string {
	return fmt.Sprintf("not done: a newer conductor, epoch %d, has acted on this host; this one is epoch %d", e.Newer, e.Epoch)
}

// isFenced is the exit status with which scripts say that they were refused.
const isFenced = 45

// fenceMark begins the line on standard error that goes with it.
const fenceMark = "firedrill-fence "

// fenceKept is for how long a name is remembered after its last act: the drill of a
// conductor that was suspended for longer is long over.
const fenceKept = 7 * 24 * time.Hour

// fenceDir makes the directory $d for $owner when it is missing. Each directory
// that got a new entry is synced, else a crash could take the record with it; one
// that may not be read cannot be.
const fenceDir = `if [ ! -d "$d" ]; then
  p=$d above=; until [ -d "$p" ]; do p=${p%/*}; p=${p:-/}; above="$above$p
"; done
  mkdir -p -m 0700 -- "$d" && { [ -z "$owner" ] || [ "$(id -un)" = "$owner" ] || chown -h -- "$owner" "$d"; } || exit 1
  printf '%s' "$above" | while read -r p; do [ ! -r "$p" ] || sync "$p" || exit 1; done || exit 1
fi
`

// fencePlain ends the script if one of the fence's files in $d is not a plain file.
// The directory may belong to a user who may do less than firedrill: what is laid
// there, such as a link to another file, must not be written through. A shell cannot
// open without following links, so this is a look before; on this machine the fence
// is kept without a shell.
const fencePlain = `for f in "$d/fence" "$d/fence.lock"; do
  if [ -L "$f" ] || { [ -e "$f" ] && [ ! -f "$f" ]; }; then echo "$f is not a plain file; remove it" >&2; exit 1; fi
done
`

// fenceLock waits for the lock of directory $d, which ends with the shell. Only a
// file that is not there is made.
const fenceLock = fencePlain + `[ -e "$d/fence.lock" ] || (set -C; : >"$d/fence.lock") 2>/dev/null
exec 8>>"$d/fence.lock" && flock -w 30 8 || exit 1
`

// fenceCheck ends the script if a newer epoch than $e is known in $d for name
// $n. It leaves that epoch in max, the note in was, and the lines of the other
// names that are not too old in keep. A damaged file is not guessed at.
var fenceCheck = `if [ -d "$d" ] && [ ! -x "$d" ]; then echo "$d cannot be entered" >&2; exit 1; fi
max=0 was= keep= old=$(($(date +%s) - ` + strconv.Itoa(int(fenceKept/time.Second)) + `))
if [ -e "$d/fence" ]; then while read -r name epoch at note || [ -n "$name" ]; do
  case "${epoch:-x}${at:-x}" in *[!0-9]*) echo "$d/fence is damaged; remove it once no other firedrill runs a drill here" >&2; exit 1;; esac
  if [ "$name" = "$n" ]; then max=$epoch was=$note
  elif [ "$at" -ge "$old" ]; then keep="$keep$name $epoch $at $note
"; fi
done <"$d/fence" || exit 1; fi
if [ "$e" -gt 0 ] && [ "$max" -gt "$e" ]; then echo "` + fenceMark + `$max $e" >&2; exit 45; fi
`

// Fence records that a conductor acts on the host, or refuses, with a
// *FencedError, if a newer one has. It returns when the record is on the disk.
func (h *Host) Fence(ctx context.Context, f Fence) error {
	if err := f.check(); err != nil {
		return err
	}
	if h.Local() {
		return f.record(ctx)
	}
	_, err := h.Run(ctx, Command{
		What: "record who acts", Args: []string{f.Dir, f.Owner, f.Name, strconv.FormatInt(f.Epoch, 10), f.Note},
		Script: `d=$1 owner=$2 n=$3 e=$4 new=$5
` + fenceDir + `umask 022
` + fenceLock + fenceCheck + `[ "$e" -gt "$max" ] && max=$e
t="$d/fence.new"
rm -f -- "$t" && set -C || exit 1
printf '%s%s %s %s %s\n' "$keep" "$n" "$max" "$(date +%s)" "${new:-$was}" >"$t" && sync "$t" && mv -f -- "$t" "$d/fence" && sync "$d"`,
	})
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

// FenceNote returns the note that is kept on the host for a fence's name; empty
// if there is none.
func (h *Host) FenceNote(ctx context.Context, f Fence) (string, error) {
	m, err := h.remembered(ctx, f)
	return m.own.note, err
}

// FenceCheck refuses as Fence does, and records nothing.
func (h *Host) FenceCheck(ctx context.Context, f Fence) error {
	m, err := h.remembered(ctx, f)
	if err != nil {
		return err
	}
	return f.refuse(m)
}

// remembered reads the host's file; without one, nothing is remembered.
func (h *Host) remembered(ctx context.Context, f Fence) (fenceMemory, error) {
	read := h.ReadFile
	if h.Local() {
		read = func(_ context.Context, path string) ([]byte, error) { return readPlain(path) }
	}
	b, err := read(ctx, f.file())
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fenceMemory{}, fmt.Errorf("fence: %w", err)
	}
	return f.parse(string(b))
}

// Guard puts a check before a script for a Command: it is not begun if a newer
// conductor has acted; Run's error then holds a *FencedError. The script's user
// must be able to read the fence's file.
func (f Fence) Guard(script string) string {
	if f.Epoch == 0 {
		return script
	}
	return fmt.Sprintf("( d=%s n=%s e=%d\n%s) || exit\n%s", Quote(f.Dir), Quote(f.Name), f.Epoch, fenceCheck, script)
}

// SignalFenced is Signal by a conductor: it holds the fence's lock while it
// checks and signals, so that whoever is newer comes after it. Fence is called
// before it, and has made the directory.
func (h *Host) SignalFenced(ctx context.Context, f Fence, sig syscall.Signal, pids ...int) error {
	if f.Epoch == 0 {
		return h.Signal(ctx, sig, pids...)
	}
	if err := errors.Join(f.check(), refusePids(sig, pids)); err != nil {
		return err
	}
	if h.Local() {
		return f.locked(ctx, func(fenceMemory) error { return h.Signal(ctx, sig, pids...) })
	}
	args := []string{f.Dir, f.Name, strconv.FormatInt(f.Epoch, 10)}
	_, err := h.Run(ctx, Command{
		What:   fmt.Sprintf("signal %v", sig),
		Script: "d=$1 n=$2 e=$3; shift 3\n" + fenceLock + fenceCheck + signalScript,
		Args:   append(args, signalArgs(sig, pids)...),
	})
	return err
}

func (f Fence) file() string { return filepath.Join(f.Dir, "fence") }

func (f Fence) check() error {
	visible := func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	}
	switch {
	case !filepath.IsAbs(f.Dir):
		return fmt.Errorf("fence: directory %q: name one on the host by its absolute path", f.Dir)
	case f.Name == "" || len(f.Name) > 200 || !visible(f.Name):
		return fmt.Errorf("fence: name %q: use 1 to 200 visible ASCII characters without spaces", f.Name)
	case f.Epoch < 0:
		return fmt.Errorf("fence: epoch %d: epochs begin at 1; 0 is for none", f.Epoch)
	case !visible(f.Note):
		return fmt.Errorf("fence: note %q: use visible ASCII characters without spaces", f.Note)
	}
	return nil
}

// fenceLine is what the file keeps of one name. at is in seconds.
type fenceLine struct {
	name      string
	epoch, at int64
	note      string
}

// fenceMemory is what the file holds: the line of the fence's own name, which is
// the zero value when there is none, and those of the others that are not too old.
type fenceMemory struct {
	own    fenceLine
	others []fenceLine
}

// parse reads the file's text. A damaged one is not guessed at.
func (f Fence) parse(text string) (fenceMemory, error) {
	var m fenceMemory
	oldest := time.Now().Add(-fenceKept).Unix()
	for line := range strings.Lines(text) {
		w := append(strings.Fields(line), "", "", "", "")
		epoch, err1 := strconv.ParseUint(w[1], 10, 63)
		at, err2 := strconv.ParseUint(w[2], 10, 63)
		if err1 != nil || err2 != nil {
			return m, fmt.Errorf("fence: %s is damaged; remove it once no other firedrill runs a drill here", f.file())
		}
		l := fenceLine{name: w[0], epoch: int64(epoch), at: int64(at), note: w[3]}
		switch {
		case l.name == f.Name:
			m.own = l
		case l.at >= oldest:
			m.others = append(m.others, l)
		}
	}
	return m, nil
}

// refuse is a *FencedError if a newer epoch is remembered.
func (f Fence) refuse(m fenceMemory) error {
	if f.Epoch > 0 && m.own.epoch > f.Epoch {
		return &FencedError{Epoch: f.Epoch, Newer: m.own.epoch}
	}
	return nil
}

// record is Fence on this machine, without a shell: it stands right before the
// fault.
func (f Fence) record(ctx context.Context) error {
	if err := f.makeDir(); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return f.locked(ctx, func(m fenceMemory) error {
		own := fenceLine{name: f.Name, epoch: max(f.Epoch, m.own.epoch), at: time.Now().Unix(), note: cmp.Or(f.Note, m.own.note)}
		var b strings.Builder
		for _, l := range append(m.others, own) {
			fmt.Fprintf(&b, "%s %d %d %s\n", l.name, l.epoch, l.at, l.note)
		}
		return f.replace(b.String())
	})
}

// makeDir is fenceDir on this machine.
func (f Fence) makeDir() error {
	var above []string
	for p := f.Dir; isMissing(p); p = filepath.Dir(p) {
		above = append(above, filepath.Dir(p))
	}
	if len(above) == 0 {
		return nil
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	if err := f.chownDir(); err != nil {
		return err
	}
	for _, p := range above {
		if err := syncDir(p); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (f Fence) chownDir() error {
	if f.Owner == "" {
		return nil
	}
	u, err := user.Lookup(f.Owner)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil || uid == os.Getuid() {
		return err
	}
	return os.Lchown(f.Dir, uid, -1)
}

// syncDir puts a directory's entries on the disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openPlain opens a plain file of the fence. The directory may belong to a user who
// may do less than firedrill: a link laid there is not followed, and nothing else
// that would block or do something is opened for long.
func openPlain(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, perm)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is not a plain file; remove it: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file; remove it", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func readPlain(path string) ([]byte, error) {
	f, err := openPlain(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	return io.ReadAll(f)
}

// replace puts a text in the file's place; it is on the disk when this returns, and
// readers see the old text or the new. The new file is always made, so that nothing
// that lies under its name, such as a link, is written to.
func (f Fence) replace(text string) error {
	dir, err := os.OpenRoot(f.Dir)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	defer func() { _ = dir.Close() }() // opened for reading
	name := filepath.Base(f.file())
	if err := dir.Remove(name + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fence: %w", err)
	}
	t, err := dir.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	_, err = t.WriteString(text)
	if err = errors.Join(err, t.Chmod(0o644), t.Sync(), t.Close()); err == nil {
		err = dir.Rename(name+".new", name)
	}
	if err == nil {
		err = syncDir(f.Dir)
	}
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

// locked does on this machine, in this process, what the scripts do elsewhere: a
// shell for each signal would blur the moment at which it is sent.
//
// act gets what the file holds, and is not called if a newer conductor has acted.
func (f Fence) locked(ctx context.Context, act func(fenceMemory) error) error {
	lock, err := openPlain(f.file()+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	defer func() { _ = filelock.LetGo(lock) }() // nothing was written to it
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("another process held "+lock.Name()+" for 30s"))
	defer cancel()
	switch err := filelock.Wait(ctx, lock, time.Millisecond); {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("fence: %w", err)
	case err != nil:
		return fmt.Errorf("fence: lock %s: %w", lock.Name(), err)
	}
	m, err := (&Host{}).remembered(ctx, f)
	if err != nil {
		return err
	}
	if err := f.refuse(m); err != nil {
		return err
	}
	return act(m)
}

// asFenced recognises the refusal of a script in what it said.
func asFenced(code int, stderr string) (*FencedError, bool) {
	_, said, ok := strings.Cut(stderr, fenceMark)
	if code != isFenced || !ok {
		return nil, false
	}
	var e FencedError
	if _, err := fmt.Sscan(said, &e.Newer, &e.Epoch); err != nil {
		return nil, false
	}
	return &e, true
}
