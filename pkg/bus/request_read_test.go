package bus_test

import (
	"errors"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestReadRequestSubject(t *testing.T) {
	for subject, want := range map[string][2]string{
		"drill.req.ci.x":       {"ci", "x"},
		"drill.req.ci":         {"ci", "unnamed"},
		"drill.req.ci.x.again": {"ci", "x"},
		"drill.req.ci.*":       {"ci", "unnamed"},
		"drill.req.$SYS.x":     {"", ""},
		"drill.res.ci.x":       {"", ""},
	} {
		who, name, ok := bus.ReadRequestSubject(subject)
		if who != want[0] || name != want[1] || ok != (subject == bus.RequestSubject(who, name)) {
			t.Errorf("%s: %q, %q, %v, want %q", subject, who, name, ok, want)
		}
	}
}

func TestRequestAt(t *testing.T) {
	b := newWorld(t).connect(event.Reporter)
	ack, err := b.Publish(t.Context(), "drill.req.ci.x", []byte("a drill"), "key-1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.RequestAt(t.Context(), ack.Seq)
	if err != nil || string(got.Data) != "a drill" || got.Subject != "drill.req.ci.x" || got.MsgID != "key-1" || got.Seq != ack.Seq || got.Stored.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := b.RequestAt(t.Context(), ack.Seq+1); !errors.Is(err, bus.ErrNoRequest) {
		t.Errorf("a request that was never stored: %v, want ErrNoRequest", err)
	}
}
