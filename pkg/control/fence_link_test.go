package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFenceFollowsNoLinks: the fence's directory belongs to a user who may do less
// than firedrill, and who could lay links to what only firedrill may write.
func TestFenceFollowsNoLinks(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		for name, refused := range map[string]bool{"fence.new": false, "fence.lock": true, "fence": true} {
			dir, shadow := t.TempDir(), filepath.Join(t.TempDir(), "shadow")
			if err := os.WriteFile(shadow, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(shadow, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			f := Fence{Dir: dir, Name: "d", Epoch: 1}
			if err := h.Fence(ctx, f); (err != nil) != refused {
				t.Errorf("%s is a link: %v", name, err)
			}
			fi, err := os.Stat(shadow)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(shadow); err != nil || string(b) != "precious" || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: what the link leads to is %q, mode %v, %v", name, b, fi.Mode(), err)
			}
			if fi, err := os.Lstat(f.file()); !refused && (err != nil || !fi.Mode().IsRegular()) {
				t.Errorf("%s: the record is %v, %v", name, fi, err)
			}
		}
	})
}

// TestFenceMakesNothingElsewhere: a link that leads nowhere yet is not followed either.
func TestFenceMakesNothingElsewhere(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		for _, name := range []string{"fence.new", "fence.lock"} {
			dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "made")
			if err := os.Symlink(elsewhere, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			_ = h.Fence(ctx, Fence{Dir: dir, Name: "d", Epoch: 1}) // refused or not, see above
			if _, err := os.Lstat(elsewhere); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: a file was made elsewhere: %v", name, err)
			}
		}
	})
}

// TestFenceDoesNotWaitForAPipe: one in the file's place has no writer.
func TestFenceDoesNotWaitForAPipe(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, h *Host) {
		f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 1}
		if err := syscall.Mkfifo(f.file(), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := h.Fence(ctx, f); err == nil || ctx.Err() != nil {
			t.Errorf("got %v", err)
		}
	})
}
