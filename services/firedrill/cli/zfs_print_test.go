package cli

import (
	"bytes"
	"testing"
	"time"

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
	p = &zfsPrinter{err: &b}
	p.progress(zfs.Progress{Snapshot: "tank/a@s"})
	p.clear()
	if b.Len() > 0 {
		t.Errorf("without a terminal it draws %q", b.String())
	}
}
