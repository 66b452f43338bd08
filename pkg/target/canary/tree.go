package canary

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
)

// Tree is where canaries have names, such as keys of objects or paths of files: a
// clean name that all of theirs begin with. Below it each drill has a folder of its
// own, in that each ledger, and in that each thousand of canaries.
type Tree string

// Drill is the folder of a drill's canaries, without a / at its end.
func (t Tree) Drill(drill string) string { return string(t) + "/" + drill }

// Ledger is the folder of a ledger's canaries, without a / at its end.
func (t Tree) Ledger(ledger string) string { return string(t) + "/" + ledger }

// Name is a canary's name. Later ones sort before earlier ones, so that a listing of a
// ledger begins with its latest, and a thousand lie in a folder, so that finding it
// does not take longer as the ledger grows. seq is not negative.
func (t Tree) Name(ledger string, seq int64) string {
	down := fmt.Sprintf("%019d", math.MaxInt64-seq)
	return t.Ledger(ledger) + "/" + down[:16] + "/" + down[16:]
}

// Seq reads a canary's number from its name in a ledger; false if it is no name of one
// there.
func (t Tree) Seq(ledger, name string) (int64, bool) {
	down, ok := strings.CutPrefix(name, t.Ledger(ledger)+"/")
	if !ok || len(down) != 20 || down[16] != '/' {
		return 0, false
	}
	n, err := strconv.ParseInt(down[:16]+down[17:], 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	return math.MaxInt64 - n, true
}

// Verify checks that what lies under a name is the canary that belongs there, and
// returns its number. It needs nothing but the name, so nothing that happened to
// whoever wrote the canary can spoil it. Every error is an ErrDamaged.
func (t Tree) Verify(name string, body []byte) (int64, error) {
	ledger := strings.TrimPrefix(path.Dir(path.Dir(name)), string(t)+"/")
	seq, err := Read(ledger, body)
	if err == nil && t.Name(ledger, seq) != name {
		return 0, fmt.Errorf("it is canary %d: %w", seq, ErrDamaged)
	}
	return seq, err
}

// CleanName reports whether a name of one or more parts, with / between them, is its
// own and leads nowhere else: it can stand below any folder, and nothing else can be
// meant by it.
func CleanName(name string) bool {
	return name != "" && path.Clean(name) == name && !path.IsAbs(name) && name != "." && name != ".." &&
		!strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00\n\r")
}

// CleanPart is CleanName for one part, such as a drill's name.
func CleanPart(name string) bool { return CleanName(name) && !strings.Contains(name, "/") }
