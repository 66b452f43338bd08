package bus

import (
	"fmt"
	"syscall"
)

// MinRoom is how much must be free, in bytes, where an embedded server keeps its store, for
// a drill to break anything: a drill whose events cannot be stored can neither go on nor
// be put back. It is several times what the largest histories take.
const MinRoom = 64 << 20

// NoRoom says that the disk of a store has too little left for a drill.
type NoRoom struct {
	// Dir is the store's, Free what is left there, in bytes.
	Dir  string
	Free uint64
}

// Error says how much to free, and where.
func (e *NoRoom) Error() string {
	return fmt.Sprintf("%d MiB are free for the event store in %s, and a drill needs %d MiB: its events could not be stored, and what it breaks not be put back; free some there, or take another --state-dir",
		e.Free>>20, e.Dir, MinRoom>>20)
}

// Room is a *NoRoom if the disk of a store has too little left for a drill, or the error of
// a look at it.
func Room(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("the event store's disk, of %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < MinRoom {
		return &NoRoom{Dir: dir, Free: free}
	}
	return nil
}
