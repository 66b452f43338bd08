package snapshots_test

import (
	"errors"
	"os/exec"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// A program that is being started has the files of this process until it runs.
func TestALockIsGivenBackWhileProgramsAreStarted(t *testing.T) {
	dir := t.TempDir()
	var others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command("/bin/true").Run()
			}
		}
	})
	for range 2000 {
		release, err := snapshots.Lock(dir, "job")
		if err != nil {
			t.Error(err)
			break
		}
		release()
	}
	close(stop)
	others.Wait()
}

func TestReadersShareALock(t *testing.T) {
	dir := t.TempDir()
	one, err := snapshots.Share(dir, "job")
	if err != nil {
		t.Fatal(err)
	}
	two, err := snapshots.Share(dir, "job")
	if err != nil {
		t.Fatal(err)
	}
	one()
	if _, err := snapshots.Lock(dir, "job"); !errors.Is(err, snapshots.ErrUnderWay) {
		t.Errorf("beside a reader: %v", err)
	}
	two()
	release, err := snapshots.Lock(dir, "job")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshots.Share(dir, "job"); !errors.Is(err, snapshots.ErrUnderWay) {
		t.Errorf("beside a writer: %v", err)
	}
	release()
}
