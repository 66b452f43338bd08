package bus_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestAFullStoreIsTold: a server whose disk has filled up takes nothing more, also when
// there is room again, and says so; started anew it goes on.
func TestAFullStoreIsTold(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The server's loops end a moment after it.
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "nats")
	w := &world{t: t, signers: newSigners(t), server: startServer(t, bus.EmbeddedOptions{StoreDir: dir})}
	b := w.connect(event.Injector)
	if err := b.Bootstrap(t.Context(), bus.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Append(t.Context(), "d", accepted())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() { told <- w.server.Watch(ctx) }()

	full := filepath.Join(disk, "full")
	if err := os.WriteFile(full, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	asking, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var appends sync.WaitGroup
	appends.Go(func() { // what is left of the last block on the disk takes a few
		for asking.Err() == nil {
			_, _ = b.Append(asking, "d", phase(1))
		}
	})
	select {
	case err = <-told:
	case <-asking.Done():
	}
	stop()
	appends.Wait()
	if broken, ok := errors.AsType[*bus.StoreBroken](err); !ok || !strings.HasPrefix(broken.Dir, dir) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("the watch says %v", err)
	}
	cancel()
	b.Close()
	w.server.Shutdown()

	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	w.server = startServer(t, bus.EmbeddedOptions{StoreDir: dir})
	ctx, cancel = context.WithCancel(t.Context())
	again := w.connect(event.Injector)
	if _, err := again.Append(t.Context(), "d", phase(2)); err != nil {
		t.Errorf("after a new start: %v", err)
	}
	cancel()
	if err := w.server.Watch(ctx); err != nil {
		t.Errorf("a watch that was called off says %v", err)
	}
}
