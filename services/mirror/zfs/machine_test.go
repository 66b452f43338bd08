package zfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
)

func machines(t *testing.T) map[string]*Machine {
	t.Helper()
	out := map[string]*Machine{}
	for name, c := range map[string]control.Config{
		"local": {},
		"argv":  {Kind: control.KindExec, Argv: []string{"env"}},
		// As ssh does it.
		"joined": {Kind: control.KindExec, Argv: []string{"sh", "-c", `exec sh -c "$*"`, "sh"}},
	} {
		m, err := NewMachine(c)
		must(t, err)
		out[name] = m
	}
	return out
}

func TestMachineCarriesStreams(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for name, m := range machines(t) {
		var out bytes.Buffer
		if err := m.Run(t.Context(), bytes.NewReader(content), &out, "cat", "-"); err != nil || !bytes.Equal(out.Bytes(), content) {
			t.Errorf("%s: %d bytes, %v", name, out.Len(), err)
		}
	}
}

// TestMachineHandsNothingOn: firedrill's environment holds tokens and passwords.
func TestMachineHandsNothingOn(t *testing.T) {
	t.Setenv("FIREDRILL_HTTP_TOKEN", "marker-of-the-test")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	for name, m := range machines(t) {
		var out bytes.Buffer
		must(t, m.Run(t.Context(), nil, &out, "env"))
		if text := out.String(); strings.Contains(text, "marker") || !strings.Contains(text, "LC_ALL=C\n") || !strings.Contains(text, "/usr/sbin") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestMachineTellsHowItFailed(t *testing.T) {
	t.Parallel()
	for name, m := range machines(t) {
		err := m.Run(t.Context(), nil, nil, "ls", "/does/not/exist")
		failed, ok := errors.AsType[*control.CommandError](err)
		if !ok || failed.Code != 2 || failed.What != "ls /does/not/exist" || !strings.Contains(failed.Stderr, "No such file") {
			t.Errorf("%s: %v", name, err)
		}
		if m.Run(t.Context(), nil, nil, "does-not-exist") == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m, err := NewMachine(control.Config{Kind: control.KindExec, Argv: []string{"/does/not/exist"}})
	must(t, err)
	if failed, ok := errors.AsType[*control.CommandError](m.Run(t.Context(), nil, nil, "zfs")); !ok || failed.Code != -1 {
		t.Errorf("%+v", failed)
	}
	if _, err := NewMachine(control.Config{Kind: "ssh"}); err == nil {
		t.Error("an unknown kind was taken")
	}
}

// TestMachineKeepsWordsWhole: a shell on the way must not see what it could read as
// its own.
func TestMachineKeepsWordsWhole(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"two words", "$HOME", "a;b", "*", "`id`", "", "a'b", "a\nb"} {
		for name, m := range machines(t) {
			var out bytes.Buffer
			err := m.Run(t.Context(), nil, &out, "printf", "%s", word)
			if name == "local" && (err != nil || out.String() != word) || name != "local" && !errors.Is(err, ErrName) {
				t.Errorf("%s, %q: %q, %v", name, word, out.String(), err)
			}
		}
	}
}

func TestMachineEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, m := range machines(t) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write([]byte("begun"))
			cancel()
		}()
		began := time.Now()
		err := m.Run(ctx, r, io.Discard, "cat")
		if !errors.Is(err, context.Canceled) || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
		must(t, r.Close())
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	e := &tail{limit: 10}
	for range 100 {
		_, _ = e.Write([]byte("abc"))
	}
	if got := e.String(); got != "…cabcabcabc" {
		t.Errorf("got %q", got)
	}
}
