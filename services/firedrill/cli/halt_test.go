package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// TestOneOfManyHaltsAtOnce: the others are told whose reason stays.
func TestOneOfManyHaltsAtOnce(t *testing.T) {
	dir := serve(t)
	outs := make([]bytes.Buffer, 6)
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			if code, errs := ask(t.Context(), dir, &outs[i], "halt", fmt.Sprint("reason ", i)); code != run.OK {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
	wg.Wait()
	first := -1
	for i := range outs {
		if strings.Contains(outs[i].String(), "being aborted") {
			if first >= 0 {
				t.Errorf("%d and %d have both halted", first, i)
			}
			first = i
		}
	}
	for i := range outs {
		if want := fmt.Sprint("reason ", first); i != first && !strings.Contains(outs[i].String(), want) {
			t.Errorf("halt %d says %q, not %q", i, outs[i].String(), want)
		}
	}
	says(t, dir, []string{"released", fmt.Sprint("reason ", first)}, "halt", "--release")
}

// TestHaltWaitsForOneThatStartsOrEnds: its store is locked, and there is no way in yet
// or any more. It says what it waits for.
func TestHaltWaitsForOneThatStartsOrEnds(t *testing.T) {
	dir := t.TempDir()
	server, b := openStore(t, dir, "")
	var said lines
	said.call = func() { b.Close(); server.Shutdown() }
	var out bytes.Buffer
	code := Run(t.Context(), []string{"--state-dir", dir, "halt", "the disks are full"}, Streams{In: strings.NewReader(""), Out: &out, Err: &said}, target.NewRegistry())
	if code != run.OK || !strings.Contains(out.String(), "halted: ") || said.text.String() != "firedrill: a firedrill is just starting or ending here: waiting for that, up to 15s\n" {
		t.Fatalf("exit %d, %s%s", code, &out, &said.text)
	}
	says(t, dir, []string{"halted already", "the disks are full"}, "halt")
}

// TestQuestionsWaitForOneThatStartsOrEnds: after a crash, people ask while the next up
// starts. Nobody is told to stop that.
func TestQuestionsWaitForOneThatStartsOrEnds(t *testing.T) {
	const waits = "firedrill: a firedrill is just starting or ending here: waiting for that, up to 15s\n"
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"status", "nosuch-9"}, run.BadArguments, `"nosuch-9": no such drill`},
		{[]string{"list"}, run.OK, "DRILL"},
		{[]string{"abort", "nosuch-9"}, run.BadArguments, "no firedrill is running"},
	} {
		dir := t.TempDir()
		server, b := openStore(t, dir, "")
		var said lines
		said.call = func() { b.Close(); server.Shutdown() }
		var out bytes.Buffer
		code := Run(t.Context(), append([]string{"--state-dir", dir}, c.args...), Streams{In: strings.NewReader(""), Out: &out, Err: &said}, target.NewRegistry())
		if all := said.text.String() + out.String(); code != c.code || !strings.HasPrefix(all, waits) || !strings.Contains(all, c.says) {
			t.Errorf("%v: exit %d, %s", c.args, code, all)
		}
	}
}

// lines keeps what is written, and calls something at the first write.
type lines struct {
	atFirstWord
	text bytes.Buffer
}

func (w *lines) Write(p []byte) (int, error) {
	w.text.Write(p)
	return w.atFirstWord.Write(p)
}

// TestHaltWaitsNoLongerThanIsWanted, and knows who has the store.
func TestHaltWaitsNoLongerThanIsWanted(t *testing.T) {
	dir := t.TempDir()
	server, b := openStore(t, dir, "")
	defer server.Shutdown()
	defer b.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	said := lines{atFirstWord: atFirstWord{call: func() { cancel(&run.Signal{Signal: os.Interrupt}) }}}
	var out bytes.Buffer
	code := Run(ctx, []string{"--state-dir", dir, "halt"}, Streams{In: strings.NewReader(""), Out: &out, Err: &said}, target.NewRegistry())
	if code != run.Interrupted || out.Len() != 0 || !strings.HasSuffix(said.text.String(), "firedrill: interrupted: nothing was switched\n") {
		t.Errorf("exit %d, %s%s", code, &out, &said.text)
	}
	a := &app{stateDir: dir, logLevel: "error"}
	err := a.withRunningOrStore(t.Context(), nil)
	if !errors.Is(err, errChanging) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())+" has it") {
		t.Errorf("who has it: %v", err)
	}
}

// TestHaltGoesOnWithTheStore of a firedrill that ends while it is asked.
func TestHaltGoesOnWithTheStore(t *testing.T) {
	dir := t.TempDir()
	server, b := openStore(t, dir, "127.0.0.1:0")
	record(t, dir, allinone.Record{PID: os.Getpid(), NATSURL: server.URL()})
	a := &app{Streams: Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}, stateDir: dir, logLevel: "error"}
	var asked []bool
	err := a.patiently(t.Context(), func(ctx context.Context, _ *bus.Bus, running bool) error {
		asked = append(asked, running)
		if !running {
			return nil
		}
		b.Close()
		server.Shutdown()
		<-ctx.Done() // it is not waited for, which has ended
		return ctx.Err()
	}, func() {})
	if err != nil || len(asked) != 2 || !asked[0] || asked[1] {
		t.Errorf("asked %v: %v", asked, err)
	}
}
