package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// heldBack has a mirror reach its bucket through a proxy that answers nothing before
// answer is closed, and then with that status; 0 passes on what is asked.
func (w *world) heldBack(answer <-chan struct{}, status int) {
	w.Helper()
	store := &w.env.Stores[0]
	target, err := url.Parse(store.Endpoint)
	must(w, err)
	transport := &http.Transport{}
	next := &httputil.ReverseProxy{
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // It is signed.
		},
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
		case <-r.Context().Done():
			return
		}
		if status != 0 {
			rw.WriteHeader(status)
			return
		}
		next.ServeHTTP(rw, r)
	}))
	w.Cleanup(func() { proxy.Close(); transport.CloseIdleConnections() })
	store.Endpoint = proxy.URL
}

// entered tells when a directory was opened.
func entered(t *testing.T, dir string) <-chan struct{} {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	f := os.NewFile(uintptr(fd), "inotify")
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_OPEN|unix.IN_ONLYDIR)
	must(t, err)
	opened, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if _, err := f.Read(make([]byte, 4096)); err == nil {
			close(opened)
		}
	}()
	t.Cleanup(func() { must(t, f.Close()); <-done })
	return opened
}

// The store says nothing before the walk has come to the last of many directories: were
// that not under way, neither would ever begin.
func TestTheSourceIsWalkedWhileTheStoreIsAsked(t *testing.T) {
	for _, dry := range []bool{true, false} {
		w := between(t, drill.MirrorMirror, true)
		for i := range 50 {
			w.write(fmt.Sprintf("%02d/f", i), fmt.Sprint(i))
		}
		w.heldBack(entered(t, filepath.Join(w.from, "49")), 0)
		patient, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		j, err := w.env.OpenRun(patient, w.mirror, dry)
		cancel()
		must(t, err)
		for n, puts := range []int64{50, map[bool]int64{true: 50, false: 0}[dry]} {
			res, err := j.Sync(t.Context(), SyncOptions{DryRun: dry})
			if must(t, err); !res.Whole() || res.Seen[plan.Source] != 100 || res.Done[plan.Put] != puts {
				t.Errorf("dry %t, run %d: %+v", dry, n, res)
			}
		}
		must(t, j.Close(t.Context()))
	}
}

// A walk that nobody goes on with is ended: far more is left of it than may wait.
func TestAWalkEndsWithARunThatCannotBegin(t *testing.T) {
	w := between(t, drill.MirrorCopy, true)
	for i := range 10_000 {
		w.write(fmt.Sprintf("%02d/%02d", i/100, i%100), "")
	}
	answer := make(chan struct{})
	close(answer)
	w.heldBack(answer, http.StatusForbidden)
	before := goleak.IgnoreCurrent()
	if j, err := w.env.OpenRun(t.Context(), w.mirror, false); err == nil {
		must(t, j.Close(t.Context()))
		t.Error("a store that refuses was opened")
	}
	goleak.VerifyNone(t, before)

	// Nor does one go on whose run was not asked for.
	w.mirror.To = "dir:" + t.TempDir()
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, errors.Join(err, j.Close(t.Context())))
	goleak.VerifyNone(t, before)
}

// The walk of a place that is written to clears up there: that has to wait for the guards.
func TestASourceThatIsWrittenToIsWalkedByItsRun(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, false)
	w.write("a", "one")
	j, err := w.env.OpenRun(t.Context(), w.mirror, false)
	must(t, err)
	if j.listing != nil {
		t.Error("it is walked before the run")
	}
	res, err := j.Sync(t.Context(), SyncOptions{})
	if must(t, errors.Join(err, j.Close(t.Context()))); !res.Whole() || res.Done[plan.Put] != 1 {
		t.Errorf("got %+v", res)
	}
}
