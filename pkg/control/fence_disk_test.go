package control

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFenceIsOnTheDisk: a directory is opened after it got an entry only to be
// synced. What a crash would take with it cannot be seen from here, but that can.
func TestFenceIsOnTheDisk(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		above := t.TempDir()
		f := Fence{Dir: filepath.Join(above, "made", "it's new"), Name: "d", Epoch: 1}
		seen := watch(t, above)
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		if got := seen(); !inOrder(got, "created made", "opened") {
			t.Errorf("the directory above was not synced after it got a directory: %q", got)
		}
		seen = watch(t, f.Dir)
		if err := h.Fence(ctx, f); err != nil {
			t.Fatal(err)
		}
		if got := seen(); !inOrder(got, "replaced fence", "opened") {
			t.Errorf("the fence's directory was not synced after it got the file: %q", got)
		}
	})
}

// TestFenceReadsALineWithoutItsEnd: somebody's editor may have left the newline out.
func TestFenceReadsALineWithoutItsEnd(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 4}
		if err := os.WriteFile(f.file(), []byte("d 5 1 a"), 0o644); err != nil {
			t.Fatal(err)
		}
		wantFenced(t, h.Fence(ctx, f), 4, 5)
		wantFenced(t, h.FenceCheck(ctx, f), 4, 5)
		_, err := h.Run(ctx, Command{Script: f.Guard("echo ran")})
		wantFenced(t, err, 4, 5)
	})
}

// inOrder reports whether all of want are in got, one after the other.
func inOrder(got []string, want ...string) bool {
	for _, g := range got {
		if len(want) > 0 && g == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// watch returns what happens to a directory from now on, until it is called.
func watch(t *testing.T, dir string) func() []string {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_OPEN|syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return func() (seen []string) {
		defer func() { _ = syscall.Close(fd) }()
		buf := make([]byte, 64<<10)
		n, err := syscall.Read(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) >= syscall.SizeofInotifyEvent; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := strings.TrimRight(string(b[syscall.SizeofInotifyEvent:][:size]), "\x00")
			b = b[syscall.SizeofInotifyEvent+size:]
			switch {
			case mask&syscall.IN_CREATE != 0:
				seen = append(seen, "created "+name)
			case mask&syscall.IN_MOVED_TO != 0:
				seen = append(seen, "replaced "+name)
			case name == "" && mask&syscall.IN_OPEN != 0:
				seen = append(seen, "opened")
			}
		}
		return seen
	}
}
