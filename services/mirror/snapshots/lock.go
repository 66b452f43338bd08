package snapshots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// ErrUnderWay says that another run to the same place is under way.
var ErrUnderWay = errors.New("another run to the same place is under way")

// lockDir is the folder of locks beside what mirrors remember; no mirror's name begins
// with a dot.
const lockDir = ".zfs"

// Lock keeps a second run for the job's place out until release is called: it would find
// the first one's target half received, or build on a point that is let go. stateDir is
// where mirrors are remembered; those who do not share it are not kept out. The error
// wraps ErrUnderWay where somebody else has the lock.
func Lock(stateDir, job string) (release func(), err error) {
	return lock(stateDir, job, filelock.Try)
}

// Share is Lock for who only reads at the place: any number may at once, and nobody has
// the lock meanwhile.
func Share(stateDir, job string) (release func(), err error) {
	return lock(stateDir, job, filelock.TryShared)
}

func lock(stateDir, job string, try func(*os.File) error) (release func(), err error) {
	dir := filepath.Join(stateDir, lockDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", job, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, job+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", job, err)
	}
	if err := try(f); err != nil {
		_ = f.Close()
		if errors.Is(err, filelock.ErrHeld) {
			return nil, fmt.Errorf("%w (%s is locked): wait until it has ended", ErrUnderWay, f.Name())
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	// The file stays: whoever removes it takes another's lock away.
	return func() { _ = filelock.LetGo(f) }, nil
}
