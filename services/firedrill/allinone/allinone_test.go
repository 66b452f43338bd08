package allinone

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/services/injector"
)

// patience is how long a test waits for what takes milliseconds.
const patience = 30 * time.Second

func options(dir string) Options {
	return Options{
		StateDir: dir, Listen: "127.0.0.1:0", OutDir: filepath.Join(dir, "out"),
		Registry: target.NewRegistry(postgres.Driver{}), Log: slog.New(slog.DiscardHandler),
	}
}

// start starts an all-in-one that ends with the test, and leaves nothing behind.
func start(t *testing.T, o Options) *Stack {
	t.Helper()
	before := goleak.IgnoreCurrent()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		goleak.VerifyNone(t, before,
			// What the NATS server leaves for a moment when it stops; it ends by itself.
			goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
			goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
			goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
	})
	return s
}

// eventually tries again until it works.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	limit, tick := time.NewTimer(patience), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for err := try(); err != nil; err = try() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestItServes: who finds it by its record can ask it for everything.
func TestItServes(t *testing.T) {
	o := options(t.TempDir())
	o.HTTPAddr, o.HTTPToken = "127.0.0.1:0", "geheim-geheim-geheim"
	s := start(t, o)
	rec, ok := ReadRecord(o.StateDir)
	if !ok || rec.PID != os.Getpid() || !strings.HasPrefix(rec.HTTP, "127.0.0.1:") || rec.OutDir != o.OutDir {
		t.Fatalf("the record: %+v, %v", rec, ok)
	}
	b, err := bus.Connect(t.Context(), bus.Options{URL: rec.NATSURL, Keyring: s.Keyring, Log: o.Log, Identity: bus.Identity{Service: "cli", Instance: "test", Clock: clock.System()}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the validate endpoint", func() error {
		answer, err := b.Call(t.Context(), injector.VerbValidate, []byte("kind: Drill"))
		if err == nil && !strings.Contains(string(answer), "apiVersion: firedrill/v1") {
			t.Fatalf("validate answers %s", answer)
		}
		return err
	})
	rejected(t, b)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, "the HTTP API", func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+rec.HTTP+"/v1/drills", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+o.HTTPToken)
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if answer.StatusCode != http.StatusOK || !json.Valid(body) {
			t.Fatalf("%s: %s", answer.Status, body)
		}
		return err
	})
	s.Close()
	if _, ok := ReadRecord(o.StateDir); ok || s.Err() != nil {
		t.Errorf("after the end there is a record: %v; %v", ok, s.Err())
	}
}

// rejected asks for a drill that nobody can have and waits for the answer.
func rejected(t *testing.T, b *bus.Bus) {
	t.Helper()
	if _, err := b.Publish(t.Context(), "drill.req.me.nothing", []byte("kind: Drill"), "once"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var r injector.Result
	err := b.FollowResults(ctx, "me", "nothing", func(data []byte) error {
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		return bus.Stop
	})
	if err != nil || r.State != "rejected" || len(r.Problems) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestAFullDiskEndsIt: it does not stay up without being able to write anything down; who
// starts it anew, with room, finds all that was asked before.
func TestAFullDiskEndsIt(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o := options(disk)
	s := start(t, o)
	rejected(t, s.Bus)
	full := filepath.Join(disk, "full")
	if err := os.WriteFile(full, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() { // what is left of the last block on the disk takes a few
		for n := 0; short.Err() == nil; n++ {
			_, _ = s.Bus.Publish(short, "drill.req.me.more", []byte("kind: Drill"), strconv.Itoa(n))
		}
	})
	select {
	case <-s.Ended():
	case <-short.Done():
		t.Fatal("it is still up")
	}
	cancel()
	asking.Wait()
	if err := s.Err(); !errors.As(err, new(*bus.StoreBroken)) {
		t.Errorf("it ended because of %v", err)
	}
	s.Close()
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	s = start(t, o)
	if r, err := s.Bus.RequestAt(t.Context(), 1); err != nil || r.Subject != "drill.req.me.nothing" {
		t.Errorf("after a new start, the first request is %+v, %v", r, err)
	}
	if _, err := s.Bus.Publish(t.Context(), "drill.req.me.again", []byte("kind: Drill"), "again"); err != nil {
		t.Errorf("after a new start: %v", err)
	}
	s.Close() // gives the disk free
}

// TestASecondOneIsRefused: it says who has the directory, and leaves that one alone.
func TestASecondOneIsRefused(t *testing.T) {
	o := options(t.TempDir())
	s := start(t, o)
	_, err := Start(t.Context(), o)
	if !errors.Is(err, bus.ErrStoreLocked) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) ||
		!strings.Contains(err.Error(), filepath.Join(o.StateDir, "nats")) || !strings.Contains(err.Error(), "use another directory") {
		t.Fatalf("a second one: %v", err)
	}
	if _, ok := ReadRecord(o.StateDir); !ok {
		t.Error("the record of the first one is gone")
	}
	if err := s.Bus.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	start(t, o)
}

// TestAServiceThatCannotRunEndsAll: half a firedrill is worse than none.
func TestAServiceThatCannotRunEndsAll(t *testing.T) {
	o := options(t.TempDir())
	o.HTTPAddr, o.HTTPToken = "127.0.0.1:0", "too short"
	s := start(t, o)
	select {
	case <-s.Ended():
	case <-time.After(patience):
		t.Fatal("it runs on")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "reporter: ") {
		t.Fatalf("it ended with %v", err)
	}
}

// TestATakenAddressFailsAtOnce, before anything is done, and leaves nothing behind.
func TestATakenAddressFailsAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	o := options(t.TempDir())
	o.HTTPAddr, o.HTTPToken = taken, "geheim-geheim-geheim"
	_, err = Start(t.Context(), o)
	if http, ok := errors.AsType[*HTTPError](err); !ok || !strings.Contains(http.Error(), taken+": address already in use: another process has it: ") {
		t.Errorf("the page's: %v", err)
	}
	o.HTTPAddr, o.Listen = "", taken
	began := time.Now()
	_, err = Start(t.Context(), o)
	if nats, ok := errors.AsType[*bus.ListenError](err); !ok || !strings.HasPrefix(nats.Error(), taken+": address already in use: another process has it, as a NATS server or another firedrill: ") {
		t.Errorf("NATS's: %v", err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	o.Listen = "127.0.0.1:0"
	start(t, o)
}
