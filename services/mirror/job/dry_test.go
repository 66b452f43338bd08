package job

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
)

// Where a run could not open its destination for writing a dry one says so, too.
func TestADryRunIsRefusedWhereTheRunIs(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "x")
	must(t, unix.Mount("tmpfs", w.to, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { must(t, unix.Unmount(w.to, unix.MNT_DETACH)) })
	w.whole()
	must(t, unix.Mount("", w.to, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	var said []string
	for _, dry := range []bool{true, false} {
		_, err := w.env.OpenRun(t.Context(), w.mirror, dry)
		if err == nil {
			t.Fatalf("dry %t: it was opened", dry)
		}
		said = append(said, err.Error())
	}
	if said[0] != said[1] {
		t.Errorf("the dry run says %q, the run %q", said[0], said[1])
	}
	// For reading it is good enough.
	j, err := w.env.openJob(t.Context(), w.mirror, Looks)
	must(t, err)
	must(t, j.Close(t.Context()))
	// A destination that the first run makes is no obstacle.
	w.mirror.Name, w.mirror.To = "other", "dir:"+filepath.Join(t.TempDir(), "made/later")
	j, err = w.env.OpenRun(t.Context(), w.mirror, true)
	must(t, err)
	must(t, j.Close(t.Context()))
}
