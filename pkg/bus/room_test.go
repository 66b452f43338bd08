package bus

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	if err := Room(dir); err != nil {
		t.Errorf("a disk that the other tests write to: %v", err)
	}
	// Nothing is ever free there.
	if full, ok := errors.AsType[*NoRoom](Room("/proc")); !ok || full.Free != 0 || full.Dir != "/proc" {
		t.Errorf("a full disk: %+v", full)
	}
	if err := Room(filepath.Join(dir, "none")); err == nil || errors.As(err, new(*NoRoom)) {
		t.Errorf("no directory: %v", err)
	}
}
