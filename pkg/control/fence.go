package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
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

// fenceKept is for how many seconds a name is remembered after its last act, 7
// days: the drill of a conductor that was suspended for longer is long over.
const (
	fenceKept        = "604800"
	fenceKeptSeconds = 604800
)

// fenceLock waits for the lock of directory $d, which ends with the shell.
const fenceLock = `exec 8>>"$d/fence.lock" && flock -w 30 8 || exit 1
`

// fenceCheck ends the script if a newer epoch than $e is known in $d for name
// $n. It leaves that epoch in max, the note in was, and the lines of the other
// names that are not too old in keep. A damaged file is not guessed at.
const fenceCheck = `if [ -d "$d" ] && [ ! -x "$d" ]; then echo "$d cannot be entered" >&2; exit 1; fi
max=0 was= keep= old=$(($(date +%s) - ` + fenceKept + `))
if [ -e "$d/fence" ]; then while read -r name epoch at note; do
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
[ -d "$d" ] || { mkdir -p -m 0700 -- "$d" && { [ -z "$owner" ] || [ "$(id -un)" = "$owner" ] || chown -- "$owner" "$d"; }; } || exit 1
umask 022
` + fenceLock + fenceCheck + `[ "$e" -gt "$max" ] && max=$e
t="$d/fence.new"
printf '%s%s %s %s %s\n' "$keep" "$n" "$max" "$(date +%s)" "${new:-$was}" >"$t" && sync "$t" && mv -f -- "$t" "$d/fence"`,
	})
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

// FenceNote returns the note that is kept on the host for a fence's name; empty
// if there is none.
func (h *Host) FenceNote(ctx context.Context, f Fence) (string, error) {
	b, err := h.ReadFile(ctx, f.file())
	if errors.Is(err, ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("fence: %w", err)
	}
	_, note, err := f.find(string(b))
	return note, err
}

// FenceCheck refuses as Fence does, and records nothing.
func (h *Host) FenceCheck(ctx context.Context, f Fence) error {
	b, err := h.ReadFile(ctx, f.file())
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return f.refuse(string(b))
}

// refuse is a *FencedError if the file's text knows a newer epoch.
func (f Fence) refuse(text string) error {
	newest, _, err := f.find(text)
	if err == nil && f.Epoch > 0 && newest > f.Epoch {
		err = &FencedError{Epoch: f.Epoch, Newer: newest}
	}
	return err
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
		return f.locked(ctx, func(string) error { return h.Signal(ctx, sig, pids...) })
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
	case f.Dir == "":
		return errors.New("fence: no directory: name one on the host")
	case f.Name == "" || len(f.Name) > 200 || !visible(f.Name):
		return fmt.Errorf("fence: name %q: use 1 to 200 visible ASCII characters without spaces", f.Name)
	case f.Epoch < 0:
		return fmt.Errorf("fence: epoch %d: epochs begin at 1; 0 is for none", f.Epoch)
	case !visible(f.Note):
		return fmt.Errorf("fence: note %q: use visible ASCII characters without spaces", f.Note)
	}
	return nil
}

// fenceLine is what the file keeps of one name. At is in seconds.
type fenceLine struct {
	name      string
	epoch, at int64
	note      string
}

// lines reads the file's text. A damaged one is not guessed at.
func (f Fence) lines(text string) ([]fenceLine, error) {
	var out []fenceLine
	for line := range strings.Lines(text) {
		w := append(strings.Fields(line), "", "", "", "")
		l := fenceLine{name: w[0], note: w[3]}
		var err1, err2 error
		l.epoch, err1 = strconv.ParseInt(w[1], 10, 64)
		l.at, err2 = strconv.ParseInt(w[2], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("fence: %s is damaged; remove it once no other firedrill runs a drill here", f.file())
		}
		out = append(out, l)
	}
	return out, nil
}

// find reads the highest epoch and the note of the fence's name.
func (f Fence) find(text string) (epoch int64, note string, err error) {
	lines, err := f.lines(text)
	for _, l := range lines {
		if l.name == f.Name {
			epoch, note = l.epoch, l.note
		}
	}
	return epoch, note, err
}

// record is Fence on this machine, without a shell: it stands right before the
// fault.
func (f Fence) record(ctx context.Context) error {
	if _, err := os.Stat(f.Dir); errors.Is(err, os.ErrNotExist) {
		if err := f.makeDir(); err != nil {
			return fmt.Errorf("fence: %w", err)
		}
	}
	return f.locked(ctx, func(text string) error {
		lines, err := f.lines(text)
		if err != nil {
			return err
		}
		now := time.Now()
		own := fenceLine{name: f.Name, epoch: f.Epoch, at: now.Unix(), note: f.Note}
		var b strings.Builder
		for _, l := range lines {
			switch {
			case l.name == f.Name:
				own.epoch = max(own.epoch, l.epoch)
				own.note = cmp.Or(own.note, l.note)
			case now.Unix()-l.at <= fenceKeptSeconds:
				fmt.Fprintf(&b, "%s %d %d %s\n", l.name, l.epoch, l.at, l.note)
			}
		}
		fmt.Fprintf(&b, "%s %d %d %s\n", own.name, own.epoch, own.at, own.note)
		return replaceFile(f.file(), b.String())
	})
}

func (f Fence) makeDir() error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil || f.Owner == "" {
		return err
	}
	u, err := user.Lookup(f.Owner)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil || uid == os.Getuid() {
		return err
	}
	return os.Chown(f.Dir, uid, -1)
}

// replaceFile puts a text in a file's place; it is on the disk when this returns,
// and readers see the old text or the new.
func replaceFile(path, text string) error {
	t, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	_, err = t.WriteString(text)
	if err = errors.Join(err, t.Chmod(0o644), t.Sync(), t.Close()); err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

// locked does on this machine, in this process, what the scripts do elsewhere: a
// shell for each signal would blur the moment at which it is sent.
//
// act gets the file's text, and is not called if a newer conductor has acted.
func (f Fence) locked(ctx context.Context, act func(text string) error) error {
	lock, err := os.OpenFile(f.file()+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("another process held "+lock.Name()+" for 30s"))
	defer cancel()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("fence: lock %s: %w", lock.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fence: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	b, err := os.ReadFile(f.file())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("fence: %w", err)
	}
	if err := f.refuse(string(b)); err != nil {
		return err
	}
	return act(string(b))
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
