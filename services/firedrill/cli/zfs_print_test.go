package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

func TestZFSProgressIsOneLine(t *testing.T) {
	var b bytes.Buffer
	p := &zfsPrinter{err: &b, live: true}
	p.progress(zfs.Progress{Snapshot: "tank/a@s", Number: 1, Of: 2, Bytes: 1 << 20})
	p.progress(zfs.Progress{Snapshot: "tank/a@s", Number: 1, Of: 2, Bytes: 2 << 20}) // too soon
	p.at = time.Now().Add(-time.Second)
	p.progress(zfs.Progress{Snapshot: "tank/a@t", Number: 2, Of: 2, Bytes: 3 << 20, Total: 4 << 20})
	p.clear()
	const want = "\rtank/a@s (1 of 2): 1.0 MiB, 0 B/s\x1b[K" + "\rtank/a@t (2 of 2): 3.0 MiB of 4.0 MiB, 0 B/s\x1b[K" + "\r\x1b[K"
	if got := b.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	p = &zfsPrinter{err: &b, live: true}
	p.progress(zfs.Progress{Snapshot: "tank/a@s", Number: 1, Of: 2})
	load := p.load("", "tank/a")
	load.Waits(&machine.Head{By: "mirror other", PID: 7, Since: time.Unix(0, 0)})
	load.Waits(nil)
	load.Unlocked(errors.New("no\x1b[2Jroom"))
	const lines = "\rtank/a@s (1 of 2): 0 B, 0 B/s\x1b[K\r\x1b[K" +
		"firedrill: waiting: mirror other has been at heavy work on this machine since 1970-01-01T00:00:00Z (process 7)\nfiredrill: it goes on\n" +
		"firedrill: warning: it waits for no other heavy work of this machine, as who is at it cannot be told: \"no\\x1b[2Jroom\"\n"
	if got := b.String(); got != lines {
		t.Errorf("got %q, want %q", got, lines)
	}
	b.Reset()
	p = &zfsPrinter{err: &b}
	p.progress(zfs.Progress{Snapshot: "tank/a@s"})
	p.clear()
	if b.Len() > 0 {
		t.Errorf("without a terminal it draws %q", b.String())
	}
}

// TestZFSWaitingIsToldBesideProgress, by another goroutine, each line by itself.
func TestZFSWaitingIsToldBesideProgress(t *testing.T) {
	var b bytes.Buffer
	p := &zfsPrinter{err: &b, live: true}
	load := p.load("", "tank/a")
	var told sync.WaitGroup
	told.Go(func() {
		for range 1000 {
			load.Waits(nil)
		}
	})
	for i := range 1000 {
		p.progress(zfs.Progress{Snapshot: fmt.Sprintf("tank/a@%d", i)})
		p.mu.Lock()
		p.at = time.Time{} // so that the next one is drawn, too
		p.mu.Unlock()
	}
	told.Wait()
	p.clear()
	if got := strings.Count(b.String(), "firedrill: it goes on\n"); got != 1000 {
		t.Errorf("it is told %d times", got)
	}
}
